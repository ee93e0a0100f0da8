//! Who peers with whom.

use super::*;

#[test]
fn a_mesh_connects_all_nodes_and_the_greater_text_waits() {
    let mut state = nodes(&["10.0.0.9", "10.0.0.10", "10.0.0.11"]);
    node(&mut state, "n2").as_number = Some(64600);
    assert_eq!(
        sessions(&state, "n1"),
        ["Mesh_10_0_0_10 10.0.0.10:179 64512-64600", "Mesh_10_0_0_11 10.0.0.11:179 64512-64512"]
    );
    assert_eq!(
        sessions(&state, "n2"),
        [
            "Mesh_10_0_0_11 10.0.0.11:179 64600-64512 passive",
            "Mesh_10_0_0_9 10.0.0.9:179 64600-64512 passive"
        ]
    );
    without_mesh(&mut state);
    assert!(sessions(&state, "n1").is_empty());
}

#[test]
fn a_mesh_has_the_clusters_settings_and_the_nodes_ports() {
    let mut state = nodes(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let listen = |listen_port| BgpConfiguration { listen_port, ..Default::default() };
    let secret = SecretReference { name: "bgp".into(), key: "mesh".into() };
    let cluster = BgpConfiguration {
        as_number: Some(65001),
        mesh_password: Some(secret),
        mesh_restart_time: Some(120),
        ..listen(Some(1790))
    };
    configure(&mut state, "default", cluster);
    configure(&mut state, "node.n2", listen(Some(1791)));
    assert_eq!(
        sessions(&state, "n1"),
        [
            "Mesh_10_0_0_2 10.0.0.2:1791 65001-65001 passive password",
            "Mesh_10_0_0_3 10.0.0.3:1790 65001-65001 passive password"
        ]
    );
    let session = plan(&state, "n1").sessions["Mesh_10_0_0_2"].clone();
    assert_eq!(
        (session.restart_time, session.local_address),
        (Some(120), Some([10, 0, 0, 1].into()))
    );
    assert_eq!((plan(&state, "n2").listen_port, plan(&state, "n3").listen_port), (1791, 1790));
}

#[test]
fn each_family_has_sessions_of_its_own() {
    let mut state = nodes(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    for (name, address) in [("n1", "fd00::1/64"), ("n2", "fd00::2/64")] {
        node(&mut state, name).ipv6 = Some(address.parse().unwrap());
    }
    node(&mut state, "n3").ipv4 = None;
    assert_eq!(
        sessions(&state, "n1"),
        [
            "Mesh_10_0_0_2 10.0.0.2:179 64512-64512 passive",
            "Mesh_fd00__2 fd00::2:179 64512-64512 passive"
        ]
    );
    assert!(sessions(&state, "n3").is_empty(), "it has no address");
}

#[test]
fn reflectors_leave_the_mesh_and_reflect_to_their_clients() {
    let mut state = nodes(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]);
    reflector(&mut state, "n1", "244.0.0.1");
    reflector(&mut state, "n2", "244.0.0.1");
    reflector(&mut state, "n3", "244.0.0.2");
    let target = PeerTarget::Nodes(selector("has(rr)"));
    add(&mut state, "to-reflectors", peering(PeerNodes::All, target, None));
    assert_eq!(
        sessions(&state, "n5"),
        [
            "Global_10_0_0_1 10.0.0.1:179 64512-64512",
            "Global_10_0_0_2 10.0.0.2:179 64512-64512",
            "Global_10_0_0_3 10.0.0.3:179 64512-64512",
            "Mesh_10_0_0_4 10.0.0.4:179 64512-64512",
        ]
    );
    // One reflector is no client of another one of its cluster; all others are.
    assert_eq!(
        sessions(&state, "n1"),
        [
            "Global_10_0_0_2 10.0.0.2:179 64512-64512 passive",
            "Global_10_0_0_3 10.0.0.3:179 64512-64512 passive client-of 244.0.0.1",
            "Node_10_0_0_4 10.0.0.4:179 64512-64512 client-of 244.0.0.1",
            "Node_10_0_0_5 10.0.0.5:179 64512-64512 client-of 244.0.0.1",
        ]
    );
    let plan = plan(&state, "n1");
    assert_eq!(plan.sessions["Node_10_0_0_4"].origin, Origin::Reverse("to-reflectors".into()));
    assert_eq!(plan.sessions["Node_10_0_0_4"].exports_others, ExportedOthers::All);
    assert_eq!(plan.need, Some(BgpNeed::Peer("to-reflectors".into())));
}

#[test]
fn selected_nodes_peer_with_selected_ones_by_their_ports_and_back() {
    let mut state = nodes(&["10.0.0.2", "10.0.0.3", "10.0.0.4"]);
    without_mesh(&mut state);
    let listen_port = Some(500);
    configure(&mut state, "node.n2", BgpConfiguration { listen_port, ..Default::default() });
    for (name, group) in [("n1", "one"), ("n2", "two"), ("n3", "two")] {
        label(&mut state, name, group);
    }
    for (number, name) in [(2, "n1"), (4, "n3")] {
        node(&mut state, name).ipv6 = Some(format!("fd00::{number}/64").parse().unwrap());
    }
    let target = PeerTarget::Nodes(selector("has(two)"));
    add(&mut state, "one-two", peering(selected("has(one)"), target, None));
    assert_eq!(
        sessions(&state, "n1"),
        [
            "Node_10_0_0_3_port_500 10.0.0.3:500 64512-64512",
            "Node_10_0_0_4 10.0.0.4:179 64512-64512",
            "Node_fd00__4 fd00::4:179 64512-64512",
        ]
    );
    assert_eq!(sessions(&state, "n2"), ["Node_10_0_0_2 10.0.0.2:179 64512-64512"]);
    assert_eq!(sessions(&state, "n3").len(), 2);
    state.bgp.peers.get_mut("one-two").unwrap().is_reversed = false;
    assert!(sessions(&state, "n2").is_empty());
}

#[test]
fn a_routers_port_is_written_and_a_nodes_is_looked_up() {
    let mut state = nodes(&["10.0.0.1", "10.0.0.2"]);
    without_mesh(&mut state);
    let listen_port = Some(1790);
    configure(&mut state, "node.n2", BgpConfiguration { listen_port, ..Default::default() });
    let mut only = |name: &str, target, as_number| {
        state.bgp.peers = [(name.to_owned(), peering(PeerNodes::All, target, as_number))].into();
        (sessions(&state, "n1"), sessions(&state, "n2"))
    };
    let (of_n1, of_n2) = only("tor", address("10.0.0.254", Some(1179)), Some(65000));
    assert_eq!(of_n1, ["Global_10_0_0_254_port_1179 10.0.0.254:1179 64512-65000"]);
    assert_eq!(of_n2, of_n1);
    // Passive, since it is a node and its address is greater; the other one peers back.
    let (of_n1, of_n2) = only("node", address("10.0.0.2", None), Some(64512));
    assert_eq!(of_n1, ["Global_10_0_0_2_port_1790 10.0.0.2:1790 64512-64512 passive"]);
    assert_eq!(of_n2, ["Node_10_0_0_1 10.0.0.1:179 64512-64512"]);
    // Another AS, or another port: what listens there is not the node's.
    for (port, as_number) in [(None, 65000), (Some(1791), 64512)] {
        let (of_n1, of_n2) = only("other", address("10.0.0.2", port), Some(as_number));
        assert_eq!((of_n1.len(), of_n2.len()), (1, 0), "{port:?} {as_number}");
    }
}

#[test]
fn the_first_of_several_peerings_counts() {
    let mut state = nodes(&["10.0.0.1", "10.0.0.2"]);
    without_mesh(&mut state);
    let to = |nodes, as_number| peering(nodes, address("10.0.0.254", None), Some(as_number));
    add(&mut state, "b-global", to(PeerNodes::All, 65000));
    add(&mut state, "a-node", to(PeerNodes::Named("n1".into()), 65001));
    add(&mut state, "c-same", to(PeerNodes::Named("n2".into()), 65000));
    let expected = ["Global_10_0_0_254 10.0.0.254:179 64512-65000"];
    assert_eq!(
        (sessions(&state, "n1"), sessions(&state, "n2")),
        (expected.map(Into::into).into(), expected.map(Into::into).into())
    );
    assert_eq!(
        problems(&state, "n1"),
        ["BGPPeer a-node is passed over: BGPPeer b-global has a session with 10.0.0.254 already"]
    );
    assert!(problems(&state, "n2").is_empty(), "what wants the same is no trouble");
    // What is written counts before what is implied, and before the mesh.
    state.bgp = Default::default();
    let password = Some(SecretReference { name: "bgp".into(), key: "n2".into() });
    let back = peering(PeerNodes::Named("n2".into()), address("10.0.0.1", None), None);
    let there = peering(PeerNodes::Named("n1".into()), address("10.0.0.2", None), None);
    add(&mut state, "a-back", back);
    add(&mut state, "z-there", BgpPeer { password, ..there });
    assert_eq!(sessions(&state, "n1"), ["Node_10_0_0_2 10.0.0.2:179 64512-64512 password"]);
    assert!(problems(&state, "n1").is_empty());
}

#[test]
fn what_cannot_be_done_is_said() {
    let mut state = nodes(&["10.0.0.1"]);
    let all = |target| peering(PeerNodes::All, target, None);
    add(&mut state, "no-as", all(address("10.0.0.254", None)));
    let router = BgpPeer { as_number: Some(65000), ..all(address("fd00::1", None)) };
    add(&mut state, "six", router.clone());
    add(&mut state, "work", all(PeerTarget::Workloads));
    let filters = vec!["gone".to_owned()];
    add(&mut state, "tor", BgpPeer { filters, target: address("10.0.0.253", None), ..router });
    let not_served = vec!["serviceClusterIPs".to_owned()];
    configure(&mut state, "default", BgpConfiguration { not_served, ..Default::default() });
    assert_eq!(
        problems(&state, "n1"),
        [
            "BGPPeer tor names the filter gone, which does not exist; nothing is told to the \
             peer or taken from it until it does",
            "BGPPeer no-as has no asNumber for 10.0.0.254, which is not a node's; set it",
            "BGPConfiguration default sets serviceClusterIPs, which Weir does not serve",
            "BGPPeer work sets localWorkloadSelector, which Weir does not serve",
            "BGPPeer six is passed over: this node is registered without an IPv6 address",
        ]
    );
    let plan = plan(&state, "n1");
    assert_eq!(plan.sessions.keys().collect::<Vec<_>>(), ["Global_10_0_0_253"]);
    assert_eq!(plan.sessions["Global_10_0_0_253"].filters, ["gone"], "the printer rejects all");
    assert!(plan.filters.is_empty());
}

/// Two nodes with one address, and a node that is told to peer with itself.
#[test]
fn an_address_has_one_session() {
    let mut state = nodes(&["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.1"]);
    assert_eq!(sessions(&state, "n1"), ["Mesh_10_0_0_2 10.0.0.2:179 64512-64512 passive"]);
    let target = PeerTarget::Nodes(selector("all()"));
    add(&mut state, "all", peering(PeerNodes::All, target, None));
    assert_eq!(sessions(&state, "n1"), ["Global_10_0_0_2 10.0.0.2:179 64512-64512 passive"]);
    assert!(problems(&state, "n1").is_empty());
}

#[test]
fn a_session_has_what_its_peering_says() {
    let mut state = nodes(&["10.0.0.1"]);
    let target = address("10.9.0.1", None);
    let peer = BgpPeer {
        local_as_number: Some(64700),
        from_node_address: false,
        next_hop: NextHopMode::KeepExternal,
        restart_time: Some(60),
        keepalive_time: Some(10),
        allowed_own_as: Some(2),
        ttl_security: Some(1),
        reachable_by: Some([10, 0, 0, 254].into()),
        bfd: Some("300ms*3".parse().unwrap()),
        ..peering(PeerNodes::All, target, Some(65000))
    };
    let session = |peer: BgpPeer| {
        let mut state = state.clone();
        add(&mut state, "tor", peer);
        plan(&state, "n1").sessions.into_values().next().unwrap()
    };
    let external = session(peer.clone());
    assert!(external.is_external() && external.local_as == 64700);
    assert_eq!((external.local_address, external.next_hop), (None, NextHop::Keep));
    assert_eq!((external.restart_time, external.keepalive_time), (Some(60), Some(10)));
    assert_eq!((external.allowed_own_as, external.ttl_security), (Some(2), Some(1)));
    assert_eq!(external.bfd, peer.bfd);
    let internal = session(BgpPeer { as_number: Some(64700), ..peer.clone() });
    assert_eq!((internal.is_external(), internal.next_hop), (false, NextHop::Auto));
    add(&mut state, "tor", peer);
    let route = StaticRoute { peer: [10, 9, 0, 1].into(), via: [10, 0, 0, 254].into() };
    assert_eq!(plan(&state, "n1").static_routes, [route].into());
}

/// The other side of a peering with an AS number of its own expects that number.
#[test]
fn a_reverse_peering_is_the_mirror_image() {
    let mut state = nodes(&["10.0.0.1", "10.0.0.2"]);
    without_mesh(&mut state);
    let there = peering(PeerNodes::Named("n1".into()), address("10.0.0.2", None), Some(64512));
    add(
        &mut state,
        "there",
        BgpPeer { local_as_number: Some(64700), ttl_security: Some(1), ..there },
    );
    assert_eq!(sessions(&state, "n1"), ["Node_10_0_0_2 10.0.0.2:179 64700-64512"]);
    assert_eq!(sessions(&state, "n2"), ["Node_10_0_0_1 10.0.0.1:179 64512-64700"]);
    assert_eq!(plan(&state, "n2").sessions["Node_10_0_0_1"].ttl_security, Some(1));
}
