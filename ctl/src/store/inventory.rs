//! Reading what a node's part in the cluster is planned from.

use weir_common::datastore::{Datastore, Error, Revision};
use weir_common::network::Inventory;

/// How many entries are read at a time: of blocks about a megabyte.
const PAGE: usize = 500;

/// Reads everything that an inventory is made of. The revision is that of the
/// first page, so that a watch from there misses nothing.
///
/// # Errors
/// As [`Datastore::list`].
pub async fn inventory(datastore: &dyn Datastore) -> Result<(Inventory, Revision), Error> {
    let mut inventory = Inventory::default();
    let mut first = None;
    for prefix in Inventory::PREFIXES {
        let mut after: Option<String> = None;
        loop {
            let page = datastore.list(prefix, after.as_deref(), PAGE).await?;
            first.get_or_insert(page.revision);
            for entry in &page.entries {
                inventory.put(entry);
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    Ok((inventory, first.unwrap_or_default()))
}
