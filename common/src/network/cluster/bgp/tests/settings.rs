//! What else a plan says: why a daemon is needed, what is told, what is the agent's.

use super::*;
use crate::ipam::MachineId;
use crate::resources::bgp::{LogSeverity, PrefixAdvertisement};

#[test]
fn a_mesh_by_default_needs_nothing_until_a_pool_has_to_cross_subnets() {
    let mut state = nodes(&["10.0.0.1", "10.0.0.2", "10.0.1.3"]);
    let need = |state: &ClusterState| plan(state, "n1").need;
    assert_eq!(need(&state), None, "without a pool");
    pool(&mut state, "plain", "10.244.0.0/16", Never);
    let far = BgpNeed::OtherSubnet { pool: "plain".into(), node: "n3".into() };
    assert_eq!(need(&state), Some(far.clone()));
    assert_eq!(bgp_need("n1", &state, &underlay("10.0.0.1/16")), None, "on one link");
    type Change = fn(&mut ClusterState);
    let changes: [Change; 4] = [
        |state| pool(state, "plain", "10.244.0.0/16", EncapsulationMode::Always),
        |state| state.pools.get_mut("plain").unwrap().is_exported = false,
        without_mesh,
        |state| reflector(state, "n1", "244.0.0.1"),
    ];
    for change in changes {
        let mut state = state.clone();
        change(&mut state);
        assert_eq!(need(&state), None, "{state:?}");
    }
    let leaves_cluster_routes = true;
    let configuration = BgpConfiguration { leaves_cluster_routes, ..Default::default() };
    configure(&mut state, "default", configuration);
    assert_eq!(need(&state), None, "the routes are not BGP's");
}

#[test]
fn a_mesh_that_is_asked_for_reaches_nodes_without_weir() {
    let mut state = nodes(&["10.0.0.1", "10.0.0.2"]);
    let on = BgpConfiguration { node_to_node_mesh: Some(true), ..Default::default() };
    configure(&mut state, "default", on);
    assert_eq!(plan(&state, "n1").need, Some(BgpNeed::OtherSpeaker("n2".into())));
    state.machines.insert("n2".into(), MachineId::from_source("n2"));
    assert_eq!(plan(&state, "n1").need, None);
}

#[test]
fn a_node_whose_ranges_others_tell_a_router_needs_a_daemon_too() {
    let mut state = nodes(&["10.0.0.1", "10.0.0.2"]);
    let router = peering(PeerNodes::Named("n2".into()), address("10.0.0.254", None), Some(65000));
    add(&mut state, "tor", router);
    let told = BgpNeed::ToldByOthers { peer: "tor".into(), node: "n2".into() };
    assert_eq!(plan(&state, "n1").need, Some(told));
    without_mesh(&mut state);
    assert_eq!(plan(&state, "n1").need, None);
}

#[test]
fn a_router_is_told_of_the_nodes_that_no_router_peers_with() {
    let mut state = nodes(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let router = |nodes| peering(nodes, address("10.0.0.254", None), Some(65000));
    let told =
        |state: &ClusterState| plan(state, "n1").sessions["Node_10_0_0_254"].exports_others.clone();
    add(&mut state, "r1", router(PeerNodes::Named("n1".into())));
    add(&mut state, "r2", router(PeerNodes::Named("n2".into())));
    assert_eq!(told(&state), ExportedOthers::Of([[10, 0, 0, 3].into()].into()));
    let of_mesh = &plan(&state, "n1").sessions["Mesh_10_0_0_3"];
    assert_eq!(of_mesh.exports_others, ExportedOthers::None);
    let mut reflecting = state.clone();
    reflector(&mut reflecting, "n1", "244.0.0.1");
    assert_eq!(told(&reflecting), told(&state));
    // A router of the same AS is no way out, and one of another family none for this one.
    let same = BgpPeer { as_number: Some(64512), ..router(PeerNodes::Named("n3".into())) };
    let six = BgpPeer { target: address("fd00::1", None), ..router(PeerNodes::Named("n3".into())) };
    for other in [same, six] {
        add(&mut state, "r3", other);
        assert_eq!(told(&state), ExportedOthers::Of([[10, 0, 0, 3].into()].into()));
    }
    add(&mut state, "r3", router(PeerNodes::Named("n3".into())));
    assert_eq!(told(&state), ExportedOthers::None);
    let re_exports = true;
    configure(&mut state, "default", BgpConfiguration { re_exports, ..Default::default() });
    assert_eq!(told(&state), ExportedOthers::All);
}

#[test]
fn pools_are_divided_by_who_makes_their_routes() {
    let mut state = nodes(&["10.0.0.1"]);
    pool(&mut state, "plain", "10.1.0.0/16", Never);
    pool(&mut state, "ipip", "10.2.0.0/16", EncapsulationMode::CrossSubnet);
    pool(&mut state, "vxlan", "10.3.0.0/16", Never);
    let vxlan = state.pools.get_mut("vxlan").unwrap();
    vxlan.tunnel = Some(PoolTunnel { kind: TunnelKind::Vxlan, cross_subnet: false });
    vxlan.is_exported = false;
    let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let divided = plan(&state, "n1");
    assert_eq!(divided.pools, ranges(&["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"]));
    assert_eq!(divided.of_agent, ranges(&["10.2.0.0/16", "10.3.0.0/16"]));
    assert_eq!(divided.not_exported, ranges(&["10.3.0.0/16"]));
    let leaves_cluster_routes = true;
    let configuration = BgpConfiguration { leaves_cluster_routes, ..Default::default() };
    configure(&mut state, "default", configuration);
    let divided = plan(&state, "n1");
    assert_eq!(divided.of_agent, divided.pools);
}

#[test]
fn a_nodes_configuration_counts_before_the_clusters() {
    let mut state = nodes(&["10.0.0.1", "10.0.0.2"]);
    let advertisement = |cidr: &str| PrefixAdvertisement {
        cidr: cidr.parse().unwrap(),
        communities: vec!["64512:1".parse().unwrap()],
    };
    let cluster = BgpConfiguration {
        as_number: Some(65001),
        log_severity: Some(LogSeverity::Warning),
        binds_to_node_address: Some(true),
        ignored_interfaces: vec!["docker0".into()],
        prefix_advertisements: vec![advertisement("10.1.0.0/16")],
        ..Default::default()
    };
    let own = BgpConfiguration {
        as_number: Some(65002),
        node_to_node_mesh: Some(false),
        log_severity: Some(LogSeverity::Debug),
        prefix_advertisements: vec![advertisement("10.2.0.0/16")],
        ..Default::default()
    };
    configure(&mut state, "default", cluster);
    configure(&mut state, "node.n1", own);
    let [n1, n2] = ["n1", "n2"].map(|node| plan(&state, node));
    assert_eq!((n1.as_number, n1.sessions.len()), (65001, 1), "these are the cluster's alone");
    assert_eq!([n1.log_severity, n2.log_severity], [LogSeverity::Debug, LogSeverity::Warning]);
    assert_eq!(n1.prefix_advertisements, [advertisement("10.2.0.0/16")]);
    assert_eq!(n2.prefix_advertisements, [advertisement("10.1.0.0/16")]);
    assert_eq!((n1.listen_addresses.len(), n1.ignored_interfaces.len()), (1, 1));
    assert_eq!(plan(&nodes(&["10.0.0.1"]), "n1").listen_addresses.len(), 0);
}

#[test]
fn a_node_without_an_ipv4_address_has_a_router_id_of_its_name() {
    let mut state = nodes(&["10.0.0.1", "10.0.0.2"]);
    assert_eq!(plan(&state, "n1").router_id, Ipv4Addr::new(10, 0, 0, 1));
    node(&mut state, "n1").ipv4 = None;
    let of = |name: &str| plan(&state, name).router_id;
    assert_eq!(of("n1"), of("n1"));
    for number in 0..1000 {
        let id = of(&format!("m{number}"));
        assert!((1..=223).contains(&id.octets()[0]), "{id}");
        assert_ne!(id, of(&format!("m{}", number + 1)));
    }
}

#[test]
fn a_large_mesh_that_is_in_use_is_reported() {
    let addresses: Vec<String> = (1..=101).map(|number| format!("10.0.{number}.1")).collect();
    let mut state = nodes(&addresses.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(problems(&state, "n1").is_empty(), "nothing is started for it");
    pool(&mut state, "plain", "10.244.0.0/16", Never);
    assert!(problems(&state, "n1")[0].starts_with("the mesh has 101 nodes"));
    state.nodes.remove("n100");
    assert!(problems(&state, "n1").is_empty());
}
