//! The embedded datastore that is not there.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use weir_common::datastore::{
    Datastore, Error, History, Outcome, Page, Revision, Selection, Snapshot, Transaction, Watch,
};

/// An embedded datastore without its file: nothing is in it, and nothing can be written. Plugins
/// open it, so that a key that is misspelt makes no datastore.
#[derive(Debug)]
pub struct Absent {
    path: PathBuf,
}

impl Absent {
    /// The one of this file.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }
}

#[async_trait]
impl Datastore for Absent {
    async fn read(&self, selections: &[Selection]) -> Result<Snapshot, Error> {
        let selected = vec![Vec::new(); selections.len()];
        Ok(Snapshot { selected, revision: Revision::default() })
    }

    async fn list(&self, _: &str, _: Option<&str>, _: usize) -> Result<Page, Error> {
        let (revision, history) = (Revision::default(), History::default());
        Ok(Page { entries: Vec::new(), next: None, revision, history })
    }

    async fn commit(&self, _: Transaction) -> Result<Outcome, Error> {
        Err(Error::Unwritable {
            location: self.path.display().to_string(),
            reason: "it is not there; make it: weirctl init --datastore-type=embedded".to_owned(),
        })
    }

    async fn watch(&self, _: &[String], after: Revision) -> Result<Box<dyn Watch>, Error> {
        Err(Error::Compacted { after })
    }
}
