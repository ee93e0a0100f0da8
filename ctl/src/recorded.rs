//! Where it is recorded who had which address: by the commits of an embedded datastore, else by
//! this node's agent.

use std::path::Path;

use weir_common::datastore::DatastoreConfiguration;
use weir_common::ipam::history::Record;
use weir_datastore::{Embedded, missing_file};
use weir_process::{HISTORY_FILE, read_history};

use crate::session::chain;

/// What is recorded.
pub struct RecordedHistory {
    /// The records, in their order.
    pub records: Box<dyn Iterator<Item = Record> + Send>,
    /// Who has recorded them, in words.
    pub recorder: &'static str,
}

impl RecordedHistory {
    /// What is recorded of this datastore.
    ///
    /// # Errors
    /// Why it cannot be read, in words.
    pub async fn of(configuration: &DatastoreConfiguration) -> Result<Self, String> {
        if let DatastoreConfiguration::Embedded { path } = configuration
            && missing_file(configuration).is_none()
        {
            let datastore = Embedded::open(path).await.map_err(|error| chain(&error))?;
            let records = datastore.holders().await.map_err(|error| chain(&error))?;
            // Before its first commit by this version, an agent may have recorded.
            if !records.is_empty() {
                let records = Box::new(records.into_iter());
                return Ok(Self { records, recorder: "the datastore" });
            }
        }
        Self::of_agent(Path::new(HISTORY_FILE))
    }

    /// What an agent has recorded in this file.
    ///
    /// # Errors
    /// Why it cannot be read, in words.
    pub fn of_agent(file: &Path) -> Result<Self, String> {
        let records = read_history(file).map_err(|error| {
            format!("{} cannot be read: {error}; run this as root", file.display())
        })?;
        Ok(Self { records: Box::new(records), recorder: "this node's agent" })
    }
}
