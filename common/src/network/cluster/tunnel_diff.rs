//! The changes of tunnel devices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::actual::{ActualState, ActualTunnel};
use super::change::Change;
use super::plan::ClusterPlan;
use super::tunnels::{TunnelPlan, VxlanDevice};
use crate::link::MacAddress;
use crate::tunnel::TunnelKind;

/// One tunnel, as it should be and as it is.
pub(super) struct TunnelDiff<'a> {
    pub(super) kind: TunnelKind,
    /// None where it should not be in service.
    pub(super) wanted: Option<&'a TunnelPlan>,
    actual: Option<&'a ActualTunnel>,
    /// The links whose reverse path filter is strict.
    strict: &'a BTreeSet<String>,
    /// The next hops of the routes by it that stay until the planned ones can be had.
    used: BTreeSet<IpAddr>,
    /// The entries of the plan, and those that the routes need which stay.
    entries: Entries,
}

/// What a device of VXLAN should have, besides what it is made with.
#[derive(Default)]
struct Entries {
    neighbours: BTreeMap<IpAddr, MacAddress>,
    forwarding: BTreeSet<(MacAddress, IpAddr)>,
}

impl<'a> TunnelDiff<'a> {
    pub(super) fn all(
        plan: &'a ClusterPlan,
        actual: &'a ActualState,
        still_used: &BTreeMap<TunnelKind, BTreeSet<IpAddr>>,
    ) -> Vec<Self> {
        let of_kind = |kind: TunnelKind| {
            let has = actual.tunnels.get(&kind);
            let is_claimed = has.is_some_and(|has| has.claimed);
            let wanted = plan.tunnels.get(&kind).filter(|wanted| wanted.is_needed || is_claimed);
            let used = still_used.get(&kind).cloned().unwrap_or_default();
            let entries = entries(wanted, has, &used);
            Self { kind, wanted, actual: has, strict: &actual.strict, used, entries }
        };
        TunnelKind::ALL.map(of_kind).into()
    }

    /// Whether routes go by it that stay until the planned ones can be had.
    pub(super) fn is_still_used(&self) -> bool {
        !self.used.is_empty()
    }

    fn wanted_vxlan(&self) -> Option<&'a VxlanDevice> {
        Some(&self.wanted?.vxlan.as_ref()?.device)
    }

    /// Whether its device has to be made again, because it was made with something else.
    pub(super) fn is_remade(&self) -> bool {
        self.actual.zip(self.wanted_vxlan()).is_some_and(|(has, wanted)| differs(has, wanted))
    }

    /// The device that goes on.
    fn kept(&self) -> Option<&'a ActualTunnel> {
        self.actual.filter(|_| !self.is_remade())
    }

    /// What the tunnel needs before routes can go by it.
    pub(super) fn prepare(&self) -> Vec<Change> {
        let (kind, Some(wanted)) = (self.kind, self.wanted) else {
            return Vec::new();
        };
        let mut changes = Vec::new();
        if self.is_remade() {
            changes.push(Change::DeleteTunnel(kind));
        }
        if self.kept().is_none() {
            changes.push(Change::CreateTunnel(kind, self.wanted_vxlan().cloned()));
        }
        let fresh = ActualTunnel::default();
        let tunnel = self.kept().unwrap_or(&fresh);
        if !tunnel.claimed {
            changes.push(Change::ClaimTunnel(kind));
        }
        if tunnel.mtu != wanted.mtu {
            changes.push(Change::SetTunnelMtu(kind, wanted.mtu));
        }
        let addresses = wanted.addresses(kind);
        let missing = addresses.difference(&tunnel.addresses);
        changes.extend(missing.map(|it| Change::AddTunnelAddress(kind, it.addr())));
        if !tunnel.up {
            changes.push(Change::SetTunnelUp(kind));
        }
        // A device that is made only now may be born strict.
        if !kind.row().is_ipv6 && (self.kept().is_none() || self.strict.contains(kind.device())) {
            changes.push(Change::LoosenReversePath(kind.device().to_owned()));
        }
        let strict = wanted.asymmetric.iter().filter(|link| self.strict.contains(*link));
        changes.extend(strict.cloned().map(Change::LoosenReversePath));
        changes.extend(self.new_entries());
        changes
    }

    /// Forwarding entries come before the neighbours that need them.
    fn new_entries(&self) -> Vec<Change> {
        let (kind, Entries { neighbours, forwarding }) = (self.kind, &self.entries);
        let has = self.kept().and_then(|has| has.vxlan.as_ref());
        let is_there = |entry: &_| has.is_some_and(|has| has.forwarding.contains(entry));
        let is_known =
            |address: &_, mac: &_| has.is_some_and(|has| has.neighbours.get(address) == Some(mac));
        let forwarding = forwarding.iter().filter(|entry| !is_there(entry));
        let forwarding = forwarding.map(|(mac, node)| Change::AddForwarding(kind, *mac, *node));
        let neighbours = neighbours.iter().filter(|(address, mac)| !is_known(address, mac));
        let neighbours =
            neighbours.map(|(address, mac)| Change::SetNeighbour(kind, *address, *mac));
        forwarding.chain(neighbours).collect()
    }

    /// What is taken from the tunnel once no route needs it: the kernel drops
    /// routes that send from an address when that goes. A device that Weir never had in service
    /// is another program's (IPVS has its virtual addresses on `tunl0`) and stays as it is.
    pub(super) fn retire(&self) -> Vec<Change> {
        let (kind, Some(tunnel)) = (self.kind, self.kept()) else {
            return Vec::new();
        };
        let Some(wanted) = self.wanted else {
            let goes = tunnel.claimed && !self.is_still_used();
            return if goes { taken_out(kind, tunnel) } else { Vec::new() };
        };
        let addresses = wanted.addresses(kind);
        let stale = tunnel.addresses.difference(&addresses);
        let mut changes: Vec<Change> =
            stale.map(|&address| Change::RemoveTunnelAddress(kind, address)).collect();
        changes.extend(self.old_entries());
        changes
    }

    fn old_entries(&self) -> Vec<Change> {
        let Some(has) = self.kept().and_then(|has| has.vxlan.as_ref()) else {
            return Vec::new();
        };
        let Entries { neighbours, forwarding } = &self.entries;
        let old = has.neighbours.keys().filter(|it| !neighbours.contains_key(it));
        let old = old.map(|&address| Change::RemoveNeighbour(self.kind, address));
        let behind = has.forwarding.difference(forwarding);
        let behind = behind.map(|&(mac, node)| Change::RemoveForwarding(self.kind, mac, node));
        old.chain(behind).collect()
    }
}

fn entries(
    wanted: Option<&TunnelPlan>,
    has: Option<&ActualTunnel>,
    used: &BTreeSet<IpAddr>,
) -> Entries {
    let Some(wanted) = wanted.and_then(|wanted| wanted.vxlan.as_ref()) else {
        return Entries::default();
    };
    let forwarding = wanted.forwarding.iter().map(|(mac, node)| (*mac, *node)).collect();
    let mut entries = Entries { neighbours: wanted.neighbours.clone(), forwarding };
    let Some(has) = has.and_then(|has| has.vxlan.as_ref()) else { return entries };
    let staying = used.iter().filter(|it| !wanted.neighbours.contains_key(it));
    for (next_hop, mac) in staying.filter_map(|it| has.neighbours.get_key_value(it)) {
        entries.neighbours.insert(*next_hop, *mac);
        if !wanted.forwarding.contains_key(mac) {
            entries.forwarding.extend(has.nodes_behind(*mac).map(|node| (*mac, node)));
        }
    }
    entries
}

/// Whether a device was made with something else than `wanted`. While the link is not known that
/// has the node's address, any is right.
fn differs(has: &ActualTunnel, wanted: &VxlanDevice) -> bool {
    let Some(has) = has.vxlan.as_ref().map(|vxlan| &vxlan.device) else { return true };
    let parent = wanted.parent.as_ref().or(has.parent.as_ref()).cloned();
    *has != VxlanDevice { parent, ..wanted.clone() }
}

/// The kinds whose device is another program's, and made with something else than the plan's:
/// that program may still need it.
pub(super) fn kinds_of_others(plan: &ClusterPlan, actual: &ActualState) -> BTreeSet<TunnelKind> {
    let is_others = |(kind, wanted): &(&TunnelKind, &TunnelPlan)| {
        let has = actual.tunnels.get(kind).filter(|has| !has.claimed);
        let wanted = wanted.vxlan.as_ref().map(|vxlan| &vxlan.device);
        has.zip(wanted).is_some_and(|(has, wanted)| differs(has, wanted))
    };
    plan.tunnels.iter().filter(is_others).map(|(kind, _)| *kind).collect()
}

/// What takes a tunnel out of service. A device that cannot be deleted keeps no address and is
/// down.
fn taken_out(kind: TunnelKind, tunnel: &ActualTunnel) -> Vec<Change> {
    if kind.row().is_deletable {
        return vec![Change::DeleteTunnel(kind)];
    }
    let addresses = tunnel.addresses.iter();
    let mut changes: Vec<Change> =
        addresses.map(|&address| Change::RemoveTunnelAddress(kind, address)).collect();
    if tunnel.up {
        changes.push(Change::SetTunnelDown(kind));
    }
    // Last: what failed before is then tried again.
    changes.push(Change::DisclaimTunnel(kind));
    changes
}
