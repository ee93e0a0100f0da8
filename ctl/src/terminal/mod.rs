//! What is different when a person looks: colour, paging, and progress.
//! Whoever reads through a pipe or from a file gets the same bytes as ever.

mod pager;
mod progress;

use std::io::{IsTerminal, Write, stderr, stdout};

pub use pager::Pager;
pub use progress::Progress;

use weir_common::printable_lines;

use crate::output::Style;

/// Red, for what went wrong (ECMA-48, SGR 31).
const RED: &str = "\u{1b}[31m";
/// Back to the terminal's own (SGR 0).
const PLAIN: &str = "\u{1b}[0m";

/// The terminal behind standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// Its width in characters.
    pub width: usize,
    /// Its height in lines.
    pub height: usize,
}

impl Screen {
    /// The terminal behind standard output, if there is one.
    pub fn of_output() -> Option<Self> {
        let (width, height) = terminal_size::terminal_size_of(stdout())?;
        Some(Self { width: width.0.into(), height: height.0.into() })
    }

    /// How many of its lines a text takes, long ones wrapped.
    fn lines_of(self, text: &str) -> usize {
        let width = self.width.max(1);
        text.lines().map(|line| line.chars().count().div_ceil(width).max(1)).sum()
    }
}

/// Whether colours are wanted on a terminal: not with `NO_COLOR`
/// (<https://no-color.org>), and not on a terminal that has none.
pub fn wants_colour(variable: impl Fn(&str) -> Option<String>) -> bool {
    let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && variable("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// How results are laid out for standard output.
pub fn style() -> Style {
    match Screen::of_output() {
        Some(screen) => Style { colour: is_coloured(), width: Some(screen.width) },
        None => Style::default(),
    }
}

/// Writes a result: through a pager when it is longer than the terminal.
///
/// # Errors
/// Standard output cannot be written to.
pub fn write(text: &str) -> std::io::Result<()> {
    if let Some(screen) = Screen::of_output()
        && screen.lines_of(text) >= screen.height
        && let Some(pager) = Pager::choose(environment)
        && pager.show(text)
    {
        return Ok(());
    }
    stdout().write_all(text.as_bytes())
}

/// Writes what went wrong to standard error.
pub fn write_error(message: &str) {
    let message = printable_lines(message.trim_end());
    // There is nobody left to tell when this cannot be written.
    let _ = match stderr().is_terminal() && is_coloured() {
        true => writeln!(stderr(), "{RED}{message}{PLAIN}"),
        false => writeln!(stderr(), "{message}"),
    };
}

fn is_coloured() -> bool {
    wants_colour(environment)
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_those_who_want_them() {
        let wants = |pairs: &[(&str, &str)]| {
            let pairs: Vec<(String, String)> =
                pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            wants_colour(move |name| {
                pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
            })
        };
        assert!(wants(&[("TERM", "xterm")]));
        assert!(wants(&[("NO_COLOR", "")]), "an empty NO_COLOR says nothing");
        assert!(!wants(&[("NO_COLOR", "1"), ("TERM", "xterm")]));
        assert!(!wants(&[("TERM", "dumb")]));
    }

    #[test]
    fn long_lines_take_several_of_the_screen() {
        let screen = Screen { width: 10, height: 5 };
        assert_eq!(screen.lines_of("0123456789\n01234567890\n\n"), 4);
    }
}
