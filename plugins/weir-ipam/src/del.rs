//! DEL: give an attachment's addresses back.

use weir_common::cni::skeleton::Call;
use weir_common::cni::{Error, assignee_of};
use weir_common::ipam::engine;
use weir_process::{block_on, within_turn};

use crate::{host, lock};

pub fn del(call: &Call) -> Result<(), Error> {
    let ipam = call.configuration.require_ipam()?;
    let datastore = call.configuration.datastore.clone()?;
    let _lock = lock(ipam);
    // The node may be renamed until the lock is had.
    let assignee = assignee_of(call, &host(call)?);
    let released = block_on(within_turn("releasing addresses", async {
        let datastore = weir_datastore::open(&datastore).await?;
        Ok(engine::release(datastore.as_ref(), &assignee).await?)
    }))?;
    for released in &released {
        tracing::debug!(address = %released.address, handle = assignee.handle_id, "released");
    }
    Ok(())
}
