//! Manual pages out of the part of Markdown that the documentation uses.

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// In the place of a page's date, so that two builds are alike.
pub const NO_DATE: &str = "\"\"";

/// A page out of its text. Headings of the second level are its sections.
pub fn page(name: &str, section: &str, text: &str) -> String {
    let mut roff = Roff::new();
    roff.control("TH", [name, section, NO_DATE, "Weir", "Weir"]);
    let mut lines = text.lines().peekable();
    // After a heading the text begins by itself.
    let mut is_fresh = true;
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("## ") {
            roff.control("SH", [heading]);
            is_fresh = true;
        } else if line.starts_with("```") {
            let block: Vec<_> = lines.by_ref().take_while(|it| !it.starts_with("```")).collect();
            if !is_fresh {
                roff.control("PP", []);
            }
            verbatim(&block, &mut roff);
            is_fresh = false;
        } else if line.starts_with("|---") {
        } else if let Some(row) = line.strip_prefix("| ") {
            // The heads of the columns stand above a line of dashes.
            if lines.peek().is_none_or(|next| !next.starts_with("|---")) {
                table_row(row, &mut roff);
            }
        } else if let Some(item) = line.strip_prefix("- ") {
            roff.control("IP", ["\\(bu", "2"]).text(inlines(item));
        } else if line.is_empty() {
            let goes_on = lines.peek().is_some_and(|next| {
                !["## ", "| ", "- ", "```"].iter().any(|it| next.starts_with(it))
            });
            if goes_on && !is_fresh {
                roff.control("PP", []);
            }
        } else {
            roff.text(inlines(line.trim_start()));
            is_fresh = false;
        }
    }
    roff.render()
}

/// An example of the help: a line that ends with a colon, and indented lines.
pub fn example(paragraph: &str, roff: &mut Roff) {
    let (title, lines) = paragraph.split_once('\n').unwrap_or(("", paragraph));
    // Those called so stand first in the section of that name.
    if !title.starts_with("Example") {
        roff.control("PP", []).text([roman(title)]).control("PP", []);
    }
    verbatim(
        &lines.lines().map(|it| it.strip_prefix("  ").unwrap_or(it)).collect::<Vec<_>>(),
        roff,
    );
}

fn verbatim(lines: &[&str], roff: &mut Roff) {
    roff.control("RS", ["4"]).control("nf", []);
    for line in lines {
        roff.text([roman(*line)]);
    }
    roff.control("fi", []).control("RE", []);
}

/// A row: its first cell, which is described by the others. Of three, the second is a default.
fn table_row(row: &str, roff: &mut Roff) {
    // A stroke in a cell is written `\|`.
    let row = row.trim_end_matches('|').replace("\\|", "\0");
    let cells: Vec<String> = row.split('|').map(|it| it.trim().replace('\0', "|")).collect();
    let Some((head, others)) = cells.split_first() else { return };
    roff.control("TP", []).text(inlines(head));
    match others {
        [default, meaning] if !default.is_empty() => {
            roff.text(inlines(meaning))
                .control("br", [])
                .text(inlines(&format!("Default: {default}")));
        }
        others => {
            roff.text(inlines(others.join(" ").trim()));
        }
    }
}

/// `code` and **strong** in bold, *emphasis* in italics.
fn inlines(text: &str) -> Vec<Inline> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*']) {
        let (before, marked) = rest.split_at(at);
        let mark = if marked.starts_with("**") { "**" } else { &marked[..1] };
        let Some((inside, after)) = marked[mark.len()..].split_once(mark) else { break };
        found.push(roman(before));
        found.push(if mark == "*" { italic(inside) } else { bold(inside) });
        rest = after;
    }
    found.push(roman(rest));
    found.retain(|it| !matches!(it, Inline::Roman(text) if text.is_empty()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_s_forms_become_a_page() {
        let text = "## KEYS\n\nThese are `a_b` and *Weir's*.\n\nMore.\n\n| key | default | meaning |\n\
                    |---|---|---|\n| `x` | `1` | one\\|two |\n| `y` | | none |\n\n\
                    - first\n\n```\n.dot *a*\n```\n";
        let page = page("p", "5", text);
        let body = page.split_once(".SH KEYS\n").unwrap().1;
        assert_eq!(
            body,
            "These are \\fBa_b\\fR and \\fIWeir\\*(Aqs\\fR.\n.PP\nMore.\n.TP\n\\fBx\\fR\none|two\n\
             .br\nDefault: \\fB1\\fR\n.TP\n\\fBy\\fR\nnone\n.IP \\(bu 2\nfirst\n.PP\n.RS 4\n.nf\n\
             \\&.dot *a*\n.fi\n.RE\n"
        );
    }

    #[test]
    fn a_mark_alone_is_text() {
        assert_eq!(inlines("2 * 3"), [roman("2 * 3")]);
        assert_eq!(inlines("**a** b"), [bold("a"), roman(" b")]);
    }
}
