//! A datastore in memory, for tests: real revisions, comparisons and watches,
//! faults on cue, and others who are quicker on cue.
//!
//! A [`Memory`] is one *process* that uses a shared store. Clones are the same
//! process; [`Memory::another_process`] is a further one over the same store,
//! with faults and counters of its own. A process that crashed stays dead: all
//! its later calls fail without an effect, as nothing runs in a dead process,
//! so clean-up code that a real crash would have skipped changes nothing here
//! either. What it left in the store is seen by the other processes.

mod faults;
mod others;
mod store;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use weir_common::datastore::{
    Datastore, Error, Outcome, Page, Revision, Selection, Snapshot, Transaction, Watch,
};

use crate::request;
pub use faults::{CommitFault, Counters, Crashed};
use faults::{CommitPlan, Process};
pub use others::MemoryCall;
use others::Others;
use store::Store;

/// How this datastore is called in errors.
const LOCATION: &str = "in memory";

/// One process's handle to a store in memory.
#[derive(Clone, Default)]
pub struct Memory {
    store: Arc<Mutex<Store>>,
    process: Arc<Mutex<Process>>,
}

impl Memory {
    /// An empty store, and a first process that uses it.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new process over the same store, alive, with no faults scheduled and
    /// its counters at zero.
    pub fn another_process(&self) -> Self {
        Self { store: Arc::clone(&self.store), process: Arc::default() }
    }

    /// Schedules a fault for this process's `nth` commit from now on; 1 is the
    /// next one. At most one fault a commit: the last one scheduled counts.
    pub fn fail_commit(&self, nth: u64, fault: CommitFault) {
        self.process().fail_commit(nth, fault);
    }

    /// Lets this process's `nth` read or page of a listing from now on fail
    /// with [`Error::Unavailable`]; 1 is the next one.
    pub fn fail_read(&self, nth: u64) {
        self.process().fail_read(nth);
    }

    /// Lets others act just before each call of this kind that this process makes from
    /// now on, even of one that then fails: the call waits until they are done.
    ///
    /// `act` gets the number of the call, 1 for the next one, and another process over
    /// the same store, whose calls no other precedes. At most one `act` a kind of call:
    /// the last one counts.
    pub fn before_each<F>(
        &self,
        call: MemoryCall,
        act: impl Fn(u64, Self) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        self.process().others.insert(call, Others::new(act));
    }

    /// Makes the whole store unavailable to this process, or available again.
    pub fn set_available(&self, available: bool) {
        self.process().available = available;
    }

    /// Whether a scheduled crash has killed this process.
    pub fn crashed(&self) -> bool {
        self.process().crashed
    }

    /// What this process did since it began or since
    /// [`Memory::reset_counters`].
    pub fn counters(&self) -> Counters {
        self.process().counters
    }

    /// Sets this process's counters to zero. Scheduled faults stay.
    pub fn reset_counters(&self) {
        self.process().counters = Counters::default();
    }

    /// All keys with their values, to compare a store before and after.
    /// Neither counted nor subject to faults.
    pub fn dump(&self) -> BTreeMap<String, Vec<u8>> {
        self.store().entries().map(|entry| (entry.key.clone(), entry.value.clone())).collect()
    }

    /// Puts keys in one commit, however many, without comparisons: the state
    /// that a test begins with. Neither counted nor subject to faults.
    pub fn seed(&self, pairs: impl IntoIterator<Item = (String, Vec<u8>)>) -> Revision {
        self.store().put_all(pairs)
    }

    /// Forgets the history up to and including `revision`: a watch from before
    /// it gets [`Error::Compacted`].
    pub fn compact(&self, revision: Revision) {
        self.store().compact(revision);
    }

    /// Tasks of one thread would otherwise never meet between two calls, and races
    /// would stay hidden.
    async fn let_others_run(&self, call: MemoryCall) {
        tokio::task::yield_now().await;
        let turn = self.process().others.get_mut(&call).map(Others::take_turn);
        if let Some((nth, act)) = turn {
            act(nth, self.another_process()).await;
        }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Datastore for Memory {
    async fn read(&self, selections: &[Selection]) -> Result<Snapshot, Error> {
        self.let_others_run(MemoryCall::Read).await;
        self.process().begin_read()?;
        let snapshot = self.store().read(selections);
        let counters = &mut self.process().counters;
        counters.reads += 1;
        counters.keys_read += snapshot.selected.iter().map(Vec::len).sum::<usize>();
        Ok(snapshot)
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, Error> {
        self.let_others_run(MemoryCall::Read).await;
        self.process().begin_read()?;
        let page = self.store().list(prefix, after, limit.max(1));
        let counters = &mut self.process().counters;
        counters.lists += 1;
        counters.keys_read += page.entries.len();
        Ok(page)
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, Error> {
        self.let_others_run(MemoryCall::Commit).await;
        request::check(&transaction, LOCATION)?;
        let plan = self.process().begin_commit()?;
        let outcome = match plan {
            CommitPlan::Lose => Outcome::Conflict,
            CommitPlan::Apply | CommitPlan::ApplyThenFail => self.store().commit(transaction),
        };
        self.process().end_commit(plan, outcome)
    }

    async fn watch(&self, prefixes: &[String], after: Revision) -> Result<Box<dyn Watch>, Error> {
        self.process().begin_watch()?;
        Ok(Box::new(watch::MemoryWatch::new(self.clone(), prefixes.to_vec(), after)))
    }
}
