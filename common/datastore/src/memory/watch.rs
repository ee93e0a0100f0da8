//! Watching a store in memory.

use async_trait::async_trait;
use tokio::sync::watch;
use weir_common::datastore::{Error, Event, Revision, Watch};

use super::Memory;

/// One process's watch. It keeps the store, so that `next` waits for ever
/// rather than fails when no one else is left to change it.
pub(super) struct MemoryWatch {
    memory: Memory,
    prefixes: Vec<String>,
    after: Revision,
    revisions: watch::Receiver<Revision>,
}

impl MemoryWatch {
    pub(super) fn new(memory: Memory, prefixes: Vec<String>, after: Revision) -> Self {
        let revisions = memory.store().subscribe();
        Self { memory, prefixes, after, revisions }
    }
}

#[async_trait]
impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<Vec<Event>, Error> {
        loop {
            self.memory.process().begin_watch()?;
            let seen = *self.revisions.borrow_and_update();
            let events = self.memory.store().changes(&self.prefixes, self.after)?;
            self.after = events.last().map_or(self.after.max(seen), Event::revision);
            if !events.is_empty() {
                return Ok(events);
            }
            // The sender lives in the store that `memory` keeps.
            let _ = self.revisions.changed().await;
        }
    }
}
