//! Telling what was done with each of several resources, in calicoctl's words
//! (`calicoctl/calicoctl/commands/crud_commands.go`).

use weir_common::printable;
use weir_common::resources::{Kind, Resource};

use crate::session::{CommandResult, Failure, chain};
use crate::store::StoreError;

/// A verb in the two forms that messages need.
#[derive(Clone, Copy, Debug)]
pub struct Verb {
    /// `create`
    pub infinitive: &'static str,
    /// `created`
    pub participle: &'static str,
}

/// What became of each resource.
pub struct ChangeReport {
    verb: Verb,
    done: Vec<(Kind, String)>,
    failed: Vec<(Kind, String, StoreError)>,
    notes: String,
}

impl ChangeReport {
    /// A report about nothing yet.
    pub fn new(verb: Verb) -> Self {
        Self { verb, done: Vec::new(), failed: Vec::new(), notes: String::new() }
    }

    /// Notes what became of a resource.
    pub fn add(&mut self, resource: &Resource, result: Result<(), StoreError>) {
        let (kind, name) = (resource.kind, resource.name().to_owned());
        match result {
            Ok(()) => self.done.push((kind, name)),
            Err(error) => self.failed.push((kind, name, error)),
        }
    }

    /// Adds a line to say after all else that was done.
    pub fn note(&mut self, line: Option<String>) {
        self.notes.extend(line);
    }

    /// The report in words: a failure when anything failed.
    ///
    /// # Errors
    /// [`Failure`] with the errors, and with what was done all the same.
    pub fn finish(self) -> CommandResult {
        let Verb { infinitive, participle } = self.verb;
        let (done, total) = (self.done.len(), self.done.len() + self.failed.len());
        let kind = self.single_kind();
        let quoted = kind.map(|kind| format!(" '{kind}'")).unwrap_or_default();
        if total == 0 {
            return Ok("No resources specified\n".to_owned());
        }
        if self.failed.is_empty() {
            let notes = self.notes;
            return Ok(format!("Successfully {participle} {done}{quoted} resource(s)\n{notes}"));
        }
        let errors = self.errors();
        if done > 0 {
            let output = format!(
                "Partial success: {participle} {done} out of {total}{quoted} resources:\n{}",
                self.outcomes()
            );
            return Err(Failure { output, message: format!("hit error: {errors}") });
        }
        let what = if total == 1 {
            format!("{quoted} resource")
        } else {
            format!(" any{quoted} resources")
        };
        Err(Failure::new(format!("failed to {infinitive}{what}: {errors}")))
    }

    /// The report of a deletion, which calicoctl words in another way.
    ///
    /// # Errors
    /// As [`ChangeReport::finish`].
    pub fn finish_deletion(self) -> CommandResult {
        if self.failed.is_empty() {
            return self.finish();
        }
        let kind = self.single_kind();
        let quoted = kind.map(|kind| format!(" '{kind}'")).unwrap_or_default();
        let done = self.done.len();
        let output = if done > 0 {
            format!(
                "Partial success: deleted {done} out of {}{quoted} resources:\n{}{}",
                done + self.failed.len(),
                self.outcomes(),
                self.notes
            )
        } else {
            String::new()
        };
        let failures = self.failed.iter().map(|(_, _, error)| {
            format!("Failed to delete{quoted} resource: {}", with_advice(error))
        });
        Err(Failure { output, message: failures.collect::<Vec<_>>().join("\n") })
    }

    /// Two lines: which resources were done, and which were not.
    fn outcomes(&self) -> String {
        let participle = self.verb.participle;
        format!(
            "{participle}: {}\nnot {participle}: {}\n",
            names(self.done.iter().map(|(kind, name)| (*kind, name))),
            names(self.failed.iter().map(|(kind, name, _)| (*kind, name))),
        )
    }

    /// The kind of all resources, if it is one.
    fn single_kind(&self) -> Option<Kind> {
        let done = self.done.iter().map(|(kind, _)| *kind);
        let mut kinds = done.chain(self.failed.iter().map(|(kind, ..)| *kind));
        let first = kinds.next()?;
        kinds.all(|kind| kind == first).then_some(first)
    }

    /// The errors, each in brackets on a line of its own, then the advice.
    fn errors(&self) -> String {
        let errors = self.failed.iter().map(|(_, _, error)| error);
        with_all_advice(errors.clone(), errors.map(|error| format!("[{}]", chain(error))))
    }
}

/// Errors with their causes, one a line, then what to do.
pub fn all_with_advice(errors: &[StoreError]) -> String {
    with_all_advice(errors.iter(), errors.iter().map(|error| chain(error)))
}

fn with_all_advice<'a>(
    errors: impl Iterator<Item = &'a StoreError>,
    lines: impl Iterator<Item = String>,
) -> String {
    let mut advice: Vec<_> = errors.filter_map(StoreError::advice).collect();
    advice.dedup();
    lines.chain(advice).collect::<Vec<_>>().join("\n")
}

/// An error in brackets, as calicoctl prints it, and on the next line what to
/// do.
pub fn in_brackets(error: &StoreError) -> String {
    let advice = error.advice().map(|advice| format!("\n{advice}")).unwrap_or_default();
    format!("[{}]{advice}", chain(error))
}

/// An error with its causes, and on the next line what to do.
pub fn with_advice(error: &StoreError) -> String {
    match error.advice() {
        Some(advice) => format!("{}\n{advice}", chain(error)),
        None => chain(error),
    }
}

fn names<'a>(resources: impl Iterator<Item = (Kind, &'a String)>) -> String {
    resources
        .map(|(kind, name)| format!("{kind}({})", printable(name)))
        .collect::<Vec<_>>()
        .join(", ")
}
