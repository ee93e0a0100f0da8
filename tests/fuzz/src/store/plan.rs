//! What the node agent makes of a store.

use std::collections::BTreeSet;

use weir_common::datastore::{Entry, Revision, keys};
use weir_common::network::{
    ActualState, ClusterCache, ClusterState, NftTable, ObservedRevision, TunnelFilter, Underlay,
    UnderlayLink, diff, plan_cluster,
};

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
    if let Some(tunnel) = &plan.tunnel {
        assert!(!TunnelFilter::from_plan(tunnel).contents("fuzz").is_empty());
    }
    if let Some(nat) = &plan.nat {
        assert!(!nat.contents("fuzz").is_empty());
    }
    let present = ActualState {
        routes: plan.routes.iter().map(|(to, way)| (*to, Some(way.clone()))).collect(),
        announced: plan.bgp_need.as_ref().map(|_| plan.announced.clone()).unwrap_or_default(),
        ..ActualState::default()
    };
    let (changes, _) = diff(&plan, &present);
    let texts: BTreeSet<String> = changes.iter().map(ToString::to_string).collect();
    assert!(!texts.iter().any(|change| change.contains("route")), "{texts:?}");
    let (changes, _) = diff(&plan, &ActualState::default());
    assert!(changes.len() >= plan.routes.len(), "{changes:?}");
    let mut cache = ClusterCache::default();
    let at =
        |revision| ObservedRevision { revision: Revision(revision), ..ObservedRevision::default() };
    cache.replace(state.clone(), &at(2));
    cache.replace(ClusterState::default(), &at(1));
    assert_eq!(plan_cluster(&input.host, &cache.state(), &underlay).routes, plan.routes);
}
