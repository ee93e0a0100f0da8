//! What the node agent makes of a store.

use weir_common::datastore::{Entry, Revision, keys};
use weir_common::network::{
    ActualState, ActualTunnel, ActualVxlan, Change, ClusterCache, ClusterState, NftTable,
    ObservedRevision, RouteKind, TunnelFilter, TunnelPlan, Underlay, UnderlayLink, diff,
    plan_cluster,
};
use weir_common::tunnel::TunnelKind;

use super::input::Input;

/// Every value that cannot be read is named; the plan is made of the others, leads
/// nothing to the node itself, and what is carried out leaves nothing to change.
pub fn run(input: &Input) {
    let mut state = ClusterState::default();
    for (number, (key, value)) in input.entries.iter().enumerate() {
        let revision = Revision(number as i64);
        state.put(&Entry { key: key.clone(), value: value.clone(), revision });
    }
    for (key, value) in &input.entries {
        let is_block = keys::parse_block(key).is_some();
        if is_block && weir_common::ipam::Block::from_json(value).is_err() {
            assert!(state.unreadable.contains_key(key), "{key}");
        }
    }
    let link = |name: &str, address: &str| UnderlayLink {
        name: name.to_owned(),
        mtu: 1500,
        addresses: address.parse().into_iter().collect(),
    };
    let underlay = Underlay {
        links: vec![link("eth0", "172.31.1.1/24"), link("eth1", "fd01::1/64")],
        ..Underlay::default()
    };
    let plan = plan_cluster(&input.host, &state, &underlay);
    for problem in &plan.problems {
        assert!(!problem.to_string().is_empty());
    }
    if let Some(nat) = &plan.nat {
        assert!(!nat.contents("fuzz").is_empty());
    }
    let present = ActualState {
        tunnels: plan.tunnels.iter().map(|(kind, tunnel)| (*kind, made(*kind, tunnel))).collect(),
        routes: plan.routes.iter().map(|(to, way)| (*to, Some(way.clone()))).collect(),
        announced: plan.bgp_need.as_ref().map(|_| plan.announced.clone()).unwrap_or_default(),
        ..ActualState::default()
    };
    let filter = TunnelFilter::new(plan.tunnels.keys().copied(), &plan, &present);
    assert_eq!(filter.is_some(), !plan.tunnels.is_empty());
    assert!(filter.is_none_or(|filter| !filter.contents("fuzz").is_empty()));
    let difference = diff(&plan, &present);
    let texts: Vec<String> = difference.changes.iter().map(ToString::to_string).collect();
    assert!(texts.is_empty() && difference.still_used.is_empty(), "{texts:?}");
    let changes = diff(&plan, &ActualState::default()).changes;
    assert!(changes.len() >= plan.routes.len(), "{changes:?}");
    // Devices that were made with something else take their routes with them.
    let mut other = present;
    for vxlan in other.tunnels.values_mut().filter_map(|tunnel| tunnel.vxlan.as_mut()) {
        vxlan.device.vni ^= 1;
    }
    let by_vxlan =
        |way: &RouteKind| way.tunnel_kind().is_some_and(|kind| kind.row().frames().is_some());
    let lost = plan.routes.values().filter(|way| by_vxlan(way)).count();
    let changes = diff(&plan, &other).changes;
    let added = changes.iter().filter(|change| matches!(change, Change::AddRoute(..))).count();
    assert_eq!(added, lost, "{changes:?}");
    let mut cache = ClusterCache::default();
    let at =
        |revision| ObservedRevision { revision: Revision(revision), ..ObservedRevision::default() };
    cache.replace(state.clone(), &at(2));
    cache.replace(ClusterState::default(), &at(1));
    assert_eq!(plan_cluster(&input.host, &cache.state(), &underlay).routes, plan.routes);
}

/// The device as it is planned.
fn made(kind: TunnelKind, tunnel: &TunnelPlan) -> ActualTunnel {
    let vxlan = tunnel.vxlan.clone().map(|vxlan| ActualVxlan {
        device: vxlan.device,
        neighbours: vxlan.neighbours,
        forwarding: vxlan.forwarding.into_iter().collect(),
    });
    let addresses = tunnel.addresses(kind);
    ActualTunnel { claimed: true, up: true, mtu: tunnel.mtu, addresses, vxlan }
}
