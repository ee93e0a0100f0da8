//! `weirctl man`: the manual pages, out of the command line's definition and the documentation.

mod command;
mod markdown;

use std::path::{Path, PathBuf};

use clap::{Args, Command};

use crate::session::{CommandResult, Failure};

/// Arguments of `weirctl man`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  weirctl man --directory /usr/local/share/man")]
pub struct ManArgs {
    /// Directory in which the pages are written, each in that of its section (man5, man8)
    #[arg(long, value_name = "DIR")]
    pub directory: PathBuf,
}

/// The documentation that the pages share with their readers on the web.
const README: &str = include_str!("../../../README.md");

/// A manual page.
pub struct ManualPage {
    /// Its name, without the section.
    pub name: String,
    /// Its section of the manual.
    pub section: &'static str,
    /// The page in roff's language.
    pub text: String,
}

impl ManualPage {
    /// Where it is below a directory of manual pages.
    pub fn path(&self) -> PathBuf {
        Path::new(&format!("man{}", self.section)).join(format!("{}.{}", self.name, self.section))
    }
}

/// Writes all pages.
///
/// # Errors
/// [`Failure`] naming the file that cannot be written.
pub fn run(arguments: &ManArgs, weirctl: Command) -> CommandResult {
    let pages = pages(weirctl);
    for page in &pages {
        let path = arguments.directory.join(page.path());
        let folder = path.parent().unwrap_or(&arguments.directory);
        let written =
            std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, &page.text));
        written.map_err(|error| {
            Failure::new(format!(
                "{} cannot be written: {error}; name another --directory",
                path.display()
            ))
        })?;
    }
    Ok(format!("Wrote {} manual pages to {}\n", pages.len(), arguments.directory.display()))
}

/// All pages: one for each command that is not hidden, and those of the plugins.
pub fn pages(weirctl: Command) -> Vec<ManualPage> {
    let mut pages = command::pages(weirctl);
    let plugin = |name: &str, section, text: &str| ManualPage {
        name: name.to_owned(),
        section,
        text: markdown::page(name, section, text),
    };
    let fenced = |text: &str| format!("```\n{text}```");
    let weir = include_str!("../../../docs/man/weir.8.md")
        .replace("@ERRORS@", excerpt("Each error says what failed", "| you see | do |"));
    let ipam = include_str!("../../../docs/man/weir-ipam.8.md")
        .replace("@OTHER@", excerpt("Like Calico's IPAM plugin", "## Troubleshooting"));
    let conflist = include_str!("../../../docs/man/weir-conflist.5.md")
        .replace("@KEYS@", excerpt("These are the keys of the `weir` entry", "### Backups"))
        .replace("@EMBEDDED@", &fenced(include_str!("../../../conf/net.d/10-weir.conflist")))
        .replace("@ETCD@", &fenced(include_str!("../../../conf/net.d/10-weir-etcd-tls.conflist")));
    pages.extend([
        plugin("weir", "8", &weir),
        plugin("weir-ipam", "8", &ipam),
        plugin("weir-conflist", "5", &conflist),
    ]);
    pages
}

/// The part of the README from one text up to another; empty where either is missing.
fn excerpt(from: &str, to: &str) -> &'static str {
    let begin = README.find(from).unwrap_or(README.len());
    let length = README[begin..].find(to).unwrap_or_default();
    README[begin..begin + length].trim_end()
}
