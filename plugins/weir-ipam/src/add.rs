//! ADD: assign the addresses an attachment asks for.

use jiff::Timestamp;
use weir_common::cni::skeleton::Call;
use weir_common::cni::{AddResult, Error, assigned, request_of};
use weir_common::datastore::Datastore;
use weir_common::ipam::assign::Request;
use weir_common::ipam::collect::Scope;
use weir_common::ipam::engine::Assignment;
use weir_common::ipam::{Assigned, Error as IpamError, Memo, engine};
use weir_process::{Lock, Timing, block_on, boot_id, keep_node_name, within_turn};

use crate::cluster::{self, Question};
use crate::sweep::sweep;
use crate::{found_host, lock};

pub fn add(call: &Call) -> Result<AddResult, Error> {
    let ipam = call.configuration.require_ipam()?;
    let boot_id = boot_id();
    // The wait for other calls of this host does not count against the deadline.
    let datastore = call.configuration.datastore.clone()?;
    let place = datastore.place();
    let lock = lock(ipam);
    // The node may be renamed until the lock is had.
    let host = found_host(call)?;
    let request = request_of(call, &host.name, boot_id.as_deref())?;
    keep_node_name(&host);
    let mut memo = Memo::read(&lock.memo(), boot_id.as_deref());
    let question = Question::asked();
    let (assignment, cluster) = block_on(async {
        let likely = memo.likely.clone();
        let (datastore, assignment, due) = within_turn("assigning addresses", async {
            let datastore = weir_datastore::open(&datastore).await?;
            let assign = assign(call, &request, datastore.as_ref(), (&lock, &mut memo));
            let (assignment, due) = tokio::join!(assign, question.is_due(datastore.as_ref()));
            Ok((datastore, assignment?, due))
        })
        .await?;
        leave(lock, memo, &request, &assignment);
        // A block that was claimed only now was not seen by a look beside it.
        let is_new = |assigned: &Assigned| !likely.contains(&assigned.block);
        let datastore = datastore.as_ref();
        let due = async {
            due || assignment.addresses.iter().any(is_new) && question.is_due(datastore).await
        };
        let cluster = cluster::answer(datastore, &place, &request.assignee.host, due).await;
        Ok((assignment, cluster))
    })?;
    Ok(AddResult { cluster, ..assigned(ipam, &assignment) })
}

/// Lets the next call of this host have its turn. The block that this one took an
/// address from likely has another.
fn leave(lock: Lock, mut memo: Memo, request: &Request, assignment: &Assignment) {
    for Assigned { address, block } in &assignment.addresses {
        tracing::debug!(%address, %block, handle = request.assignee.handle_id, "assigned");
    }
    memo.likely = assignment.addresses.iter().map(|assigned| assigned.block).collect();
    lock.leave(&memo.to_string());
}

/// Assigns. What a reboot left is given back first: under every first ADD in the host's
/// own blocks and, where there are few, in all, of which it may have borrowed addresses;
/// where there are many, in all only when there is no other address to be had.
async fn assign(
    call: &Call,
    request: &Request,
    datastore: &dyn Datastore,
    (lock, memo): (&Lock, &mut Memo),
) -> Result<Assignment, Error> {
    sweep(call, &request.assignee.host, datastore, Scope::OwnBlocks, (lock, &mut *memo)).await;
    let _timing = Timing::of("assign");
    let likely = memo.likely.clone();
    let now = Timestamp::now();
    match engine::assign(datastore, request, &likely, now).await {
        Err(IpamError::Exhausted { .. })
            if !memo.is_swept(&call.configuration.network, Scope::AllBlocks) =>
        {
            sweep(call, &request.assignee.host, datastore, Scope::AllBlocks, (lock, memo)).await;
            Ok(engine::assign(datastore, request, &likely, now).await?)
        }
        assigned => Ok(assigned?),
    }
}
