//! Long lists, read page by page.

use super::error::Error;
use super::{Datastore, Page};

/// Entries in the first page: how large they are is not known yet.
const FIRST_PAGE: usize = 16;

/// How many times as many the next page may have.
const GROWTH: usize = 8;

/// About how many bytes of keys and values a page should have: blocks may have 100 bytes
/// or, full and of /20, a megabyte.
const PAGE_BYTES: usize = 4 << 20;

/// The most entries of a page. For each page etcd goes through all keys behind its
/// first one to count them, so that small pages would take time by the square of the
/// list's length.
const LARGEST_PAGE: usize = 32 << 10;

/// The page size for [`Datastore::list`](super::Datastore::list), by the entries so far.
#[derive(Clone, Copy, Debug)]
pub struct Paging {
    limit: usize,
}

impl Default for Paging {
    fn default() -> Self {
        Self { limit: FIRST_PAGE }
    }
}

impl Paging {
    /// The most entries that the next page is to have.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Takes in how large the entries of a page are.
    pub fn learn(&mut self, page: &Page) {
        let bytes = page.entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum();
        self.fit(page.entries.len(), bytes);
    }

    fn fit(&mut self, entries: usize, bytes: usize) {
        let fitting = PAGE_BYTES * entries.max(1) / bytes.max(1);
        self.limit = fitting.clamp(1, LARGEST_PAGE.min(self.limit * GROWTH));
    }
}

/// Reads all entries under a prefix, page by page: as many at a time as fit into about
/// a megabyte.
pub struct Pages<'a> {
    datastore: &'a dyn Datastore,
    prefix: String,
    after: Option<String>,
    is_last: bool,
    paging: Paging,
}

impl<'a> Pages<'a> {
    /// The entries whose keys begin with `prefix`.
    pub fn new(datastore: &'a dyn Datastore, prefix: impl Into<String>) -> Self {
        let (after, is_last, paging) = (None, false, Paging::default());
        Self { datastore, prefix: prefix.into(), after, is_last, paging }
    }

    /// The next page; `None` after the last one.
    ///
    /// # Errors
    /// As [`Datastore::list`].
    pub async fn next(&mut self) -> Result<Option<Page>, Error> {
        if self.is_last {
            return Ok(None);
        }
        let (after, limit) = (self.after.as_deref(), self.paging.limit());
        let page = self.datastore.list(&self.prefix, after, limit).await?;
        self.paging.learn(&page);
        self.after.clone_from(&page.next);
        self.is_last = page.next.is_none();
        Ok(Some(page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_fit_what_is_in_them() {
        for (limit, entries, bytes, next) in [
            (64, 64, 64 * 100, 512),
            (LARGEST_PAGE, 1024, 1024 * 100, LARGEST_PAGE),
            (64, 64, 64 << 16, 64),
            (64, 64, 64 << 22, 1),
            (1, 0, 0, 8),
        ] {
            let mut paging = Paging { limit };
            paging.fit(entries, bytes);
            assert_eq!(paging.limit(), next, "{entries} entries of {bytes} bytes");
        }
    }
}
