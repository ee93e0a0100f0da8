//! A diagnosis, for people and for scripts.

use serde_json::{Value, json};
use weir_common::printable;

use super::judgement::{Diagnosis, Grade, Judgement};
use crate::output::{self, Style, json};

/// How many that are alike are shown in full.
const MOST_ALIKE: usize = 5;

/// For people: what is to be done first, and at the end how much that is.
pub fn text(diagnosis: &Diagnosis, style: Style) -> String {
    let node = diagnosis.node.as_deref().unwrap_or("without a name");
    let mut text = format!("{}\n", style.title(&printable(&format!("Node {node}"))));
    for (title, grade) in [
        ("Trouble", Grade::Trouble),
        ("Could not be looked at", Grade::Unseen),
        ("Notes", Grade::Note),
        ("Good", Grade::Good),
    ] {
        let judgements: Vec<&Judgement> = diagnosis.of_grade(grade).collect();
        if !judgements.is_empty() {
            text.push_str(&format!("\n{}\n{}", style.title(title), list(&judgements)));
        }
    }
    text + "\n" + &summary(diagnosis) + "\n"
}

/// For scripts: `docs/weirctl.md` describes it.
pub fn json(diagnosis: &Diagnosis) -> String {
    // Serialising plain data does not fail.
    let mut document = serde_json::to_value(diagnosis).unwrap_or_else(|_| json!({}));
    document["exitStatus"] = Value::from(diagnosis.exit_status());
    json::document(&document)
}

fn summary(diagnosis: &Diagnosis) -> String {
    let count = |grade| diagnosis.of_grade(grade).count();
    match (count(Grade::Trouble), count(Grade::Unseen)) {
        (0, 0) => "Nothing to do.".to_owned(),
        (0, unseen) => format!("No trouble was found; {unseen} could not be looked at."),
        (trouble, 0) => format!("Trouble: {trouble}."),
        (trouble, unseen) => format!("Trouble: {trouble}; {unseen} could not be looked at."),
    }
}

/// All of them; of those that one command ends, as many as fit a screen.
fn list(judgements: &[&Judgement]) -> String {
    let alike = judgements.chunk_by(|one, other| {
        (one.subject, &one.advice) == (other.subject, &other.advice) && !one.advice.is_empty()
    });
    let shown = |alike: &[&Judgement]| {
        let more = alike.len().saturating_sub(MOST_ALIKE);
        let lines: String = alike.iter().take(MOST_ALIKE).map(|it| lines(it)).collect();
        match alike.first() {
            Some(first) if more > 0 => {
                format!("{lines}- {}: {more} more like these\n", first.subject)
            }
            _ => lines,
        }
    };
    alike.map(shown).collect()
}

fn lines(judgement: &Judgement) -> String {
    let Judgement { subject, what, value, advice, .. } = judgement;
    let mut line = format!("- {subject}: {what}");
    if !value.is_empty() {
        line.push_str(&format!(" ({value})"));
    }
    let mut lines = output::line(&line);
    if !advice.is_empty() {
        lines.push_str(&output::line(&format!("  Do: {advice}")));
    }
    lines
}
