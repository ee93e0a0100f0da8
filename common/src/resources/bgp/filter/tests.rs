use serde_json::json;

use super::*;

fn read(key: &str, rule: &Value) -> Result<BgpFilter, Error> {
    let value = json!({"metadata": {"name": "f"}, "spec": {key: [rule]}});
    BgpFilter::from_json(value.to_string().as_bytes())
}

#[test]
fn all_fields_are_read() {
    let rule = json!({
        "cidr": "10.244.0.1/16", "matchOperator": "In", "prefixLength": {"min": 24, "max": 28},
        "source": "RemotePeers", "interface": "eth*", "peerType": "eBGP",
        "communities": {"values": ["65000:100"]}, "asPathPrefix": [65000, "1.10"],
        "priority": 512, "action": "Accept", "later": 1,
        "operations": [
            {"addCommunity": {"value": "65000:200"}},
            {"prependASPath": {"prefix": [65001, "65002"]}},
            {"setPriority": {"value": 256}}
        ]
    });
    let expected = FilterRule {
        prefix: Some(PrefixMatch {
            cidr: "10.244.0.0/16".parse().unwrap(),
            operator: PrefixOperator::In,
            length: Some((24, 28)),
        }),
        is_from_peers: true,
        interface: Some("eth*".into()),
        peer_type: Some(PeerType::External),
        communities: vec![Community::Standard(65000, 100)],
        as_path_prefix: vec![65000, 65546],
        priority: Some(512),
        action: FilterAction::Accept,
        operations: vec![
            FilterOperation::AddCommunity(Community::Standard(65000, 200)),
            FilterOperation::PrependAsPath(vec![65001, 65002]),
            FilterOperation::SetPriority(256),
        ],
    };
    let filter = read("exportV4", &rule).unwrap();
    assert_eq!(filter, BgpFilter { export_v4: vec![expected], ..BgpFilter::default() });
    let everything = read("importV6", &json!({"action": "Reject"})).unwrap().import_v6;
    assert_eq!((everything.len(), everything[0].action), (1, FilterAction::Reject));
    assert_eq!(everything[0].prefix, None);
}

#[test]
fn lengths_have_the_ranges_own_for_defaults() {
    for (key, cidr, length, expected) in [
        ("exportV4", "10.0.0.0/8", json!({"max": 24}), (8, 24)),
        ("importV4", "10.0.0.0/8", json!({"min": 16}), (16, 32)),
        ("importV4", "10.0.0.0/8", json!({"min": 0}), (8, 32)),
        ("exportV6", "fd00::/8", json!({}), (8, 128)),
    ] {
        let rule = json!({"cidr": cidr, "matchOperator": "NotIn", "prefixLength": length,
            "action": "Accept"});
        let BgpFilter { export_v4, import_v4, export_v6, .. } = read(key, &rule).unwrap();
        let rule = export_v4.into_iter().chain(import_v4).chain(export_v6).next().unwrap();
        assert_eq!(rule.prefix.unwrap().length, Some(expected), "{length}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let of_range = |field: &str, value: Value| json!({"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In", field: value});
    let with = |field: &str, value: Value| json!({"action": "Accept", field: value});
    let done = |operation: Value| json!({"action": "Accept", "operations": [operation]});
    let cases = [
        (json!({}), "Action"),
        (json!({"action": "Allow"}), "Action"),
        (with("cidr", json!("10.0.0.0/8")), "MatchOperator"),
        (with("matchOperator", json!("In")), "CIDR"),
        (of_range("matchOperator", json!("in")), "MatchOperator"),
        (of_range("cidr", json!("fd00::/8")), "CIDR"),
        (of_range("cidr", json!("10.0.0.0/33")), "CIDR"),
        (with("prefixLength", json!({"min": 8})), "PrefixLength"),
        (of_range("prefixLength", json!({"min": 33})), "PrefixLength.Min"),
        (of_range("prefixLength", json!({"max": -1})), "PrefixLength.Max"),
        (of_range("prefixLength", json!({"max": 7})), "PrefixLength"),
        (of_range("prefixLength", json!({"min": 25, "max": 24})), "PrefixLength"),
        (
            json!({"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "Equal",
                "prefixLength": {"min": 8}}),
            "PrefixLength",
        ),
        (with("source", json!("Peers")), "Source"),
        (with("interface", json!("eth0\"; }")), "Interface"),
        (with("interface", json!("eth0\n")), "Interface"),
        (with("peerType", json!("EBGP")), "PeerType"),
        (with("communities", json!({"values": []})), "Communities.Values"),
        (with("communities", json!({"values": ["x"]})), "Communities.Values"),
        (with("communities", json!({"values": "1:2"})), "Communities.Values"),
        (with("asPathPrefix", json!([0])), "ASPathPrefix"),
        (with("asPathPrefix", json!(5)), "ASPathPrefix"),
        (with("priority", json!(0)), "Priority"),
        (with("priority", json!(2_147_483_647)), "Priority"),
        (json!({"action": "Reject", "operations": [{"setPriority": {"value": 5}}]}), "Operations"),
        (with("operations", json!(vec![json!({"setPriority": {"value": 5}}); 11])), "Operations"),
        (done(json!({})), "Operations[0]"),
        (
            done(json!({"setPriority": {"value": 5}, "addCommunity": {"value": "1:2"}})),
            "Operations[0]",
        ),
        (done(json!({"setPriority": {}})), "Operations[0].SetPriority.Value"),
        (done(json!({"setPriority": {"value": 0}})), "Operations[0].SetPriority.Value"),
        (done(json!({"addCommunity": {}})), "Operations[0].AddCommunity.Value"),
        (done(json!({"prependASPath": {"prefix": []}})), "Operations[0].PrependASPath.Prefix"),
        (done(json!({"prependASPath": {"prefix": ["a"]}})), "Operations[0].PrependASPath.Prefix"),
    ];
    for (rule, field) in cases {
        let error = read("exportV4", &rule).unwrap_err().to_string();
        let expected = format!("BGPFilter.Spec.ExportV4[0].{field} ");
        assert!(error.contains(&expected), "{rule}: {error}");
    }
}
