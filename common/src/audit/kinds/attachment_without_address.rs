//! Kind 2: an attachment in this node's kernel whose address the store does not give to it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use jiff::Timestamp;

use crate::audit::finding::{Finding, listed};
use crate::audit::kind::DamageKind;
use crate::audit::node::{Attached, ThisNode};
use crate::audit::outcome::RepairOutcome;
use crate::audit::release_one::{self, Release, SeenAddress};
use crate::audit::scope::Scope;
use crate::audit::values::CurrentValues;
use crate::datastore::Datastore;
use crate::datastore::{Transaction, keys};
use crate::ipam::assign::{Request, Want};
use crate::ipam::{Allocation, Assignee, Attribute, Error, engine, handle_id};
use crate::node::is_tunnel_address;

pub(super) fn find(scope: &Scope<'_>) -> Vec<Finding> {
    let Some(node) = scope.node() else { return Vec::new() };
    let concerned = node.attachments.iter().filter(|it| node.takes_addresses(&it.identity));
    let concerned: Vec<_> = concerned.map(|it| (it, node.assignee(&it.identity))).collect();
    let handles: HashSet<&str> = concerned.iter().map(|(_, it)| it.handle_id.as_str()).collect();
    let mut by_handle: HashMap<&str, Vec<&Allocation>> = HashMap::new();
    for allocation in scope.snapshot.allocations() {
        if let Some(handle) = allocation.handle.as_deref().filter(|it| handles.contains(it)) {
            by_handle.entry(handle).or_default().push(allocation);
        }
    }
    let unreadable = scope.snapshot.unreadable_blocks();
    let recorded = scope.snapshot.machine(&node.host);
    let judge = |(attached, assignee): (&Attached, Assignee)| {
        let of_handle = by_handle.get(assignee.handle_id.as_str()).map_or(&[][..], Vec::as_slice);
        let held = || of_handle.iter().filter(|allocation| allocation.is_of(&assignee, recorded));
        // The address may stand in a block that cannot be read.
        let visible = |address: &IpAddr| !unreadable.iter().any(|block| block.contains(address));
        let owns = |address: &IpAddr| held().any(|allocation| allocation.address == *address);
        let addresses: Vec<IpAddr> =
            attached.addresses.iter().filter(|it| !owns(it) && visible(it)).copied().collect();
        let unrecorded = if attached.addresses.is_empty() {
            held().next().is_none() && unreadable.is_empty()
        } else {
            !addresses.is_empty()
        };
        unrecorded.then(|| describe(node, attached, addresses))
    };
    concerned.iter().cloned().filter_map(judge).collect()
}

/// An assignment repairs it ([`record`]), not a transaction of the audit's.
pub(super) fn repair(_: &Finding, _: &CurrentValues, _: &mut Transaction) -> Option<()> {
    None
}

fn describe(node: &ThisNode, attached: &Attached, addresses: Vec<IpAddr>) -> Finding {
    let identity = attached.identity.clone();
    let any = || "any address".to_owned();
    let problem = format!(
        "{} of container {} in network {} is in this node's kernel, but {} is not its own in the \
         store",
        identity.interface(),
        identity.container_id(),
        identity.network(),
        if addresses.is_empty() { any() } else { listed(&addresses) },
    );
    let obstacle = addresses.is_empty().then(|| {
        "the kernel does not say which address it has; delete the container and make it again"
            .to_owned()
    });
    let handle = handle_id(identity.network(), identity.container_id());
    let remedy = "record it, if no other container has the address";
    let key = keys::handle(&handle);
    let finding = Finding::new(DamageKind::AttachmentWithoutAddress, key, problem, remedy);
    Finding {
        host: Some(node.host.clone()),
        handle: Some(handle),
        attachment: Some(Attached { identity, addresses }),
        ..finding.left(obstacle)
    }
}

/// Whether the store still does not give its addresses to an attachment.
///
/// # Errors
/// See [`Error`].
pub(in crate::audit) async fn holds(
    datastore: &dyn Datastore,
    node: &ThisNode,
    Attached { identity, addresses }: &Attached,
) -> Result<bool, Error> {
    let held = engine::lookup(datastore, &node.assignee(identity)).await?;
    let owns = |address: &IpAddr| held.iter().any(|assigned| assigned.address == *address);
    Ok(if addresses.is_empty() { held.is_empty() } else { !addresses.iter().all(owns) })
}

/// Records the addresses that an attachment has in the kernel, if they are still there, by
/// the same decision as an ADD that asks for them by number: who has one meanwhile keeps
/// it, unless that is the tunnel of a node, which can do with another.
///
/// # Errors
/// See [`Error`].
pub(in crate::audit) async fn record(
    datastore: &dyn Datastore,
    node: Option<&ThisNode>,
    Attached { identity, addresses }: &Attached,
    now: Timestamp,
) -> Result<RepairOutcome, Error> {
    let has = |attached: &Attached| {
        attached.identity == *identity
            && addresses.iter().all(|address| attached.addresses.contains(address))
    };
    let Some(node) = node.filter(|node| node.attachments.iter().any(has)) else {
        return Ok(RepairOutcome::Gone);
    };
    let request = Request {
        assignee: node.assignee(identity),
        facts: Default::default(),
        wants: addresses.iter().copied().map(Want::Exactly).collect(),
        gateways: Vec::new(),
        within: None,
    };
    let mut outcome = engine::assign(datastore, &request, &[], now).await;
    for _ in addresses {
        let Err(Error::Taken { address, .. }) = &outcome else { break };
        if !release_from_tunnel(datastore, *address).await? {
            break;
        }
        outcome = engine::assign(datastore, &request, &[], now).await;
    }
    match outcome {
        Ok(_) => Ok(RepairOutcome::Repaired),
        Err(error @ (Error::Datastore(_) | Error::NotReady | Error::Contended(_))) => Err(error),
        Err(refused) => Ok(RepairOutcome::Left(refused.to_string())),
    }
}

/// Releases an address if a node's tunnel has it, and says whether that is so. The node
/// looks for another one as soon as it does not name this one any more.
async fn release_from_tunnel(datastore: &dyn Datastore, address: IpAddr) -> Result<bool, Error> {
    let Some(found) = release_one::look_up(datastore, address).await? else {
        return Ok(true);
    };
    let holder = release_one::holder(datastore, address).await?;
    let is_tunnel = |it: &Attribute| {
        it.handle_id.as_deref() == found.handle.as_deref() && is_tunnel_address(it)
    };
    if !holder.as_ref().is_some_and(is_tunnel) {
        return Ok(false);
    }
    let released = release_one::release(datastore, &SeenAddress::from(&found)).await?;
    Ok(!matches!(released, Release::Reassigned(_)))
}
