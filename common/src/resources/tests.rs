//! Tests of the resources as a whole: against what Calico stored, and with
//! random input.

use proptest::prelude::*;
use serde_json::Value;

use super::bgp::{BgpConfiguration, BgpFilter, BgpPeer, CalicoNodeStatus};
use super::selector::{Expression, Operator};
use super::*;
use crate::tunnel::TunnelKind;

/// A file of the tree, by its path from there.
macro_rules! in_tree {
    ($path:literal) => {
        include_str!(concat!("../../../", $path))
    };
}

/// The recorded stores, and those written by hand.
const STORES: [(&str, &str); 5] = [
    ("small", in_tree!("tests/fixtures/calico-3.31/small/store.jsonl")),
    ("seed", in_tree!("tests/fixtures/calico-3.31/seed/store.jsonl")),
    ("busy", in_tree!("tests/fixtures/calico-3.31/busy/store.jsonl")),
    ("vxlan-small", in_tree!("tests/fixtures/by-hand/vxlan-small/store.jsonl")),
    ("vxlan", in_tree!("tests/fixtures/by-hand/vxlan/store.jsonl")),
];

/// The resources that Calico stored, with kind and value.
fn stored_resources(store: &str) -> Vec<(Kind, String, String)> {
    let entries = store.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    entries
        .filter_map(|entry| {
            let (key, value) = (entry["key"].as_str()?, entry["value"].as_str()?);
            let of_kind = |kind: &Kind| kind.name_of(key).map(|name| (*kind, name.to_owned()));
            let (kind, name) = Kind::ALL.iter().find_map(of_kind)?;
            Some((kind, name, value.to_owned()))
        })
        .collect()
}

#[test]
fn what_calico_stored_is_read_and_written_back_unchanged() {
    let mut count = 0;
    for (case, store) in STORES {
        for (kind, name, value) in stored_resources(store) {
            let resource = Resource::from_stored(kind, value.as_bytes()).unwrap();
            resource.check().unwrap();
            assert_eq!(resource.name(), name);
            let before = Some(value.as_bytes());
            let written = resource.to_stored(before).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), value, "{case} {kind} {name}");
            let rewritten = resource.clone().replacing(&resource).to_stored(before).unwrap();
            assert_eq!(String::from_utf8(rewritten).unwrap(), value, "{case} {kind} {name}");
            count += 1;
        }
    }
    assert_eq!(count, 4 + 9 + 13 + 5 + 12, "resources in the stores");
}

#[test]
fn what_calico_stored_is_understood() {
    for (_, store) in STORES {
        for (kind, name, value) in stored_resources(store) {
            let value = value.as_bytes();
            match kind {
                Kind::IpPool => assert_eq!(IpPool::from_json(value).unwrap().name, name),
                Kind::Node => assert!(Node::from_json(value).unwrap().ipv4_address.is_some()),
                Kind::IpReservation => {
                    assert_eq!(IpReservation::from_json(value).unwrap().reserved_cidrs.len(), 3);
                }
                Kind::IpamConfig => {
                    let config = IpamConfig::from_json(value).unwrap();
                    assert!(config.auto_allocate_blocks && !config.strict_affinity);
                }
                Kind::FelixConfiguration => {
                    let settings = FelixConfiguration::from_json(value).unwrap();
                    let has_mtu = settings.numbers.contains_key("vxlanMTU");
                    assert_eq!(has_mtu, store.contains("vxlanMTU"));
                }
                Kind::BgpConfiguration
                | Kind::BgpPeer
                | Kind::BgpFilter
                | Kind::CalicoNodeStatus => unreachable!("none is in these stores"),
            }
        }
    }
}

/// As Calico's structures order and spell all fields that its documentation has examples of.
#[test]
fn bgps_resources_are_written_back_unchanged() {
    for value in [
        r#"{"kind":"BGPConfiguration","apiVersion":"projectcalico.org/v3","metadata":{"name":"default","uid":"u","creationTimestamp":"2026-11-28T02:00:00Z"},"spec":{"logSeverityScreen":"Info","nodeToNodeMeshEnabled":false,"asNumber":64512,"serviceLoadBalancerIPs":[{"cidr":"10.97.0.0/16"}],"serviceExternalIPs":[{"cidr":"10.98.0.0/16"}],"serviceClusterIPs":[{"cidr":"10.96.0.0/16"}],"serviceLoadBalancerAggregation":"Enabled","communities":[{"name":"wan","value":"64512:120"}],"prefixAdvertisements":[{"cidr":"10.244.0.0/16","communities":["wan","64512:1:2"]}],"listenPort":179,"bindMode":"NodeIP","ignoredInterfaces":["docker0"],"programClusterRoutes":"EnabledNoEncapOnly","ipv4NormalRoutePriority":1024,"future":1}}"#,
        r#"{"kind":"BGPPeer","apiVersion":"projectcalico.org/v3","metadata":{"name":"tor","uid":"u","creationTimestamp":"2026-11-28T02:00:00Z"},"spec":{"nodeSelector":"rack == 'r1'","peerIP":"10.0.1.1:1790","asNumber":"1.10","localASNumber":64600,"password":{"secretKeyRef":{"name":"bgp","key":"tor","future":1}},"sourceAddress":"UseNodeIP","maxRestartTime":"1m0s","keepaliveTime":"10s","numAllowedLocalASNumbers":0,"ttlSecurity":1,"reachableBy":"10.0.1.254","filters":["only-pools"],"reversePeering":"Auto","nextHopMode":"Auto"}}"#,
        r#"{"kind":"BGPFilter","apiVersion":"projectcalico.org/v3","metadata":{"name":"only-pools","uid":"u","creationTimestamp":"2026-11-28T02:00:00Z"},"spec":{"exportV4":[{"cidr":"10.244.0.0/16","prefixLength":{"min":0,"max":28},"source":"RemotePeers","interface":"eth*","matchOperator":"In","peerType":"eBGP","communities":{"values":["65000:100"]},"asPathPrefix":[65000],"priority":512,"action":"Accept","operations":[{"addCommunity":{"value":"65000:200"}},{"prependASPath":{"prefix":[65001,65002]}},{"setPriority":{"value":256}}],"future":1},{"action":"Reject"}]},"future":1}"#,
        r#"{"kind":"CalicoNodeStatus","apiVersion":"projectcalico.org/v3","metadata":{"name":"n1","uid":"u","creationTimestamp":"2026-11-28T02:00:00Z"},"spec":{"node":"n1","classes":["Agent","BGP","Routes"],"updatePeriodSeconds":0},"status":{"lastUpdated":"2026-11-28T02:30:00Z","agent":{"birdV4":{"state":"Ready","version":"2.0.12","routerID":"10.0.1.11"},"birdV6":{}},"bgp":{"numberEstablishedV4":2,"numberNotEstablishedV4":0,"numberEstablishedV6":0,"numberNotEstablishedV6":0,"peersV4":[{"peerIP":"10.0.1.12","type":"NodeMesh","state":"Established","since":"2026-11-28"}]},"routes":{"routesV4":[{"type":"FIB","destination":"10.244.2.0/26","gateway":"10.0.1.12","interface":"eth0","learnedFrom":{"sourceType":"NodeMesh","peerIP":"10.0.1.12"}}]},"future":1}}"#,
    ] {
        assert_written_back_unchanged(value);
    }
}

fn assert_written_back_unchanged(value: &str) {
    let parsed: Value = serde_json::from_str(value).unwrap();
    let kind = Kind::from_name(parsed["kind"].as_str().unwrap()).unwrap();
    let resource = Resource::from_stored(kind, value.as_bytes()).unwrap();
    resource.check().unwrap();
    let written = resource.clone().replacing(&resource).to_stored(None).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), value, "{kind}");
}

/// The order is that of Calico's structure; `bpfLogLevel` is always written, and what a pointer
/// is in it also where it is false, 0 or empty.
#[test]
fn felix_settings_are_written_back_unchanged() {
    assert_written_back_unchanged(
        r#"{"kind":"FelixConfiguration","apiVersion":"projectcalico.org/v3","metadata":{"name":"default","uid":"u","creationTimestamp":"2026-11-28T02:00:00Z"},"spec":{"ipv6Support":false,"routeRefreshInterval":"1m30s","interfacePrefix":"cali","logSeverityScreen":"Info","ipipEnabled":false,"ipipMTU":0,"vxlanEnabled":true,"vxlanMTU":1450,"vxlanMTUV6":0,"vxlanPort":4789,"vxlanVNI":4096,"reportingInterval":"0s","iptablesMarkMask":4294901760,"healthTimeoutOverrides":[{"name":"calc","timeout":"1m0s"}],"failsafeInboundHostPorts":[{"protocol":"tcp","port":22,"net":"0.0.0.0/0"}],"failsafeOutboundHostPorts":[],"kubeNodePortRanges":["30000:32767",80],"natPortRange":"32768:65535","externalNodesList":[],"bpfLogLevel":"","bpfConntrackTimeouts":{"tcpEstablished":"Auto"},"bpfLogFilters":{"all":"tcp"},"bpfConnectTimeLoadBalancing":"TCP","bpfHostNetworkedNATWithoutCTLB":"Enabled","routeTableRanges":[{"min":0,"max":250}],"wireguardEnabled":false,"mtuIfacePattern":"^eth.*","floatingIPs":"Disabled","future":{"a":0}}}"#,
    );
}

#[test]
fn the_example_pools_are_valid() {
    let expected = [
        (in_tree!("conf/pools/ipPool-bgp.yaml"), "192.168.0.0/16", EncapsulationMode::Never, true),
        (
            in_tree!("conf/pools/ipPool-ipip-always.yaml"),
            "10.254.0.0/24",
            EncapsulationMode::Always,
            false,
        ),
        (
            in_tree!("conf/pools/ipPool-ipip-cross-subnet.yaml"),
            "10.254.0.0/24",
            EncapsulationMode::CrossSubnet,
            true,
        ),
        (
            in_tree!("conf/pools/ippool-v3.yaml"),
            "10.7.0.0/16",
            EncapsulationMode::CrossSubnet,
            true,
        ),
    ];
    for (text, cidr, mode, nat) in expected {
        let resources = document::read(text).unwrap();
        let pool = resources[0].pool().unwrap();
        assert_eq!(pool.cidr.to_string(), cidr, "{text}");
        assert_eq!((pool.mode(TunnelKind::Ipip), pool.nat_outgoing), (mode, nat), "{text}");
        assert!(resources.iter().all(|resource| resource.check().is_ok()), "{text}");
    }
}

fn key() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9_./-]{1,12}"
}

fn label_value() -> impl Strategy<Value = String> {
    "[^']{0,8}"
}

fn expression() -> impl Strategy<Value = Expression> {
    let operator = prop_oneof![
        Just(Operator::Equal),
        Just(Operator::NotEqual),
        Just(Operator::Contains),
        Just(Operator::StartsWith),
        Just(Operator::EndsWith),
    ];
    let values = || prop::collection::vec(label_value(), 0..4);
    let leaf =
        prop_oneof![
            Just(Expression::All),
            Just(Expression::Global),
            key().prop_map(Expression::Has),
            (key(), operator, label_value())
                .prop_map(|(key, operator, value)| Expression::Compare { key, operator, value }),
            (key(), values()).prop_map(|(key, values)| Expression::In { key, values }),
            (key(), values()).prop_map(|(key, values)| Expression::NotIn { key, values }),
        ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| Expression::Not(Box::new(inner))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expression::And),
            prop::collection::vec(inner, 2..4).prop_map(Expression::Or),
        ]
    })
}

/// Any JSON, with many of the names that resources have.
fn json() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("metadata".to_owned()),
        Just("name".to_owned()),
        Just("spec".to_owned()),
        Just("cidr".to_owned()),
        Just("blockSize".to_owned()),
        Just("ipipMode".to_owned()),
        Just("nodeSelector".to_owned()),
        Just("allowedUses".to_owned()),
        Just("bgp".to_owned()),
        Just("asNumber".to_owned()),
        Just("ipv4Address".to_owned()),
        Just("reservedCIDRs".to_owned()),
        Just("vxlanMTU".to_owned()),
        Just("externalNodesList".to_owned()),
        "[a-z]{0,3}",
    ];
    let text = prop_oneof![
        ".{0,10}",
        "[0-9.:a-f]{1,10}/[0-9]{1,3}",
        Just("10.1.0.0/16".to_owned()),
        Just("::/0".to_owned()),
        Just("p".to_owned()),
        Just("default".to_owned()),
        Just("Always".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_printed_selector_reads_back_as_itself(expression in expression()) {
        let text = expression.to_string();
        let selector = Selector::parse(&text).unwrap();
        prop_assert_eq!(selector.expression(), &expression, "{}", text);
    }

    #[test]
    fn a_selector_that_parses_keeps_its_meaning_in_canonical_form(
        text in "[ab!&|()={}', in]{0,24}",
        labels in prop::collection::btree_map("[abin]{1,2}", "[ab]{0,1}", 0..4),
    ) {
        if let Ok(selector) = Selector::parse(&text) {
            let again = Selector::parse(&selector.expression().to_string()).unwrap();
            prop_assert_eq!(again.expression(), selector.expression());
            prop_assert_eq!(again.matches(&labels), selector.matches(&labels));
        }
    }

    #[test]
    fn parsing_a_selector_never_panics(text in ".{0,64}") {
        if let Err(error) = Selector::parse(&text) {
            prop_assert!(error.position <= text.chars().count());
        }
    }

    #[test]
    fn validation_never_panics(value in json()) {
        let bytes = value.to_string().into_bytes();
        let _ = (Node::from_json(&bytes), IpReservation::from_json(&bytes));
        let _ = (IpamConfig::from_json(&bytes), ClusterInformation::from_json(&bytes));
        let _ = (BgpConfiguration::from_json(&bytes), BgpPeer::from_json(&bytes));
        let _ = (BgpFilter::from_json(&bytes), CalicoNodeStatus::from_json(&bytes));
        if let Ok((felix, None)) = FelixConfiguration::for_tunnels(&bytes) {
            prop_assert_eq!(FelixConfiguration::from_json(&bytes).unwrap(), felix);
        }
        if let Ok(pool) = IpPool::from_json(&bytes) {
            prop_assert_eq!(pool.cidr, pool.cidr.trunc());
            prop_assert!(pool.disabled || pool.cidr.prefix_len() <= pool.block_size);
        }
        if let Value::Object(object) = value {
            let birth = Birth { uid: "u".into(), timestamp: "t".into() };
            for kind in Kind::ALL {
                let resource = Resource::new(kind, object.clone());
                let _ = (resource.check(), resource.clone().created(birth.clone()).to_stored(None));
                let _ = resource.clone().replacing(&resource);
            }
        }
    }

    #[test]
    fn reading_documents_never_panics(text in "([-a-z:{}\\[\\] '\"0-9&*!|\n]|kind: IPPool\n){0,40}") {
        let _ = document::read(&text);
    }

    #[test]
    fn a_merge_patch_applied_twice_does_no_more_than_once(before in json(), part in json()) {
        let Value::Object(object) = before else { return Ok(()) };
        let text = part.to_string();
        for form in [PatchType::Strategic, PatchType::Merge, PatchType::Json] {
            let Ok(patch) = Patch::parse(&text, form) else { continue };
            for kind in Kind::ALL {
                let resource = Resource::new(kind, object.clone());
                if let Ok(once) = patch.apply(&resource) {
                    prop_assert_eq!(once.name(), resource.name());
                    prop_assert_eq!(patch.apply(&once).unwrap(), once);
                }
            }
        }
    }

    #[test]
    fn storing_what_was_stored_changes_nothing(
        base in any::<u32>(),
        length in 8_u8..=26,
        size in 26_u8..=32,
        flags in any::<[bool; 3]>(),
        mode in prop_oneof![Just("Never"), Just("Always"), Just("CrossSubnet")],
    ) {
        let cidr = ipnet::Ipv4Net::new(base.into(), length).unwrap().trunc();
        let text = serde_json::json!({
            "apiVersion": API_VERSION, "kind": "IPPool", "metadata": {"name": "p"},
            "spec": {"cidr": cidr.to_string(), "blockSize": size, "ipipMode": mode,
                "natOutgoing": flags[0], "disabled": flags[1], "disableBGPExport": flags[2]},
        });
        let written = document::read(&text.to_string()).unwrap().remove(0);
        prop_assume!(written.check().is_ok());
        let birth = Birth { uid: "u".into(), timestamp: "t".into() };
        let stored = written.clone().created(birth).to_stored(None).unwrap();
        let read = Resource::from_stored(Kind::IpPool, &stored).unwrap();
        prop_assert_eq!(read.to_stored(Some(&stored)).unwrap(), stored.clone());
        prop_assert_eq!(read.pool().unwrap(), written.pool().unwrap());
        prop_assert_eq!(IpPool::from_json(&stored).unwrap(), written.pool().unwrap());
    }

    #[test]
    fn a_v1_pool_means_the_same_in_v3(
        base in any::<u32>(),
        length in 8_u8..=26,
        enabled in any::<bool>(),
        mode in prop_oneof![Just(""), Just("always"), Just("cross-subnet")],
        nat in any::<bool>(),
        disabled in any::<bool>(),
    ) {
        let cidr = ipnet::Ipv4Net::new(base.into(), length).unwrap().trunc();
        let text = format!(
            "apiVersion: v1\nkind: ipPool\nmetadata:\n  cidr: {cidr}\nspec:\n  \
             ipip:\n    enabled: {enabled}\n    mode: '{mode}'\n  nat-outgoing: {nat}\n  \
             disabled: {disabled}\n"
        );
        let resource = document::read(&text).unwrap().remove(0);
        if let Ok(pool) = resource.pool() {
            let expected = match (enabled, mode) {
                (false, _) => EncapsulationMode::Never,
                (true, "cross-subnet") => EncapsulationMode::CrossSubnet,
                (true, _) => EncapsulationMode::Always,
            };
            prop_assert_eq!(pool.mode(TunnelKind::Ipip), expected);
            prop_assert_eq!((pool.nat_outgoing, pool.disabled), (nat, disabled));
            prop_assert_eq!(pool.cidr, ipnet::IpNet::V4(cidr));
            prop_assert_eq!(&pool.name, &pool_name(&cidr.to_string()));
        } else {
            let link_local = "169.254.0.0/16".parse::<ipnet::Ipv4Net>().unwrap();
            prop_assert!(cidr.contains(&link_local) || link_local.contains(&cidr));
        }
    }
}
