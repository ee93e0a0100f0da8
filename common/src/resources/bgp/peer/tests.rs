use super::*;
use serde_json::json;

fn read(spec: &Value) -> Result<BgpPeer, Error> {
    let value = json!({"metadata": {"name": "tor", "annotations": {"weir/bfd": "300ms*3"}},
        "spec": spec});
    BgpPeer::from_json(value.to_string().as_bytes())
}

fn selector(text: &str) -> Selector {
    Selector::parse(text).unwrap()
}

#[test]
fn all_fields_are_read() {
    let spec = json!({
        "nodeSelector": "rack == 'r1'", "peerIP": "10.0.1.1:1790", "asNumber": 65000,
        "localASNumber": "64600", "password": {"secretKeyRef": {"name": "bgp", "key": "tor"}},
        "sourceAddress": "None", "keepOriginalNextHop": false, "nextHopMode": "Self",
        "maxRestartTime": "1m0s", "keepaliveTime": "10s", "numAllowedLocalASNumbers": 1,
        "ttlSecurity": 1, "reachableBy": "10.0.1.254", "filters": ["only-pools"],
        "reversePeering": "Manual", "later": {}
    });
    let target = PeerTarget::Address { address: "10.0.1.1".parse().unwrap(), port: Some(1790) };
    let expected = BgpPeer {
        nodes: PeerNodes::Selected(selector("rack == 'r1'")),
        target,
        as_number: Some(65000),
        local_as_number: Some(64600),
        password: Some(SecretReference { name: "bgp".into(), key: "tor".into() }),
        from_node_address: false,
        next_hop: NextHopMode::Itself,
        restart_time: Some(60),
        keepalive_time: Some(10),
        allowed_own_as: Some(1),
        ttl_security: Some(1),
        reachable_by: Some("10.0.1.254".parse().unwrap()),
        filters: vec!["only-pools".into()],
        is_reversed: false,
        bfd: Some(Bfd { interval: 300, multiplier: 3 }),
    };
    assert_eq!(read(&spec).unwrap(), expected);
}

#[test]
fn peers_are_addresses_nodes_or_workloads() {
    let address = |text: &str, port| PeerTarget::Address { address: text.parse().unwrap(), port };
    let cases = [
        (json!({"peerIP": "10.0.0.1"}), address("10.0.0.1", None), true),
        (json!({"peerIP": "fd00::1", "peerSelector": ""}), address("fd00::1", None), true),
        (json!({"peerIP": "[fd00::1]:179"}), address("fd00::1", Some(179)), true),
        (json!({"peerSelector": "has(rr)"}), PeerTarget::Nodes(selector("has(rr)")), true),
        (json!({"localWorkloadSelector": "a == 'b'", "asNumber": 1}), PeerTarget::Workloads, false),
    ];
    for (spec, target, is_reversed) in cases {
        let peer = read(&spec).unwrap();
        assert_eq!((peer.target, peer.is_reversed), (target, is_reversed), "{spec}");
        assert_eq!((peer.nodes, peer.from_node_address), (PeerNodes::All, true));
    }
    let of_a_node = json!({"node": "n1", "nodeSelector": "", "peerIP": "10.0.0.1"});
    assert_eq!(read(&of_a_node).unwrap().nodes, PeerNodes::Named("n1".into()));
}

#[test]
fn next_hops_have_two_spellings() {
    for (field, value, expected) in [
        ("keepOriginalNextHop", json!(true), NextHopMode::KeepExternal),
        ("keepOriginalNextHop", json!(false), NextHopMode::Auto),
        ("nextHopMode", json!("Keep"), NextHopMode::Keep),
        ("nextHopMode", json!("Auto"), NextHopMode::Auto),
    ] {
        let peer = read(&json!({"peerIP": "10.0.0.1", field: value})).unwrap();
        assert_eq!(peer.next_hop, expected, "{field}: {value}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let with = |field: &str, value: Value| json!({"peerIP": "10.0.0.1", field: value});
    let cases = [
        (json!({"peerIP": "10.0.0.1", "node": "n1", "nodeSelector": "all()"}), "Node"),
        (json!({"peerIP": "10.0.0.1", "node": "n1", "nodeSelector": "("}), "Node"),
        (json!({"peerIP": "10.0.0.1", "peerSelector": "all()"}), "PeerIP"),
        (json!({"peerIP": "nonsense", "peerSelector": "all()"}), "PeerIP"),
        (json!({"peerSelector": "all()", "asNumber": 1}), "ASNumber"),
        (json!({"localWorkloadSelector": "all()"}), "ASNumber"),
        (
            json!({"localWorkloadSelector": "all()", "asNumber": 1, "peerIP": "10.0.0.1"}),
            "LocalWorkloadSelector",
        ),
        (
            json!({"localWorkloadSelector": "all()", "asNumber": 1, "peerSelector": "all()"}),
            "LocalWorkloadSelector",
        ),
        (json!({}), "PeerIP"),
        (with("peerIP", json!("10.0.0.1:0")), "PeerIP"),
        (with("peerIP", json!("10.0.0.1:65536")), "PeerIP"),
        (with("peerIP", json!("010.0.0.1")), "PeerIP"),
        (with("peerIP", json!("[fd00::1%2]:179")), "PeerIP"),
        (with("peerIP", json!("0.0.0.0")), "PeerIP"),
        (with("peerIP", json!("224.0.0.1")), "PeerIP"),
        (with("peerIP", json!("fe80::1")), "PeerIP"),
        (with("peerIP", json!("::ffff:10.0.0.1")), "PeerIP"),
        (with("peerIP", json!(5)), "PeerIP"),
        (with("nodeSelector", json!("a ==")), "NodeSelector"),
        (with("asNumber", json!(-1)), "ASNumber"),
        (with("localASNumber", json!(0)), "LocalASNumber"),
        (with("password", json!({})), "Password.SecretKeyRef.Name"),
        (with("sourceAddress", json!("10.0.0.5")), "SourceAddress"),
        (with("nextHopMode", json!("self")), "NextHopMode"),
        (
            json!({"peerIP": "10.0.0.1", "keepOriginalNextHop": true, "nextHopMode": "Auto"}),
            "KeepOriginalNextHop",
        ),
        (with("maxRestartTime", json!("0s")), "MaxRestartTime"),
        (with("keepaliveTime", json!("6h5m")), "KeepaliveTime"),
        (with("numAllowedLocalASNumbers", json!(256)), "NumAllowedLocalASNumbers"),
        (with("ttlSecurity", json!(0)), "TTLSecurity"),
        (with("reachableBy", json!("fd00::1")), "ReachableBy"),
        (with("reachableBy", json!("10.0.0.1/32")), "ReachableBy"),
        (json!({"peerSelector": "all()", "reachableBy": "10.0.0.1"}), "ReachableBy"),
        (with("filters", json!(["a b"])), "Filters"),
        (with("filters", json!([{"action": "Accept"}])), "Filters"),
        (with("reversePeering", json!("Off")), "ReversePeering"),
    ];
    for (spec, field) in cases {
        let error = read(&spec).expect_err(&spec.to_string()).to_string();
        assert!(error.contains(&format!("BGPPeer.Spec.{field} ")), "{spec}: {error}");
    }
}
