//! The pages of `weirctl` and its commands.

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::ManualPage;
use super::markdown::{NO_DATE, example};

/// The section of an administrator's commands.
const SECTION: &str = "8";

/// The pages of `weirctl` and of all commands that are not hidden.
pub fn pages(weirctl: Command) -> Vec<ManualPage> {
    let mut weirctl = weirctl.disable_help_subcommand(true);
    weirctl.build();
    let status = AfterHelp::of(&weirctl).status;
    let mut pages = Vec::new();
    collect(&weirctl, None, &status, &mut pages);
    pages
}

fn collect(command: &Command, above: Option<&str>, status: &str, pages: &mut Vec<ManualPage>) {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    // Writing to memory does not fail.
    let text = page(command, above, status).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    pages.push(ManualPage { name: name.to_owned(), section: SECTION, text });
    for below in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        collect(below, Some(name), status, pages);
    }
}

/// The help after the options, by what it is about.
#[derive(Default)]
struct AfterHelp {
    notes: Vec<String>,
    /// Each a line that ends with a colon, and indented lines.
    examples: Vec<String>,
    status: String,
}

impl AfterHelp {
    /// Takes it apart: a paragraph with indented lines is an example, and what follows "Exit
    /// status" in another one is about that.
    fn of(command: &Command) -> Self {
        const STATUS: &str = "Exit status";
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let mut parts = Self::default();
        for paragraph in help.split("\n\n").filter(|it| !it.is_empty()) {
            if paragraph.contains("\n  ") {
                parts.examples.push(paragraph.to_owned());
                continue;
            }
            let (note, status) =
                paragraph.split_at(paragraph.find(STATUS).unwrap_or(paragraph.len()));
            parts.notes.extend(Some(note.trim().to_owned()).filter(|it| !it.is_empty()));
            parts.status.push_str(status.trim_start_matches(STATUS).trim_start_matches([':', ' ']));
        }
        parts
    }

    /// Of a command that only has others below it: the first example of each.
    fn below(command: &Command) -> Vec<String> {
        let below = command.get_subcommands().filter(|it| !it.is_hide_set());
        let examples = below.filter_map(|it| Self::of(it).examples.into_iter().next());
        let first = examples.filter_map(|it| it.lines().nth(1).map(str::to_owned));
        vec![format!("Examples:\n{}", first.collect::<Vec<_>>().join("\n"))]
    }
}

fn page(command: &Command, above: Option<&str>, usual_status: &str) -> std::io::Result<Vec<u8>> {
    let AfterHelp { notes, mut examples, mut status } = AfterHelp::of(command);
    if examples.is_empty() {
        examples = AfterHelp::below(command);
    }
    if status.is_empty() {
        status = usual_status.to_owned();
    }
    // The options of all commands are on the page of `weirctl`.
    let is_shown = |it: &clap::Arg| above.is_none() || !it.is_global_set();
    let own = command.clone().mut_args(|it| if is_shown(&it) { it } else { it.hide(true) });
    let has_options = own.get_arguments().any(|it| !it.is_hide_set());
    let man = Man::new(own).section(SECTION).date(NO_DATE).source("Weir").manual("Weir");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    let mut roff = Roff::new();
    for note in notes {
        roff.control("PP", []).text([roman(note)]);
    }
    roff.to_writer(&mut page)?;
    if has_options {
        man.render_options_section(&mut page)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]).text([roman(status)]);
    roff.control("SH", ["EXAMPLES"]);
    examples.iter().for_each(|paragraph| example(paragraph, &mut roff));
    roff.control("SH", ["SEE ALSO"]);
    let others = match above {
        None => "weir(8), weir-conflist(5)".to_owned(),
        Some("weirctl") => "weirctl(8), which has the options of all commands".to_owned(),
        Some(above) => format!("{above}(8), weirctl(8), which has the options of all commands"),
    };
    roff.text([roman(others)]).to_writer(&mut page)?;
    Ok(page)
}
