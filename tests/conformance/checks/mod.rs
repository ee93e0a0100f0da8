//! The checks, clause by clause.

mod arguments;
mod environment;
mod input;
mod ipam;
mod ipam_record;
mod main_add;
mod main_check;
mod main_collect;
mod main_delegate;
mod main_remove;
mod main_routes;
mod output;

use crate::bench::{Bench, Role};
use crate::verdict::Verdict;

/// One thing that is looked at.
#[derive(Clone, Copy)]
pub struct Check {
    /// The clause and a word of its own: `P2.all-missing-named`.
    pub name: &'static str,
    /// What must hold, in one line.
    pub asks: &'static str,
    /// Finds out.
    pub work: fn(&Bench) -> Verdict,
}

impl Check {
    const fn new(name: &'static str, asks: &'static str, work: fn(&Bench) -> Verdict) -> Self {
        Self { name, asks, work }
    }

    /// The clause that it belongs to.
    pub fn clause(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(clause, _)| clause)
    }

    /// Whether it is about this plugin of a pair.
    pub fn is_for(&self, role: Role) -> bool {
        match self.name.as_bytes().first() {
            Some(b'M') => role == Role::Main,
            Some(b'I') => role == Role::Ipam,
            _ => true,
        }
    }
}

/// All checks, in the order of the clauses.
pub fn all() -> Vec<Check> {
    let groups: [&[Check]; 12] = [
        environment::CHECKS,
        input::CHECKS,
        output::CHECKS,
        arguments::CHECKS,
        main_add::CHECKS,
        main_delegate::CHECKS,
        main_routes::CHECKS,
        main_remove::CHECKS,
        main_check::CHECKS,
        main_collect::CHECKS,
        ipam::CHECKS,
        ipam_record::CHECKS,
    ];
    let mut checks = groups.concat();
    checks.sort_by_key(|check| order(check.clause()));
    checks
}

/// P before M before I, and each by number.
fn order(clause: &str) -> (usize, u8) {
    let (letter, number) = clause.split_at(1);
    ("PMI".find(letter).unwrap_or_default(), number.parse().unwrap_or_default())
}
