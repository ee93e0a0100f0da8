//! One process's faults and counters, and the others it meets.

use std::collections::{BTreeMap, BTreeSet};

use weir_common::datastore::{Error, Outcome};

use super::LOCATION;
use super::others::{MemoryCall, Others};

/// What is to go wrong with one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitFault {
    /// The commit reports a conflict and changes nothing, as if another
    /// process had been quicker.
    Conflict,
    /// The commit fails with [`Error::Unavailable`] and changes nothing.
    Unavailable,
    /// The commit is carried out, yet fails with [`Error::Unavailable`]: the
    /// answer was lost. The process lives on.
    AnswerLost,
    /// The process dies before the commit: nothing is changed, and this call
    /// and all later ones of the process fail with [`Error::Unavailable`]
    /// because of [`Crashed`].
    CrashBefore,
    /// The process dies after the commit: it is carried out, and this call and
    /// all later ones of the process fail as in [`CommitFault::CrashBefore`].
    CrashAfter,
}

/// The cause in an [`Error::Unavailable`] of a process that a scheduled crash
/// has killed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this process has crashed, as scheduled")]
pub struct Crashed;

impl Crashed {
    /// Whether `error` says that the process died.
    pub fn caused(error: &Error) -> bool {
        matches!(error, Error::Unavailable { cause, .. } if cause.is::<Self>())
    }
}

/// The cause of other scheduled failures.
#[derive(Debug, thiserror::Error)]
enum Scheduled {
    #[error("this failure was scheduled")]
    Failure,
    #[error("the answer was lost, as scheduled")]
    AnswerLost,
}

/// What a process asked of the store. Failed calls count only in `failures`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls of `read` (`get` is one).
    pub reads: usize,
    /// Calls of `list`, one a page.
    pub lists: usize,
    /// Calls of `commit` that got an outcome.
    pub commits: usize,
    /// Those of them that ended in a conflict.
    pub conflicts: usize,
    /// Entries that `read` and `list` returned.
    pub keys_read: usize,
    /// Calls that failed.
    pub failures: usize,
}

impl Counters {
    /// How many round trips a datastore over the network had needed.
    pub fn round_trips(&self) -> usize {
        self.reads + self.lists + self.commits + self.failures
    }
}

/// How a commit goes on.
#[derive(Clone, Copy)]
pub(super) enum CommitPlan {
    /// Carry it out and report the outcome.
    Apply,
    /// Carry it out, but do not report the outcome.
    ApplyThenFail,
    /// Report a conflict.
    Lose,
}

/// The life of one process.
pub(super) struct Process {
    pub(super) crashed: bool,
    pub(super) available: bool,
    pub(super) counters: Counters,
    pub(super) others: BTreeMap<MemoryCall, Others>,
    commits_begun: u64,
    reads_begun: u64,
    commit_faults: BTreeMap<u64, CommitFault>,
    read_faults: BTreeSet<u64>,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            crashed: false,
            available: true,
            counters: Counters::default(),
            others: BTreeMap::new(),
            commits_begun: 0,
            reads_begun: 0,
            commit_faults: BTreeMap::new(),
            read_faults: BTreeSet::new(),
        }
    }
}

impl Process {
    pub(super) fn fail_commit(&mut self, nth: u64, fault: CommitFault) {
        self.commit_faults.insert(self.commits_begun + nth, fault);
    }

    pub(super) fn fail_read(&mut self, nth: u64) {
        self.read_faults.insert(self.reads_begun + nth);
    }

    pub(super) fn begin_read(&mut self) -> Result<(), Error> {
        self.reads_begun += 1;
        self.check_reachable()?;
        if self.read_faults.remove(&self.reads_begun) {
            return Err(self.fail(Scheduled::Failure));
        }
        Ok(())
    }

    pub(super) fn begin_watch(&mut self) -> Result<(), Error> {
        self.check_reachable()
    }

    pub(super) fn begin_commit(&mut self) -> Result<CommitPlan, Error> {
        self.commits_begun += 1;
        self.check_reachable()?;
        match self.commit_faults.get(&self.commits_begun) {
            None => Ok(CommitPlan::Apply),
            Some(CommitFault::Conflict) => Ok(CommitPlan::Lose),
            Some(CommitFault::Unavailable) => Err(self.fail(Scheduled::Failure)),
            Some(CommitFault::AnswerLost) => Ok(CommitPlan::ApplyThenFail),
            Some(CommitFault::CrashBefore) => {
                self.crashed = true;
                Err(self.fail(Crashed))
            }
            Some(CommitFault::CrashAfter) => {
                self.crashed = true;
                Ok(CommitPlan::ApplyThenFail)
            }
        }
    }

    pub(super) fn end_commit(
        &mut self,
        plan: CommitPlan,
        outcome: Outcome,
    ) -> Result<Outcome, Error> {
        if matches!(plan, CommitPlan::ApplyThenFail) {
            return Err(if self.crashed {
                self.fail(Crashed)
            } else {
                self.fail(Scheduled::AnswerLost)
            });
        }
        self.counters.commits += 1;
        self.counters.conflicts += usize::from(outcome == Outcome::Conflict);
        Ok(outcome)
    }

    fn check_reachable(&mut self) -> Result<(), Error> {
        if self.crashed {
            return Err(self.fail(Crashed));
        }
        if !self.available {
            return Err(self.fail(Scheduled::Failure));
        }
        Ok(())
    }

    fn fail(&mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
        self.counters.failures += 1;
        Error::Unavailable { location: LOCATION.to_owned(), cause: Box::new(cause) }
    }
}
