//! Transactions: comparisons and the writes that depend on them.

use super::Revision;

/// A condition that must hold when a transaction is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The key is not there.
    Absent {
        /// The key.
        key: String,
    },
    /// The key is there, last written by this revision.
    Unchanged {
        /// The key.
        key: String,
        /// The revision at which it was read.
        revision: Revision,
    },
    /// No key under the prefix was created or changed after this revision.
    /// Deletions do not count.
    NoneNewer {
        /// The prefix.
        prefix: String,
        /// The revision at which the prefix was read.
        revision: Revision,
    },
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Creates or replaces the key.
    Put {
        /// The key.
        key: String,
        /// The new value.
        value: Vec<u8>,
    },
    /// Removes the key; nothing happens if it is not there.
    Delete {
        /// The key.
        key: String,
    },
}

impl Write {
    /// The key that this write changes.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Comparisons and writes that are applied together or not at all. A key is
/// written at most once in a transaction (etcd's rule).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What must hold.
    pub compares: Vec<Compare>,
    /// What is then done.
    pub writes: Vec<Write>,
}

impl Transaction {
    /// The keys that it changes.
    pub fn keys(&self) -> Vec<String> {
        self.writes.iter().map(|write| write.key().to_owned()).collect()
    }

    /// Creates `key`, which must not exist.
    pub fn create(&mut self, key: String, value: Vec<u8>) -> &mut Self {
        self.compares.push(Compare::Absent { key: key.clone() });
        self.writes.push(Write::Put { key, value });
        self
    }

    /// Replaces `key`, which must be as it was at `revision`.
    pub fn update(&mut self, key: String, revision: Revision, value: Vec<u8>) -> &mut Self {
        self.compares.push(Compare::Unchanged { key: key.clone(), revision });
        self.writes.push(Write::Put { key, value });
        self
    }

    /// Creates `key`, or replaces what was there at the revision `replaces`.
    pub fn put(&mut self, key: String, replaces: Option<Revision>, value: Vec<u8>) -> &mut Self {
        match replaces {
            None => self.create(key, value),
            Some(revision) => self.update(key, revision, value),
        }
    }

    /// Deletes `key`, which must be as it was at `revision`.
    pub fn delete(&mut self, key: String, revision: Revision) -> &mut Self {
        self.compares.push(Compare::Unchanged { key: key.clone(), revision });
        self.writes.push(Write::Delete { key });
        self
    }

    /// Replaces `key`, which must be as it was at `revision`, or deletes it where it has no value
    /// any more.
    pub fn replace(
        &mut self,
        key: String,
        revision: Revision,
        value: Option<Vec<u8>>,
    ) -> &mut Self {
        match value {
            Some(value) => self.update(key, revision, value),
            None => self.delete(key, revision),
        }
    }

    /// Requires `key` to be as it was at `revision`, without changing it.
    pub fn unchanged(&mut self, key: String, revision: Revision) -> &mut Self {
        self.compares.push(Compare::Unchanged { key, revision });
        self
    }

    /// Requires `key` to be as it was read: there with this revision, or not at all.
    pub fn as_read(&mut self, key: String, revision: Option<Revision>) -> &mut Self {
        match revision {
            None => self.absent(key),
            Some(revision) => self.unchanged(key, revision),
        }
    }

    /// Requires that no key under `prefix` was created or changed after `revision`.
    pub fn none_newer(&mut self, prefix: String, revision: Revision) -> &mut Self {
        self.compares.push(Compare::NoneNewer { prefix, revision });
        self
    }

    /// Requires that `key` is still not there, without creating it.
    pub fn absent(&mut self, key: String) -> &mut Self {
        self.compares.push(Compare::Absent { key });
        self
    }
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All writes were applied by this revision.
    Committed(Revision),
    /// A comparison did not hold; nothing was changed.
    Conflict,
}
