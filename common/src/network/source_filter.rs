//! The filter of what containers send, as data.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::{Value, json};

use super::attachment::AttachmentState;
use super::nft::{NftTable, chain, matches, rule};

/// The name of the table's chain, and of its hook.
const CHAIN: &str = "prerouting";

/// Before connections are tracked (`NF_IP_PRI_RAW`, `linux/netfilter_ipv4.h`): what is
/// dropped costs no entry, and an address that is translated later is seen as it came.
const PRIORITY: i32 = -300;

/// The group of the host ends whose containers may send from any address
/// (`source_check: off`); "free" in ASCII. `ip link show group` lists them.
pub const UNCHECKED_GROUP: u32 = u32::from_be_bytes(*b"free");

/// The addresses of a container that come in by another of its host ends, as (host end,
/// address).
pub type OtherSources = BTreeSet<(String, IpAddr)>;

/// The table that keeps containers from sending as somebody else:
///
/// - Nothing from a container goes to the node's loopback, whatever another program
///   (portmap) lets the host end route there.
/// - A packet whose source the node does not route back to the same host end is dropped,
///   unless it is an address of another interface of the same container. The kernel lets
///   ::, fe80::/10 and 0.0.0.0 through where they belong (duplicate address detection,
///   neighbour discovery, DHCP: `nft_fib_ipv4.c`, `nft_fib_ipv6.c`).
///
/// Its size does not depend on how many containers there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFilter;

impl NftTable for SourceFilter {
    const NAME: &'static str = "weir-sources";
    const REASON: &'static str = "containers must not send with the addresses of others";
    const ALTERNATIVE: &'static str = "set source_check to \"off\" in the network configuration";

    fn retired() -> Option<Self> {
        None
    }

    fn rules(&self) -> usize {
        4
    }

    fn contents(&self, comment: &str) -> Vec<Value> {
        let from_host_end = || matches(meta("iifname"), "==", json!("weir*"));
        let loopback = json!({ "prefix": { "addr": "127.0.0.0", "len": 8 } });
        let back = json!({ "fib": { "result": "oif", "flags": ["saddr", "iif"] } });
        let filter = |expression| rule(Self::NAME, CHAIN, comment, expression);
        let other = |protocol: &str, suffix: &str| {
            let source = json!({ "concat": [meta("iifname"), payload(protocol, "saddr")] });
            let known = matches(source, "==", json!(format!("@{}", set_name(suffix))));
            filter(vec![known, json!({ "accept": null })])
        };
        vec![
            set("v4", "ipv4_addr"),
            set("v6", "ipv6_addr"),
            chain(Self::NAME, CHAIN, "filter", PRIORITY),
            json!({ "flush": { "chain": {
                "family": "inet", "table": Self::NAME, "name": CHAIN,
            } } }),
            filter(vec![
                from_host_end(),
                matches(payload("ip", "daddr"), "==", loopback),
                json!({ "drop": null }),
            ]),
            other("ip", "v4"),
            other("ip6", "v6"),
            filter(vec![
                from_host_end(),
                matches(meta("iifgroup"), "!=", json!(UNCHECKED_GROUP)),
                matches(back, "==", json!(false)),
                json!({ "drop": null }),
            ]),
        ]
    }

    /// Installed beside what is in the sets: two calls may do it at the same moment.
    fn ruleset(&self) -> Value {
        let mut commands = vec![json!({ "add": { "table": {
            "family": "inet", "name": Self::NAME,
        } } })];
        commands.extend(self.contents(&self.fingerprint()));
        json!({ "nftables": commands })
    }
}

impl SourceFilter {
    /// The names of the table's sets.
    pub fn sets() -> [String; 2] {
        ["v4", "v6"].map(set_name)
    }

    /// The document, in nft's JSON, that makes `sources` the content of the table's sets.
    pub fn fill(sources: &OtherSources) -> Value {
        let mut commands = Vec::new();
        for (suffix, is_v4) in [("v4", true), ("v6", false)] {
            let named = json!({
                "family": "inet", "table": Self::NAME, "name": set_name(suffix),
            });
            commands.push(json!({ "flush": { "set": named } }));
            let of_family = sources.iter().filter(|(_, address)| address.is_ipv4() == is_v4);
            let elements: Vec<Value> = of_family
                .map(|(host_end, address)| json!({ "concat": [host_end, address] }))
                .collect();
            if !elements.is_empty() {
                let mut element = named;
                element["elem"] = Value::Array(elements);
                commands.push(json!({ "add": { "element": element } }));
            }
        }
        json!({ "nftables": commands })
    }
}

/// The addresses by which containers with several host ends may send from each of them:
/// those of their others.
pub fn other_sources(attachments: &[AttachmentState]) -> OtherSources {
    let mut containers: BTreeMap<&str, Vec<&AttachmentState>> = BTreeMap::new();
    for attachment in attachments {
        containers.entry(attachment.identity.container_id()).or_default().push(attachment);
    }
    let mut sources = OtherSources::new();
    for own in containers.into_values().filter(|own| own.len() > 1) {
        for (place, attachment) in own.iter().enumerate() {
            let others = own.iter().enumerate().filter(|(other, _)| *other != place);
            let addresses = others.flat_map(|(_, other)| &other.addresses);
            let host_end = attachment.identity.host_interface();
            sources.extend(addresses.map(|address| (host_end.clone(), *address)));
        }
    }
    sources
}

fn set_name(suffix: &str) -> String {
    format!("other_sources_{suffix}")
}

fn set(suffix: &str, address: &str) -> Value {
    json!({ "add": { "set": {
        "family": "inet", "table": SourceFilter::NAME, "name": set_name(suffix),
        "type": ["ifname", address],
    } } })
}

fn meta(key: &str) -> Value {
    json!({ "meta": { "key": key } })
}

fn payload(protocol: &str, field: &str) -> Value {
    json!({ "payload": { "protocol": protocol, "field": field } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::attachment::{AttachmentIdentity, Families};

    fn attachment(container: &str, interface: &str, addresses: &[&str]) -> AttachmentState {
        AttachmentState {
            identity: AttachmentIdentity::new("pods", container, interface).unwrap(),
            up: true,
            carrier: true,
            is_checked: true,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ready_for: Families::default(),
        }
    }

    #[test]
    fn only_a_container_with_several_host_ends_has_other_sources() {
        let first = attachment("c1", "eth0", &["10.0.0.1", "fd00::1"]);
        let second = attachment("c1", "net1", &["10.1.0.1"]);
        let alone = attachment("c2", "eth0", &["10.0.0.2"]);
        assert_eq!(other_sources(&[first.clone(), alone.clone()]), OtherSources::new());
        let (one, two) = (first.identity.host_interface(), second.identity.host_interface());
        let expected = [
            (one, "10.1.0.1".parse().unwrap()),
            (two.clone(), "10.0.0.1".parse().unwrap()),
            (two, "fd00::1".parse().unwrap()),
        ];
        assert_eq!(other_sources(&[first, alone, second]), OtherSources::from(expected));
    }

    #[test]
    fn every_rule_carries_the_fingerprint() {
        let text = SourceFilter.ruleset().to_string();
        assert_eq!(text.matches(&SourceFilter.fingerprint()).count(), SourceFilter.rules());
    }

    #[test]
    fn the_sets_hold_what_they_are_filled_with_and_nothing_else() {
        let empty = SourceFilter::fill(&OtherSources::new()).to_string();
        assert_eq!((empty.matches("flush").count(), empty.matches("elem").count()), (2, 0));
        let one = OtherSources::from([("weir84bd87e317f".to_owned(), "fd00::1".parse().unwrap())]);
        let text = SourceFilter::fill(&one).to_string();
        assert!(text.contains(r#"{"concat":["weir84bd87e317f","fd00::1"]}"#), "{text}");
    }
}
