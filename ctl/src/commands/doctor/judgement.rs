//! What is said of one thing that was looked at.

use serde::Serialize;

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Grade {
    /// Something has to be done.
    Trouble,
    /// It could not be looked at.
    Unseen,
    /// It may be as it should be.
    Note,
    /// Nothing has to be done.
    Good,
}

/// What is said of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// What it belongs to: one of the subjects in `docs/weirctl.md`.
    pub subject: &'static str,
    /// How good it is.
    pub grade: Grade,
    /// What was found.
    pub what: String,
    /// What it was found on: a file, a parameter with its value, an address.
    pub value: String,
    /// What to do or to type; empty where nothing is to be done.
    pub advice: String,
}

impl Judgement {
    /// Of something that is as it should be.
    pub fn good(subject: &'static str, value: impl ToString, what: impl ToString) -> Self {
        Self::new(subject, Grade::Good, value, what)
    }

    /// Of something that could not be looked at, for this reason.
    pub fn unseen(subject: &'static str, why: impl ToString) -> Self {
        Self::told(subject, Grade::Unseen, "", why)
    }

    /// Of something that has to be done.
    pub fn trouble(subject: &'static str, value: impl ToString, what: impl ToString) -> Self {
        Self::new(subject, Grade::Trouble, value, what)
    }

    /// Of something that may be as it should be.
    pub fn note(subject: &'static str, value: impl ToString, what: impl ToString) -> Self {
        Self::new(subject, Grade::Note, value, what)
    }

    /// By a message as Weir has them: what failed, then, behind the first semicolon or from
    /// "write" on, what to do.
    pub fn told(
        subject: &'static str,
        grade: Grade,
        value: impl ToString,
        message: impl ToString,
    ) -> Self {
        let message = message.to_string();
        let (what, advice) = split(&message);
        Self::new(subject, grade, value, what).advise(advice)
    }

    /// The same with this advice.
    pub fn advise(self, advice: impl ToString) -> Self {
        Self { advice: advice.to_string(), ..self }
    }

    /// The same with this advice, if it has none.
    pub fn or_advise(self, advice: impl ToString) -> Self {
        if self.advice.is_empty() { self.advise(advice) } else { self }
    }

    fn new(subject: &'static str, grade: Grade, value: impl ToString, what: impl ToString) -> Self {
        let (what, value) = (what.to_string(), value.to_string());
        Self { subject, grade, what, value, advice: String::new() }
    }
}

/// A message's two parts. What is in brackets belongs to the first.
fn split(message: &str) -> (&str, &str) {
    let count = |text: &str, bracket: char| text.matches(bracket).count();
    let is_outside =
        |&(at, _): &(usize, &str)| count(&message[..at], '(') == count(&message[..at], ')');
    if let Some((at, separator)) = message.match_indices("; ").find(is_outside) {
        return (&message[..at], &message[at + separator.len()..]);
    }
    match message.find(": write ") {
        Some(at) => (&message[..at], &message[at + ": ".len()..]),
        None => (message, ""),
    }
}

/// All that is said of a node.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// The node's name, if it is known.
    pub node: Option<String>,
    /// What is said.
    #[serde(rename = "findings")]
    pub judgements: Vec<Judgement>,
}

impl Diagnosis {
    /// What is said with this grade.
    pub fn of_grade(&self, grade: Grade) -> impl Iterator<Item = &Judgement> {
        self.judgements.iter().filter(move |it| it.grade == grade)
    }

    /// 0 when there is nothing to do, 1 for trouble, 2 when something could not be looked at.
    pub fn exit_status(&self) -> u8 {
        match (self.of_grade(Grade::Trouble).count(), self.of_grade(Grade::Unseen).count()) {
            (0, 0) => 0,
            (0, _) => 2,
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_what_and_what_to_do() {
        for (message, what, advice) in [
            ("it failed", "it failed", ""),
            ("it failed; run a; then b", "it failed", "run a; then b"),
            ("it failed (x; y); run a", "it failed (x; y)", "run a"),
            ("mtu \"x\" is wrong: write a number", "mtu \"x\" is wrong", "write a number"),
            ("it failed: write a (b; c)", "it failed", "write a (b; c)"),
        ] {
            assert_eq!(split(message), (what, advice));
        }
    }
}
