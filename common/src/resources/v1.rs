//! The old form of documents (`apiVersion: v1`), turned into the present one.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::error::FieldError;
use super::fields::{Fields, Problems};
use super::kind::Kind;
use super::resource::Resource;

/// Turns a v1 pool into a v3 one (`libcalico-go/lib/upgrade/converters`): its
/// name is made of its CIDR. Values of a wrong type and an unknown IPIP mode
/// are left out and noted in the resource; whether the CIDR is a CIDR is left
/// to the validator.
pub(super) fn convert_pool(pool: &Map<String, Value>) -> Resource {
    let mut problems = Problems::default();
    let document = Fields::new(pool, "");
    let metadata = document.object("metadata", "metadata", &mut problems);
    let cidr = metadata.text("cidr", "cidr", &mut problems);
    let spec = document.object("spec", "spec", &mut problems);
    let mode = ipip_mode(&spec, &mut problems);
    let mut converted = Map::new();
    converted.insert("cidr".into(), json!(cidr));
    converted.insert("ipipMode".into(), json!(mode));
    for (old, new) in [("nat-outgoing", "natOutgoing"), ("disabled", "disabled")] {
        let flag = spec.boolean(old, old, &mut problems).unwrap_or(false);
        converted.insert(new.into(), json!(flag));
    }
    let name = cidr.map_or_else(|| "no-cidr".to_owned(), pool_name);
    let object = super::resource::document(Kind::IpPool.name(), &name, converted);
    let unconverted = problems.into_vec();
    Resource { kind: Kind::IpPool, object, is_from_v1: true, unconverted }
}

fn ipip_mode(spec: &Fields<'_>, problems: &mut Problems) -> &'static str {
    let ipip = spec.object("ipip", "ipip", problems);
    let enabled = ipip.boolean("enabled", "enabled", problems).unwrap_or(false);
    let mode = match ipip.text("mode", "mode", problems) {
        None | Some("always") => "Always",
        Some("cross-subnet") => "CrossSubnet",
        Some(other) => {
            problems.add(
                FieldError::new(ipip.path("mode"), "must be always or cross-subnet").value(other),
            );
            "Never"
        }
    };
    if enabled { mode } else { "Never" }
}

/// Turns a v1 peer into a v3 one (`libcalico-go/lib/upgrade/converters`): its name is made of
/// its scope and its address.
pub(super) fn convert_peer(peer: &Map<String, Value>) -> Resource {
    let mut problems = Problems::default();
    let document = Fields::new(peer, "");
    let metadata = document.object("metadata", "metadata", &mut problems);
    let scopes = [("global", false), ("node", true)];
    let of_a_node = metadata.word("scope", "scope", &scopes, &mut problems);
    let node = metadata.text("node", "node", &mut problems);
    let problem = match (of_a_node, node) {
        (None, _) if !metadata.is_set("scope") => Some(("scope", "must be one of global, node")),
        (Some(true), None) => Some(("node", "must be specified where the scope is node")),
        (Some(false), Some(_)) => Some(("node", "must be empty where the scope is global")),
        _ => None,
    };
    if let Some((field, reason)) = problem {
        problems.add(FieldError::new(metadata.path(field), reason));
    }
    let address = metadata.text("peerIP", "peerIP", &mut problems);
    let spec = document.object("spec", "spec", &mut problems);
    let mut converted = Map::new();
    for (key, value) in [
        ("node", node.map(Value::from)),
        ("peerIP", address.map(Value::from)),
        ("asNumber", spec.any("asNumber").cloned()),
    ] {
        converted.extend(value.map(|value| (key.to_owned(), value)));
    }
    let scope = node.unwrap_or("peer-global").to_lowercase();
    let name = format!("{scope}-{}", dashed(address.unwrap_or("no-address")));
    let object = super::resource::document(Kind::BgpPeer.name(), &name, converted);
    let unconverted = problems.into_vec();
    Resource { kind: Kind::BgpPeer, object, is_from_v1: true, unconverted }
}

/// An address or a range as a part of a name (`libcalico-go/lib/names/cidr.go`).
fn dashed(text: &str) -> String {
    let address = text.parse::<IpAddr>().map(|address| address.to_string());
    let range = || text.parse::<IpNet>().map(|range| range.to_string());
    let canonical = address.or_else(|_| range()).unwrap_or_else(|_| text.to_owned());
    canonical.to_lowercase().replace(['.', ':', '/'], "-")
}

/// The name of a pool that has none but its CIDR.
pub fn pool_name(cidr: &str) -> String {
    let name = dashed(cidr);
    if name.starts_with('-') { format!("0{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(spec: Value) -> Resource {
        let pool = json!({"metadata": {"cidr": "10.254.0.0/24"}, "spec": spec});
        convert_pool(pool.as_object().unwrap())
    }

    #[test]
    fn modes_become_v3s() {
        let cases = [
            (json!({}), "Never"),
            (json!({"ipip": {}}), "Never"),
            (json!({"ipip": {"enabled": false, "mode": "always"}}), "Never"),
            (json!({"ipip": {"enabled": true}}), "Always"),
            (json!({"ipip": {"enabled": true, "mode": ""}}), "Always"),
            (json!({"ipip": {"enabled": true, "mode": "always"}}), "Always"),
            (json!({"ipip": {"enabled": true, "mode": "cross-subnet"}}), "CrossSubnet"),
        ];
        for (spec, mode) in cases {
            let pool = convert(spec.clone());
            assert_eq!(pool.object["spec"]["ipipMode"], mode, "{spec}");
            pool.check().unwrap();
        }
        let spec = json!({"ipip": {"enabled": true, "mode": "CrossSubnet"}, "disabled": []});
        let error = convert(spec).check().unwrap_err().to_string();
        assert_eq!(
            error,
            "error with the following fields:\n\
             -  spec.ipip.mode = 'CrossSubnet' (must be always or cross-subnet)\n\
             -  spec.disabled = '[]' (must be true or false, not a list)\n"
        );
    }

    fn peer(metadata: Value) -> Resource {
        let peer = json!({"metadata": metadata, "spec": {"asNumber": "1.10"}});
        convert_peer(peer.as_object().unwrap())
    }

    #[test]
    fn peers_become_v3s() {
        let cases = [
            (json!({"scope": "global", "peerIP": "10.0.0.1"}), "peer-global-10-0-0-1"),
            (json!({"scope": "node", "node": "n1", "peerIP": "FD00:0::1"}), "n1-fd00--1"),
        ];
        for (metadata, name) in cases {
            let converted = peer(metadata.clone());
            converted.check().unwrap();
            assert_eq!(converted.name(), name);
            let spec = json!({"peerIP": metadata["peerIP"], "asNumber": "1.10"});
            let mut spec = spec.as_object().unwrap().clone();
            spec.extend(metadata.get("node").map(|node| ("node".to_owned(), node.clone())));
            assert_eq!(converted.object["spec"], Value::Object(spec));
        }
        for (metadata, problem) in [
            (json!({"peerIP": "10.0.0.1"}), "metadata.scope (must be one of global, node)"),
            (json!({"scope": "rack", "peerIP": "10.0.0.1"}), "metadata.scope = 'rack' (must be"),
            (json!({"scope": "node", "peerIP": "10.0.0.1"}), "metadata.node (must be specified"),
            (
                json!({"scope": "global", "node": "n1", "peerIP": "10.0.0.1"}),
                "metadata.node (must be empty",
            ),
            (json!({"scope": "global", "peerIP": "10.0.0"}), "BGPPeer.Spec.PeerIP = '10.0.0'"),
            (json!({"scope": "global"}), "BGPPeer.Spec.PeerIP (a peer is specified by"),
        ] {
            let error = peer(metadata.clone()).check().unwrap_err().to_string();
            assert!(error.contains(problem), "{metadata}: {error}");
        }
    }

    #[test]
    fn names_are_made_of_the_cidr() {
        assert_eq!(pool_name("10.254.0.0/24"), "10-254-0-0-24");
        assert_eq!(pool_name("FD00:7:0::/48"), "fd00-7---48");
        assert_eq!(pool_name("::/0"), "0---0");
    }
}
