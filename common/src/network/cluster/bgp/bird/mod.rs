//! BIRD 2's configuration for a [`BgpPlan`]: the only place that writes BIRD's syntax.
//!
//! BIRD's strings have no escapes, so what came from the store or a file can only be kept from
//! becoming syntax by what is printed: numbers, addresses and prefixes from parsed types, names
//! spelt in letters and digits, and few texts (passwords, interfaces), each checked first. What
//! does not pass is left out and told as a [`BirdProblem`]; a filter that does not pass rejects
//! everything.

mod base;
mod filters;
mod problem;
mod sessions;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sha1::{Digest, Sha1};

use super::session::BgpPlan;
use crate::resources::bgp::SecretReference;

pub(super) use filters::unusable_rule;
pub use problem::BirdProblem;
pub(super) use sessions::is_usable;

/// The constant by which BIRD tells which configuration it runs (`eval WEIR_CONFIG`).
pub const DIGEST_CONSTANT: &str = "WEIR_CONFIG";

/// A configuration for BIRD. It has passwords in it, so `Debug` does not print its text.
#[derive(Clone, PartialEq, Eq)]
pub struct BirdConfiguration {
    /// The text of the file.
    pub text: String,
    /// The digest (SHA-1) of the rest, as the constant [`DIGEST_CONSTANT`] has it. Not for other
    /// users' eyes: a weak password could be guessed by it.
    pub digest: String,
    /// What was left out.
    pub problems: BTreeSet<BirdProblem>,
    /// The first line of each section, and the resource that it is made of.
    sections: Vec<(usize, String)>,
}

impl BirdConfiguration {
    /// The configuration for a plan, with the passwords that were found.
    pub fn of(plan: &BgpPlan, passwords: &BTreeMap<SecretReference, String>) -> Self {
        let mut output = BirdText::default();
        base::print(plan, &mut output);
        let usable = filters::print(plan, &mut output);
        sessions::print(plan, passwords, &usable, &mut output);
        output.finish()
    }

    /// The configuration with which BIRD leaves no routes behind when it ends: the same without
    /// `persist`.
    pub fn leaving(&self) -> Self {
        let rest = self.text.split_once('\n').map_or("", |(_, rest)| rest);
        let body = rest.lines().filter(|line| line.trim() != base::PERSIST);
        let body = body.fold(String::new(), |text, line| text + line + "\n");
        BirdText { body, problems: self.problems.clone(), ..BirdText::default() }.finish()
    }

    /// The least that BIRD starts with: it knows no sessions and leaves the kernel's routes alone.
    /// For a BIRD that something else starts, perhaps before there is a plan.
    pub fn least() -> Self {
        let mut output = BirdText::default();
        base::print_least(&mut output);
        output.finish()
    }

    /// The digest that a text of Weir's says it has, in its first line; `None` for other texts.
    pub fn digest_in(text: &str) -> Option<&str> {
        let rest = text.strip_prefix("define ")?.strip_prefix(DIGEST_CONSTANT)?;
        rest.strip_prefix(" = \"")?.lines().next()?.strip_suffix("\";")
    }

    /// The resource that a line of the text is made of.
    pub fn resource_at(&self, line: usize) -> Option<&str> {
        let section = self.sections.iter().rev().find(|(first, _)| *first <= line)?;
        Some(&section.1)
    }
}

impl fmt::Debug for BirdConfiguration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { digest, problems, .. } = self;
        formatter
            .debug_struct("BirdConfiguration")
            .field("digest", digest)
            .field("problems", problems)
            .finish_non_exhaustive()
    }
}

/// A configuration that is being written.
#[derive(Default)]
struct BirdText {
    body: String,
    /// How many lines the body has.
    lines: usize,
    problems: BTreeSet<BirdProblem>,
    sections: Vec<(usize, String)>,
}

impl BirdText {
    /// Begins the section that is made of this resource.
    fn begin(&mut self, resource: String) {
        // The line of the digest is put before the body, and lines count from 1.
        self.sections.push((self.lines + 2, resource));
    }

    fn line(&mut self, line: impl AsRef<str>) {
        let line = line.as_ref();
        self.lines += 1 + line.matches('\n').count();
        self.body.push_str(line);
        self.body.push('\n');
    }

    fn finish(self) -> BirdConfiguration {
        let digest: String =
            Sha1::digest(&self.body).iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!("define {DIGEST_CONSTANT} = \"{digest}\";\n{}", self.body);
        BirdConfiguration { text, digest, problems: self.problems, sections: self.sections }
    }
}
