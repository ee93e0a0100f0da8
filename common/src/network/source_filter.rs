//! The filter of what containers send, as data.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::attachment::{AttachmentState, ContainerKey};
use super::nft::{
    NftTable, drop_packet, emptied_chain, matches, meta, of_protocol, payload, rule, ruleset_beside,
};
use crate::link::UNCHECKED_GROUP;
use crate::tunnel::{Encapsulation, TunnelKind};

/// The name of the table's chain, and of its hook.
const CHAIN: &str = "prerouting";

/// Before connections are tracked (`NF_IP_PRI_RAW`, `linux/netfilter_ipv4.h`): what is
/// dropped costs no entry, and an address that is translated later is seen as it came.
const PRIORITY: i32 = -300;

/// The table's fingerprint, which depends on nothing. Each ADD compares it with what the kernel
/// has; to make the table for that took a fifth of an ADD's instructions.
const FINGERPRINT: &str = "5de19d28ed75af585bd4b4db96b466bb7b3b5cd3";

/// The type of ICMPv6 (RFC 4861, 4.2).
const ROUTER_ADVERTISEMENT: u8 = 134;

/// What containers may send besides the addresses that the node routes back to their host
/// end, as (host end, prefix). No two prefixes of a host end overlap.
pub type AllowedSources = BTreeSet<(String, IpNet)>;

/// The table that keeps containers from sending as somebody else:
///
/// - Nothing from a container goes to the node's loopback, whatever another program
///   (portmap) lets the host end route there.
/// - Nor a router advertisement: the node would take its routes from a container
///   (CVE-2020-13597).
/// - Nor, unless any source is allowed, a packet in a packet (as IPIP): NAT would give it the
///   node's address, and another node's tunnel would take out what has any source.
/// - A packet whose source the node does not route back to the same host end is dropped,
///   unless its container is allowed the source. The kernel lets ::, fe80::/10 and 0.0.0.0
///   through where they belong (duplicate address detection, neighbour discovery, DHCP:
///   `nft_fib_ipv4.c`, `nft_fib_ipv6.c`).
///
/// How many rules and sets it has does not depend on how many containers there are, and
/// the sets are looked at for packets only that would be dropped without them.
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
        4 + tunnel_protocols().count()
    }

    fn contents(&self, comment: &str) -> Vec<Value> {
        let from_host_end = || matches(meta("iifname"), "==", json!("weir*"));
        let loopback = json!({ "prefix": { "addr": "127.0.0.0", "len": 8 } });
        let filter = |expression| rule(Self::NAME, CHAIN, comment, expression);
        let strange = |protocol: &str, of_protocol: &str, suffix: &str| {
            let back = json!({ "fib": { "result": "oif", "flags": ["saddr", "iif"] } });
            let source = json!({ "concat": [meta("iifname"), payload(protocol, "saddr")] });
            filter(vec![
                matches(meta("nfproto"), "==", json!(of_protocol)),
                from_host_end(),
                matches(meta("iifgroup"), "!=", json!(UNCHECKED_GROUP)),
                matches(back, "==", json!(false)),
                matches(source, "!=", json!(format!("@{}", set_name(suffix)))),
                drop_packet(),
            ])
        };
        let mut commands = vec![set("v4", "ipv4_addr"), set("v6", "ipv6_addr")];
        commands.extend(emptied_chain(Self::NAME, CHAIN, "filter", PRIORITY));
        commands.extend([
            filter(vec![
                from_host_end(),
                matches(payload("ip", "daddr"), "==", loopback),
                drop_packet(),
            ]),
            filter(vec![
                from_host_end(),
                matches(payload("icmpv6", "type"), "==", json!(ROUTER_ADVERTISEMENT)),
                drop_packet(),
            ]),
        ]);
        commands.extend(tunnel_protocols().map(|(is_ipv6, protocol)| {
            filter(vec![
                from_host_end(),
                matches(meta("iifgroup"), "!=", json!(UNCHECKED_GROUP)),
                of_protocol(is_ipv6, protocol),
                drop_packet(),
            ])
        }));
        commands.extend([strange("ip", "ipv4", "v4"), strange("ip6", "ipv6", "v6")]);
        commands
    }

    fn fingerprint(&self) -> String {
        FINGERPRINT.to_owned()
    }

    /// Installed beside what is in the sets: two calls may do it at the same moment.
    fn ruleset(&self) -> Value {
        ruleset_beside(self)
    }
}

/// The protocols of tunnels, and whether they are IPv6's. Those in UDP have ports, which only
/// [`TunnelFilter`] knows.
///
/// [`TunnelFilter`]: super::TunnelFilter
fn tunnel_protocols() -> impl Iterator<Item = (bool, u8)> {
    let rows = TunnelKind::ALL.into_iter().map(TunnelKind::row);
    rows.filter_map(|row| match row.encapsulation {
        Encapsulation::Protocol(protocol) => Some((row.is_ipv6, protocol)),
        Encapsulation::Udp { .. } => None,
    })
}

impl SourceFilter {
    /// The names of the table's sets.
    pub fn sets() -> [String; 2] {
        ["v4", "v6"].map(set_name)
    }

    /// The document, in nft's JSON, that makes `sources` the content of the table's sets.
    pub fn fill(sources: &AllowedSources) -> Value {
        let mut commands = Vec::new();
        for (suffix, is_v4) in [("v4", true), ("v6", false)] {
            let named = json!({
                "family": "inet", "table": Self::NAME, "name": set_name(suffix),
            });
            commands.push(json!({ "flush": { "set": named } }));
            let of_family = sources.iter().filter(|(_, prefix)| prefix.addr().is_ipv4() == is_v4);
            let elements: Vec<Value> = of_family
                .map(|(host_end, prefix)| {
                    let (addr, len) = (prefix.addr(), prefix.prefix_len());
                    json!({ "concat": [host_end, { "prefix": { "addr": addr, "len": len } }] })
                })
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

/// What the containers of these attachments may send besides the addresses that the node
/// routes back: the prefixes that they were allowed, and, where one has several host ends,
/// the addresses of its others.
pub fn allowed_sources(attachments: &[AttachmentState]) -> AllowedSources {
    let mut containers: BTreeMap<ContainerKey<'_>, Vec<&AttachmentState>> = BTreeMap::new();
    for attachment in attachments {
        containers.entry(attachment.container()).or_default().push(attachment);
    }
    let mut sources = AllowedSources::new();
    for own in containers.into_values() {
        for (place, attachment) in own.iter().enumerate() {
            let others = own.iter().enumerate().filter(|(other, _)| *other != place);
            let addresses = others.flat_map(|(_, other)| &other.addresses);
            let addresses = addresses.map(|address| IpNet::from(*address));
            let allowed = attachment.allowed_sources.iter().copied().chain(addresses).collect();
            let host_end = attachment.identity.host_interface();
            // nft takes no overlapping intervals.
            let apart = IpNet::aggregate(&allowed);
            sources.extend(apart.into_iter().map(|prefix| (host_end.clone(), prefix)));
        }
    }
    sources
}

fn set_name(suffix: &str) -> String {
    format!("allowed_{suffix}")
}

fn set(suffix: &str, address: &str) -> Value {
    json!({ "add": { "set": {
        "family": "inet", "table": SourceFilter::NAME, "name": set_name(suffix),
        "type": ["ifname", address], "flags": ["interval"],
    } } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::attachment::{AttachmentIdentity, Families};
    use crate::network::nft::fingerprint_of;

    fn attachment(interface: &str, addresses: &[&str], allowed: &[&str]) -> AttachmentState {
        AttachmentState {
            identity: AttachmentIdentity::new("pods", "c1", interface).unwrap(),
            mtu: 1500,
            up: true,
            carrier: true,
            is_checked: true,
            allowed_sources: allowed.iter().map(|prefix| prefix.parse().unwrap()).collect(),
            sandbox: None,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ready_for: Families::default(),
        }
    }

    fn texts(attachments: &[AttachmentState]) -> Vec<String> {
        let text = |(host_end, prefix): &(String, IpNet)| {
            let mut ends = attachments.iter();
            let end = ends.find(|it| it.identity.host_interface() == *host_end).unwrap();
            format!("{} {prefix}", end.identity.interface())
        };
        let mut texts: Vec<String> = allowed_sources(attachments).iter().map(text).collect();
        texts.sort();
        texts
    }

    #[test]
    fn a_container_with_several_host_ends_may_send_by_each_from_the_others_addresses() {
        let first = attachment("eth0", &["10.0.0.1", "fd00::1"], &[]);
        assert_eq!(allowed_sources(std::slice::from_ref(&first)), AllowedSources::new());
        let second = attachment("net1", &["10.1.0.1"], &[]);
        let mut alone = attachment("eth0", &["10.0.0.2"], &[]);
        alone.identity = AttachmentIdentity::new("pods", "c2", "eth0").unwrap();
        let expected = ["eth0 10.1.0.1/32", "net1 10.0.0.1/32", "net1 fd00::1/128"];
        assert_eq!(texts(&[first, alone, second]), expected);
    }

    /// Docker's interfaces of one container have nothing in common but their sandbox.
    #[test]
    fn a_sandbox_makes_one_container_of_several_ids() {
        let in_sandbox = |id: &str, address: &str, sandbox: Option<&str>| AttachmentState {
            identity: AttachmentIdentity::new("docker", id, "docker").unwrap(),
            sandbox: sandbox.map(str::to_owned),
            ..attachment("docker", &[address], &[])
        };
        let first = in_sandbox("c1", "10.0.0.1", Some("s1"));
        let second = in_sandbox("c2", "10.1.0.1", Some("s1"));
        let others = [
            in_sandbox("c3", "10.0.0.3", Some("s2")),
            // An id and a sandbox are not the same for being called the same.
            in_sandbox("s1", "10.0.0.4", None),
        ];
        let all = [&[first.clone(), second.clone()][..], &others].concat();
        let expected = [(&first, "10.1.0.1/32"), (&second, "10.0.0.1/32")];
        let expected = expected
            .map(|(it, prefix)| (it.identity.host_interface(), prefix.parse::<IpNet>().unwrap()));
        assert_eq!(allowed_sources(&all), AllowedSources::from(expected));
    }

    #[test]
    fn prefixes_that_are_allowed_hold_for_their_host_end_and_do_not_overlap() {
        let allowed = ["10.9.0.0/24", "10.9.0.7/32", "10.1.0.0/16", "fd09::/64"];
        let first = attachment("eth0", &["10.0.0.1"], &allowed);
        assert_eq!(
            texts(std::slice::from_ref(&first)),
            ["eth0 10.1.0.0/16", "eth0 10.9.0.0/24", "eth0 fd09::/64"]
        );
        let second = attachment("net1", &["10.1.0.1"], &[]);
        let expected =
            ["eth0 10.1.0.0/16", "eth0 10.9.0.0/24", "eth0 fd09::/64", "net1 10.0.0.1/32"];
        assert_eq!(texts(&[first, second]), expected);
    }

    #[test]
    fn the_fingerprint_is_that_of_the_contents() {
        assert_eq!(SourceFilter.fingerprint(), fingerprint_of(&SourceFilter));
    }

    #[test]
    fn every_rule_carries_the_fingerprint() {
        let text = SourceFilter.ruleset().to_string();
        assert_eq!(text.matches(&SourceFilter.fingerprint()).count(), SourceFilter.rules());
    }

    #[test]
    fn the_sets_hold_what_they_are_filled_with_and_nothing_else() {
        let empty = SourceFilter::fill(&AllowedSources::new()).to_string();
        assert_eq!((empty.matches("flush").count(), empty.matches("elem").count()), (2, 0));
        let one = ("weir84bd87e317f".to_owned(), "fd00::/64".parse().unwrap());
        let text = SourceFilter::fill(&AllowedSources::from([one])).to_string();
        let element = r#"{"concat":["weir84bd87e317f",{"prefix":{"addr":"fd00::","len":64}}]}"#;
        assert!(text.contains(element), "{text}");
    }
}
