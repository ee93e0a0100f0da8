use super::*;
use serde_json::{Value, json};

fn stored(spec: Value) -> Result<IpPool, Error> {
    let value = json!({"kind": "IPPool", "metadata": {"name": "p"}, "spec": spec});
    IpPool::from_json(value.to_string().as_bytes())
}

/// The fields complained about, with value and reason.
fn complaints(spec: Value) -> Vec<(String, Option<String>, String)> {
    match stored(spec.clone()) {
        Err(Error::Invalid(fields)) => {
            fields.into_iter().map(|field| (field.field, field.value, field.reason)).collect()
        }
        other => panic!("{spec}: {other:?}"),
    }
}

#[test]
fn defaults_are_calicos() {
    let pool = stored(json!({"cidr": "10.1.0.0/16"})).unwrap();
    assert_eq!(pool, IpPool::new("p", "10.1.0.0/16".parse().unwrap()));
    assert_eq!(pool.block_size, 26);
    assert_eq!(pool.node_selector.to_string(), "all()");
    let pool = stored(json!({"cidr": "fd00::/48", "blockSize": 0, "allowedUses": []})).unwrap();
    assert_eq!(pool.block_size, 122);
    assert_eq!(pool.allowed_uses, [AllowedUse::Workload, AllowedUse::Tunnel]);
}

#[test]
fn every_field_is_read() {
    let pool = stored(json!({
        "cidr": "10.1.0.0/16", "blockSize": 30, "ipipMode": "CrossSubnet", "natOutgoing": true,
        "disabled": true, "disableBGPExport": true, "nodeSelector": "has(a)",
        "namespaceSelector": "has(b)", "allowedUses": ["Tunnel"], "assignmentMode": "Manual",
        "added": "later"
    }))
    .unwrap();
    let expected = IpPool {
        block_size: 30,
        modes: [("ipipMode", EncapsulationMode::CrossSubnet)].into(),
        nat_outgoing: true,
        disabled: true,
        disable_bgp_export: true,
        node_selector: Selector::parse("has(a)").unwrap(),
        namespace_selector: Selector::parse("has(b)").unwrap(),
        allowed_uses: vec![AllowedUse::Tunnel],
        assignment_mode: AssignmentMode::Manual,
        ..IpPool::new("p", "10.1.0.0/16".parse().unwrap())
    };
    assert_eq!(pool, expected);
}

#[test]
fn each_rule_names_field_value_and_reason() {
    let cases = [
        (json!({}), "CIDR", None, "IPPool CIDR must be specified"),
        (json!({"cidr": "10.1.0.0"}), "CIDR", Some("10.1.0.0"), "must be a valid subnet"),
        (json!({"cidr": "10.1.0.1/16"}), "CIDR", Some("10.1.0.1/16"), "not strictly masked"),
        (json!({"cidr": "10.1.0.0/27"}), "CIDR", Some("10.1.0.0/27"), "too small"),
        (json!({"cidr": "169.254.1.0/24"}), "CIDR", Some("169.254.1.0/24"), "IPv4 Link Local"),
        (json!({"cidr": "128.0.0.0/1"}), "CIDR", Some("128.0.0.0/1"), "IPv4 Link Local"),
        (json!({"cidr": "fe80:1::/64"}), "CIDR", Some("fe80:1::/64"), "IPv6 Link Local"),
        (json!({"cidr": "10.0.0.0/8", "blockSize": 19}), "BlockSize", Some("19"), "20 and 32"),
        (json!({"cidr": "10.0.0.0/8", "blockSize": 33}), "BlockSize", Some("33"), "20 and 32"),
        (json!({"cidr": "10.0.0.0/8", "blockSize": 282}), "BlockSize", Some("282"), "20 and 32"),
        (json!({"cidr": "fd00::/48", "blockSize": 64}), "BlockSize", Some("64"), "116 and 128"),
        (
            json!({"cidr": "10.0.0.0/8", "ipipMode": "always"}),
            "IPIPMode",
            Some("always"),
            "Never, Always, CrossSubnet",
        ),
        (json!({"cidr": "fd00::/48", "ipipMode": "Always"}), "IPIPMode", Some("Always"), "IPv6"),
        (
            json!({"cidr": "10.0.0.0/8", "ipipMode": "Always", "vxlanMode": "CrossSubnet"}),
            "VXLANMode",
            Some("CrossSubnet"),
            "both",
        ),
        (
            json!({"cidr": "10.0.0.0/8", "nodeSelector": "zone = 'a'"}),
            "NodeSelector",
            Some("zone = 'a'"),
            "character 6",
        ),
        (
            json!({"cidr": "10.0.0.0/8", "assignmentMode": "Hand"}),
            "AssignmentMode",
            Some("Hand"),
            "Automatic, Manual",
        ),
        (
            json!({"cidr": "10.0.0.0/8", "allowedUses": ["Fun"]}),
            "AllowedUses",
            Some("Fun"),
            "unknown use: Fun",
        ),
        (
            json!({"cidr": "10.0.0.0/8", "natOutgoing": "yes"}),
            "NATOutgoing",
            Some("yes"),
            "must be true or false, not text",
        ),
        (
            json!({"cidr": "10.0.0.0/8", "allowedUses": ["LoadBalancer", "Tunnel"]}),
            "AllowedUses",
            Some("LoadBalancer,Tunnel"),
            "together",
        ),
    ];
    for (spec, field, value, reason) in cases {
        let found = complaints(spec.clone());
        assert_eq!(found.len(), 1, "{spec}: {found:?}");
        assert_eq!(found[0].0, format!("IPPool.Spec.{field}"), "{spec}");
        assert_eq!(found[0].1.as_deref(), value, "{spec}");
        assert!(found[0].2.contains(reason), "{spec}: {}", found[0].2);
    }
}

#[test]
fn everything_wrong_is_told_at_once() {
    let found = complaints(json!({"cidr": "10.1.0.1/28", "blockSize": 40, "ipipMode": "x"}));
    let fields: Vec<_> = found.iter().map(|(field, ..)| field.as_str()).collect();
    assert_eq!(
        fields,
        ["IPPool.Spec.BlockSize", "IPPool.Spec.IPIPMode", "IPPool.Spec.CIDR", "IPPool.Spec.CIDR"]
    );
}

#[test]
fn a_disabled_pool_may_be_smaller_than_a_block() {
    assert!(stored(json!({"cidr": "10.1.0.0/30", "disabled": true})).is_ok());
}

#[test]
fn a_mode_in_v1_spelling_is_answered_with_v3s() {
    let Err(error) = stored(json!({"cidr": "10.0.0.0/8", "ipipMode": "cross-subnet"})) else {
        panic!("accepted");
    };
    assert!(error.to_string().ends_with("; write CrossSubnet"), "{error}");
}

#[test]
fn values_that_are_no_pool_are_errors() {
    assert!(matches!(IpPool::from_json(b"{"), Err(Error::NotJson { .. })));
    assert!(matches!(IpPool::from_json(b"[]"), Err(Error::NotAnObject { found: "a list", .. })));
    assert!(matches!(IpPool::from_json(b"{\"spec\": 1}"), Err(Error::Invalid(_))));
}

fn pool(name: &str, cidr: &str) -> IpPool {
    IpPool::new(name, cidr.parse().unwrap())
}

#[test]
fn overlapping_pools_are_named_in_both_directions() {
    let existing = [pool("one", "10.1.2.0/24"), pool("six", "::/0"), pool("other", "10.3.0.0/16")];
    assert!(check_overlap(&pool("two", "10.2.0.0/16"), &existing).is_ok());
    assert!(check_overlap(&pool("one", "10.1.2.0/25"), &existing).is_ok());
    for cidr in ["10.1.0.0/16", "10.1.2.0/24", "10.1.2.128/26"] {
        let problems = check_overlap(&pool("two", cidr), &existing).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].value.as_deref(), Some(cidr));
        assert_eq!(
            problems[0].reason,
            "IPPool(two) CIDR overlaps with IPPool(one) CIDR 10.1.2.0/24"
        );
    }
}

#[test]
fn blocks_of_another_size_are_in_the_way() {
    let blocks = ["10.1.0.0/26", "10.2.0.0/30", "fd00::/122"].map(|block| block.parse().unwrap());
    assert!(check_blocks(&pool("p", "10.1.0.0/16"), &blocks).is_ok());
    assert!(check_blocks(&pool("p", "10.3.0.0/16"), &blocks).is_ok());
    let problems = check_blocks(&pool("p", "10.2.0.0/16"), &blocks).unwrap_err();
    assert_eq!(problems[0].field, "IPPool.Spec.BlockSize");
    assert_eq!(problems[0].value.as_deref(), Some("26"));
}

#[test]
fn cidr_and_block_size_stay_as_they_are() {
    let old = pool("p", "10.1.0.0/16");
    assert!(check_update(&old, &IpPool { nat_outgoing: true, ..old.clone() }).is_ok());
    let new = IpPool { block_size: 28, ..pool("p", "10.2.0.0/16") };
    let fields: Vec<_> =
        check_update(&old, &new).unwrap_err().into_iter().map(|field| field.field).collect();
    assert_eq!(fields, ["IPPool.Spec.CIDR", "IPPool.Spec.BlockSize"]);
}
