//! CHECK: the addresses of ADD's result must still be the attachment's.

use weir_common::cni::skeleton::Call;
use weir_common::cni::{Error, assignee_of, check_held, require_prev_result};
use weir_common::ipam::engine;
use weir_process::{block_on, within_turn};

use crate::host;

pub fn check(call: &Call) -> Result<(), Error> {
    call.configuration.require_ipam()?;
    let result = require_prev_result(call)?;
    let assignee = assignee_of(call, &host(call)?);
    let datastore = call.configuration.datastore.clone()?;
    let held = block_on(within_turn("looking the addresses up", async {
        let datastore = weir_datastore::open(&datastore).await?;
        Ok(engine::lookup(datastore.as_ref(), &assignee).await?)
    }))?;
    check_held(call, result, &assignee, &held)
}
