//! Showing long results page by page.

use std::io::Write;
use std::process::{Command, Stdio};

/// What is used when nobody says otherwise: less, which leaves at once what
/// fits (`F`), passes colours (`R`) and leaves the text on the screen (`X`).
const DEFAULT: &str = "less -FRX";

/// A program that shows its standard input page by page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pager {
    program: String,
    arguments: Vec<String>,
    /// What `LESS` is set to, unless it is set already.
    less: Option<&'static str>,
}

impl Pager {
    /// The pager that the environment names in `PAGER`, split at blanks; `None`
    /// when it is empty or `cat`.
    pub fn choose(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let line = variable("PAGER").unwrap_or_else(|| DEFAULT.to_owned());
        let mut words = line.split_whitespace().map(str::to_owned);
        let program = words.next().filter(|program| program != "cat")?;
        let less = variable("LESS").is_none().then_some("FRX");
        Some(Self { program, arguments: words.collect(), less })
    }

    /// Shows the text and waits until the reader has had enough. `false` when
    /// the program cannot be started: nothing was shown then.
    pub fn show(&self, text: &str) -> bool {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::piped());
        if let Some(flags) = self.less {
            command.env("LESS", flags);
        }
        let Ok(mut pager) = command.spawn() else {
            return false;
        };
        if let Some(mut input) = pager.stdin.take() {
            // A reader who leaves before the end has seen enough.
            let _ = input.write_all(text.as_bytes());
        }
        let _ = pager.wait();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pager(pairs: &[(&str, &str)]) -> Option<Pager> {
        Pager::choose(|name| {
            pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_names_the_pager() {
        let less = pager(&[]).unwrap();
        assert_eq!((less.program.as_str(), less.arguments), ("less", vec!["-FRX".to_owned()]));
        assert_eq!(less.less, Some("FRX"));
        let most = pager(&[("PAGER", "most -w +5"), ("LESS", "S")]).unwrap();
        assert_eq!((most.program.as_str(), most.arguments.len(), most.less), ("most", 2, None));
        assert_eq!(pager(&[("PAGER", "")]), None);
        assert_eq!(pager(&[("PAGER", "cat")]), None);
    }

    #[test]
    fn a_pager_that_is_not_there_shows_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let absent = directory.path().join("pager");
        assert!(!pager(&[("PAGER", absent.to_str().unwrap())]).unwrap().show("text"));
    }
}
