//! ADD: assign the addresses an attachment asks for.

use jiff::Timestamp;
use weir_common::cni::{Error, request_of};
use weir_common::ipam::assign::Request;
use weir_common::ipam::collect::CollectScope;
use weir_common::ipam::engine::{Assignment, assign_around};
use weir_common::ipam::{Assigned, Assignee, Error as IpamError, Hints};
use weir_process::{HintsFile, Timing, keep_node_name, within_ipam};

use crate::Ipam;
use crate::probe::NodeNetwork;

/// What an ADD comes to.
#[derive(Debug)]
pub struct Added {
    /// The addresses, and the pools that there were at that moment.
    pub assignment: Assignment,
    /// Whether an address is from another block than those of the last call: this one may
    /// have claimed it.
    pub from_other_block: bool,
}

/// Notes for the next call what this one was assigned, and logs it.
pub fn note_assigned(assignee: &Assignee, assignment: Assignment, hints: &mut Hints) -> Added {
    let blocks: Vec<_> = assignment.addresses.iter().map(|assigned| assigned.block).collect();
    let from_other_block = blocks.iter().any(|block| !hints.likely.contains(block));
    hints.note_likely(blocks);
    if let Some(clash) = &assignment.clash {
        tracing::warn!("{clash}");
    }
    for pool in &assignment.pools {
        if let Some(flaw) = &pool.flaw {
            let (pool, range) = (&pool.name, pool.cidr);
            tracing::warn!(pool, %range, "it serves no container: {flaw}");
        }
    }
    for Assigned { address, block } in &assignment.addresses {
        tracing::debug!(%address, %block, handle = assignee.handle_id, "assigned");
    }
    Added { assignment, from_other_block }
}

impl Ipam<'_> {
    /// Assigns the addresses that the call asks for; those that it has already, if an
    /// earlier ADD got them.
    ///
    /// # Errors
    /// See [`IpamError`]; the host's lock cannot be had; time is up.
    pub async fn add(&self) -> Result<Added, Error> {
        let request = request_of(self.call, &self.node.name, self.machine.clone(), self.boot_id)?;
        let _lock = self.lock().await?;
        keep_node_name(&self.node);
        let mut file = HintsFile::read(self.lock_file());
        let mut hints = file.hints();
        let assigning = async {
            let assigned = self.assign(&request, &mut hints).await;
            assigned.map_err(|error| self.error(error))
        };
        let assigned = within_ipam("assigning addresses", self.limit, assigning).await;
        let added =
            assigned.map(|assignment| note_assigned(&request.assignee, assignment, &mut hints));
        // Also where it failed: what was swept need not be swept again.
        file.leave(&hints);
        added
    }

    /// Assigns. What a reboot left is given back first: under every first ADD in the host's
    /// own blocks and, where there are few, in all, of which it may have borrowed addresses;
    /// where there are many, in all only when there is no other address to be had.
    async fn assign(&self, request: &Request, hints: &mut Hints) -> Result<Assignment, IpamError> {
        self.sweep(CollectScope::OwnBlocks, hints).await;
        let _timing = Timing::of("assign");
        let (datastore, likely) = (self.datastore.as_ref(), hints.likely.clone());
        let now = Timestamp::now();
        let network = NodeNetwork::of_call(datastore, self.call, &self.node.name)?;
        let assign = || assign_around(datastore, request, &likely, now, Some(&network));
        match assign().await {
            Err(IpamError::Exhausted { .. })
                if !hints.is_swept(&self.call.configuration.network, CollectScope::AllBlocks) =>
            {
                self.sweep(CollectScope::AllBlocks, hints).await;
                assign().await
            }
            assigned => assigned,
        }
    }
}
