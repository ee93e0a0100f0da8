//! Kind 1: an address of this node whose attachment is not in its kernel.

use std::collections::HashMap;

use crate::audit::finding::Finding;
use crate::audit::kind::DamageKind;
use crate::audit::node::is_dockers;
use crate::audit::scope::Scope;
use crate::audit::values::CurrentValues;
use crate::datastore::Transaction;
use crate::ipam::{Allocation, Assignee};

pub(super) fn find(scope: &Scope<'_>) -> Vec<Finding> {
    let Some(node) = scope.node() else { return Vec::new() };
    let mut attached: HashMap<String, Vec<Assignee>> = HashMap::new();
    for attachment in &node.attachments {
        let assignee = node.assignee(&attachment.identity);
        attached.entry(assignee.handle_id.clone()).or_default().push(assignee);
    }
    let recorded = scope.snapshot.machine(&node.host);
    let is_attached = |allocation: &Allocation| {
        let assignees = attached.get(allocation.handle.as_deref().unwrap_or_default());
        assignees.is_some_and(|them| them.iter().any(|it| allocation.is_of(it, recorded)))
            || node.is_known_to_docker(allocation)
    };
    let must = |it: &Allocation| node.must_be_attached(it, scope.snapshot, scope.context.now);
    let allocations = scope.snapshot.allocations();
    allocations.filter(|it| must(it) && !is_attached(it)).map(describe).collect()
}

fn describe(allocation: &Allocation) -> Finding {
    let handle = allocation.handle.as_deref().unwrap_or("none");
    let problem = match is_dockers(allocation) {
        true => format!(
            "address {} belongs to handle {handle}, which neither dockerd nor this node's kernel \
             knows",
            allocation.address,
        ),
        false => format!(
            "address {} belongs to {} of handle {handle}, which is not in this node's kernel",
            allocation.address,
            allocation.holder.interface.as_deref().unwrap_or("an interface"),
        ),
    };
    Finding::of_address(DamageKind::AddressWithoutAttachment, allocation, problem, "release it")
}

pub(super) fn repair(found: &Finding, values: &CurrentValues, tx: &mut Transaction) -> Option<()> {
    values.release(found, tx)
}
