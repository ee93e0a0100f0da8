//! Which peers are taken for ones on the node's own link.

use super::*;

/// The peers of `n1` that are on its link, by their addresses.
fn on_link(state: &ClusterState, underlay: &Underlay) -> Vec<String> {
    let sessions = plan_bgp("n1", state, underlay).sessions;
    let on_link = sessions.values().filter(|session| session.is_on_link);
    on_link.map(|session| session.address.to_string()).collect()
}

/// Links in these subnets: `eth0`, `eth1`, ….
fn links(subnets: &[&str]) -> Underlay {
    let links = subnets.iter().enumerate().map(|(number, subnet)| UnderlayLink {
        name: format!("eth{number}"),
        mtu: 1500,
        addresses: vec![subnet.parse().unwrap()],
    });
    Underlay { links: links.collect(), ..Underlay::default() }
}

/// Nodes in two subnets, and routers in both.
fn cluster() -> ClusterState {
    let mut state = nodes(&["10.0.0.1", "10.0.0.2", "10.0.1.3"]);
    for (name, router) in [("near", "10.0.0.254"), ("far", "10.0.1.254")] {
        add(&mut state, name, peering(PeerNodes::All, address(router, None), Some(65000)));
    }
    state
}

#[test]
fn peers_in_the_subnet_of_the_registered_address_are_on_the_link() {
    let state = cluster();
    let own = ["10.0.0.254", "10.0.0.2"];
    assert_eq!(on_link(&state, &links(&["10.0.0.1/24"])), own);
    // By way of another link than that of the address that the session comes from.
    let more = ["10.0.0.1/24", "10.0.1.1/24"];
    assert_eq!(on_link(&state, &links(&more)), own);
    assert_eq!(on_link(&state, &links(&["10.0.0.1/24", "10.0.0.250/29"])), ["10.0.0.2"]);
    // The link's own prefix length is what counts, where the two differ.
    assert_eq!(on_link(&state, &links(&["10.0.0.1/30"])), ["10.0.0.2"]);
    assert_eq!(on_link(&state, &links(&["10.0.0.1/16"])), own);
    assert_eq!(on_link(&state, &links(&["10.0.0.1/32"])), [""; 0]);
}

#[test]
fn a_link_that_is_down_for_a_moment_makes_no_other_plan() {
    let state = cluster();
    let before = plan_bgp("n1", &state, &links(&["10.0.0.1/24", "10.9.0.1/24"]));
    assert!(before.sessions.values().any(|session| session.is_on_link));
    for meanwhile in [&[][..], &["10.9.0.1/24"], &["10.9.0.1/24", "10.0.0.1/24"]] {
        assert_eq!(plan_bgp("n1", &state, &links(meanwhile)), before, "{meanwhile:?}");
    }
}

#[test]
fn a_node_that_is_registered_with_a_smaller_subnet_is_not_on_the_link() {
    let mut state = cluster();
    node(&mut state, "n2").ipv4 = Some("10.0.0.2/32".parse().unwrap());
    assert_eq!(on_link(&state, &links(&["10.0.0.1/24"])), ["10.0.0.254"]);
    let there = plan_bgp("n2", &state, &links(&["10.0.0.2/24"])).sessions;
    assert!(there.values().all(|session| !session.is_on_link), "{there:?}");
}

#[test]
fn a_peer_behind_a_router_is_not_on_the_link_for_either_side() {
    let mut state = nodes(&["10.0.0.1", "10.0.0.2"]);
    let reachable_by = Some("10.0.0.254".parse().unwrap());
    let target = address("10.0.0.2", None);
    let peer = peering(PeerNodes::Named("n1".into()), target, None);
    for (reachable_by, is_on_link) in [(reachable_by, false), (None, true)] {
        add(&mut state, "n2", BgpPeer { reachable_by, ..peer.clone() });
        for node in ["n1", "n2"] {
            let sessions = plan(&state, node).sessions;
            assert_eq!(sessions.len(), 1, "{sessions:?}");
            assert!(sessions.values().all(|it| it.is_on_link == is_on_link), "{sessions:?}");
        }
    }
}
