//! What others do between a process's calls.

use std::pin::Pin;
use std::sync::Arc;

use super::Memory;

/// The calls that others can be quicker than.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryCall {
    /// A `read` (`get` and `tally` are such), or a page of a listing.
    Read,
    /// A `commit`.
    Commit,
}

type Act = dyn Fn(u64, Memory) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// What others do before each call of one kind.
pub(super) struct Others {
    calls: u64,
    act: Arc<Act>,
}

impl Others {
    pub(super) fn new<F>(act: impl Fn(u64, Memory) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self { calls: 0, act: Arc::new(move |nth, other| Box::pin(act(nth, other))) }
    }

    /// Counts one more call, and returns its number with what others do before it.
    pub(super) fn take_turn(&mut self) -> (u64, Arc<Act>) {
        self.calls += 1;
        (self.calls, Arc::clone(&self.act))
    }
}
