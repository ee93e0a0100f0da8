//! Stored values, read.

use super::{Entry, Revision, Snapshot};
use crate::error_chain;
use crate::printable::printable;

/// A value, its key and the revision at which it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored<T> {
    /// The key.
    pub key: String,
    /// The value.
    pub value: T,
    /// The revision that last changed it.
    pub revision: Revision,
}

/// A stored value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored value of {} cannot be used: {reason}", printable(key))]
pub struct Unreadable {
    /// Its key.
    pub key: String,
    /// What is wrong with it, and its causes.
    pub reason: String,
}

impl<T> Stored<T> {
    /// Reads an entry.
    ///
    /// # Errors
    /// [`Unreadable`] with what `parse` says.
    pub fn read<E: std::error::Error>(
        entry: &Entry,
        parse: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<Self, Unreadable> {
        match parse(&entry.value) {
            Ok(value) => Ok(Self { key: entry.key.clone(), value, revision: entry.revision }),
            Err(error) => Err(Unreadable { key: entry.key.clone(), reason: error_chain(&error) }),
        }
    }

    /// The stored value, if it stands under the key that belongs to it.
    ///
    /// # Errors
    /// [`Unreadable`] where it says to be `what` of another key.
    pub fn under(self, key: &str, what: impl std::fmt::Display) -> Result<Self, Unreadable> {
        if self.key == key {
            return Ok(self);
        }
        Err(Unreadable { key: self.key, reason: format!("it holds {what}") })
    }
}

impl Snapshot {
    /// What was found for a selection, by its number.
    pub fn entries(&self, selection: usize) -> &[Entry] {
        self.selected.get(selection).map_or(&[], Vec::as_slice)
    }

    /// The first entry found for a selection, by its number.
    pub fn entry(&self, selection: usize) -> Option<&Entry> {
        self.entries(selection).first()
    }

    /// As [`Snapshot::entry`], parsed.
    ///
    /// # Errors
    /// [`Unreadable`] with what `parse` says.
    pub fn stored<T, E: std::error::Error>(
        &self,
        selection: usize,
        parse: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<Option<Stored<T>>, Unreadable> {
        self.entry(selection).map(|entry| Stored::read(entry, parse)).transpose()
    }
}
