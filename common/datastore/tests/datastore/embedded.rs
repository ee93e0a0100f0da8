//! The embedded datastore: the suite, and what a file promises besides.

use async_trait::async_trait;
use tempfile::TempDir;
use weir_common::datastore::{Datastore, Revision};
use weir_datastore::embedded::{Embedded, HISTORY_KEPT, HISTORY_SLACK};

use crate::suite::{self, Place, put};

struct OnDisk(TempDir);

impl OnDisk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("new directory").join("weir.db")
    }
}

#[async_trait]
impl Place for OnDisk {
    async fn open(&self) -> Box<dyn Datastore> {
        Box::new(Embedded::open(&self.path()).await.unwrap())
    }

    async fn compact(&self, _: Revision) {
        let store = self.open().await;
        for _ in 0..HISTORY_KEPT + HISTORY_SLACK {
            put(&*store, &[("/filler", "x")]).await;
        }
    }
}

async fn place() -> OnDisk {
    OnDisk::new()
}

suite::behaviour!(place());
