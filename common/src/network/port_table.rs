//! Published ports of a node, as a table of nftables.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::nft::{
    NftTable, drop_packet, emptied_chain, matches, meta, payload, rule, ruleset_beside,
};
use super::ports::{MAX_PUBLISHED, PortChange, PortProtocol, PublishedPort};

/// The priority of chains that change destinations (`NF_IP_PRI_NAT_DST`).
const DESTINATION: i32 = -100;

/// That of chains that change sources (`NF_IP_PRI_NAT_SRC`).
const SOURCE: i32 = 100;

/// The table that leads published ports to containers:
///
/// - What comes to an address of the node, from outside, from the node's own programs or from a
///   container, goes to the container whose port is published there. What other hosts send to
///   127.0.0.0/8 does not (they are on one link with the node, or lie).
/// - A container that reaches itself so, and the node's loopback, are masqueraded: the
///   container would take its own address, or its own loopback, for the sender's.
/// - The host ends of containers whose ports the node's loopback reaches let packets to
///   127.0.0.0/8 in (`route_localnet`). Those that are no answers are dropped.
///
/// How many rules it has does not depend on how many ports are published. The port is looked
/// up as the address is: nft's JSON has no maps to address and port together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortTable;

impl NftTable for PortTable {
    const NAME: &'static str = "weir-ports";
    const REASON: &'static str = "a container has published ports";
    const ALTERNATIVE: &'static str = "publish none";

    fn retired() -> Option<Self> {
        None
    }

    fn rules(&self) -> usize {
        8
    }

    fn contents(&self, comment: &str) -> Vec<Value> {
        let hooks = [
            ("prerouting", "nat", DESTINATION),
            ("input", "filter", 0),
            ("output", "nat", DESTINATION),
            ("postrouting", "nat", SOURCE),
        ];
        let mut commands: Vec<Value> = PortFamily::ALL.iter().flat_map(PortFamily::sets).collect();
        for (hook, kind, priority) in hooks {
            commands.extend(emptied_chain(Self::NAME, hook, kind, priority));
        }
        let mut add = |chain: &str, expression| {
            commands.push(rule(Self::NAME, chain, comment, expression));
        };
        let [v4, v6] = &PortFamily::ALL;
        let to_host = |family: &PortFamily, operator| {
            matches(family.field("daddr"), operator, family.loopback())
        };
        let is_translated = || matches(json!({ "ct": { "key": "status" } }), "in", json!("dnat"));
        let masquerade = || json!({ "masquerade": null });
        add("prerouting", v4.translation(Some(to_host(v4, "!="))));
        add("prerouting", v6.translation(Some(to_host(v6, "!="))));
        add("output", v4.translation(None));
        add("output", v6.translation(Some(to_host(v6, "!="))));
        add(
            "input",
            vec![
                matches(meta("iifname"), "==", json!("weir*")),
                to_host(v4, "=="),
                matches(json!({ "ct": { "key": "direction" } }), "==", json!("original")),
                drop_packet(),
            ],
        );
        add(
            "postrouting",
            vec![
                matches(meta("oifname"), "==", json!("weir*")),
                matches(v4.field("saddr"), "==", v4.loopback()),
                is_translated(),
                masquerade(),
            ],
        );
        for family in [v4, v6] {
            let ends = json!({ "concat": [family.field("saddr"), family.field("daddr")] });
            let is_own = matches(ends, "==", json!(format!("@{}", family.set("own"))));
            add("postrouting", vec![is_own, is_translated(), masquerade()]);
        }
        commands
    }

    /// Installed beside what is in the maps.
    fn ruleset(&self) -> Value {
        ruleset_beside(self)
    }
}

impl PortTable {
    /// The names of the maps from ports to containers: to their addresses, and to their ports.
    pub fn maps(is_ipv4: bool) -> [String; 2] {
        let family = PortFamily::of(is_ipv4);
        [family.set("addresses"), family.set("ports")]
    }

    /// The document, in nft's JSON, that carries out a change of a table that has `published`;
    /// all of it, or nothing where another port was published meanwhile that overlaps.
    pub fn change(change: &PortChange, published: &[PublishedPort]) -> Value {
        let mut commands = Vec::new();
        let left = change.left(published);
        let owners: BTreeSet<_> =
            left.iter().map(|port| (port.container, &port.endpoint)).collect();
        let mut parted = BTreeSet::new();
        for port in &change.remove {
            let family = PortFamily::of(port.container.is_ipv4());
            let key = family.key(port);
            commands.push(element("delete", &family.set("addresses"), key.clone()));
            commands.push(element("delete", &family.set("ports"), key));
            let owner = (port.container, &port.endpoint);
            if !owners.contains(&owner) && parted.insert(owner) {
                commands.push(element("delete", &family.set("own"), own(port.container)));
            }
        }
        for port in &change.add {
            let family = PortFamily::of(port.container.is_ipv4());
            let named =
                |value: Value| json!({ "elem": { "val": value, "comment": port.endpoint } });
            let key = named(family.key(port));
            let address = json!([key, port.container]);
            commands.push(element("add", &family.set("addresses"), address));
            commands.push(element("add", &family.set("ports"), json!([key, port.container_port])));
            commands.push(element("add", &family.set("own"), named(own(port.container))));
        }
        json!({ "nftables": commands })
    }
}

/// A packet of a container to itself.
fn own(container: IpAddr) -> Value {
    json!({ "concat": [container, container] })
}

fn element(verb: &str, set: &str, element: Value) -> Value {
    json!({ verb: { "element": {
        "family": "inet", "table": PortTable::NAME, "name": set, "elem": [element],
    } } })
}

/// How nft names what an IP version has.
struct PortFamily {
    protocol: &'static str,
    nf_protocol: &'static str,
    address: &'static str,
    suffix: &'static str,
    loopback: (&'static str, u8),
}

impl PortFamily {
    const ALL: [Self; 2] = [
        Self {
            protocol: "ip",
            nf_protocol: "ipv4",
            address: "ipv4_addr",
            suffix: "v4",
            loopback: ("127.0.0.0", 8),
        },
        Self {
            protocol: "ip6",
            nf_protocol: "ipv6",
            address: "ipv6_addr",
            suffix: "v6",
            loopback: ("::1", 128),
        },
    ];

    fn of(is_ipv4: bool) -> &'static Self {
        &Self::ALL[usize::from(!is_ipv4)]
    }

    fn set(&self, name: &str) -> String {
        format!("{name}_{}", self.suffix)
    }

    fn field(&self, name: &str) -> Value {
        payload(self.protocol, name)
    }

    fn loopback(&self) -> Value {
        let (addr, len) = self.loopback;
        json!({ "prefix": { "addr": addr, "len": len } })
    }

    /// The commands that make the maps and the set.
    fn sets(&self) -> [Value; 3] {
        let map = |name: &str, to: &str| {
            json!({ "add": { "map": {
                "family": "inet", "table": PortTable::NAME, "name": self.set(name),
                "type": [self.address, "inet_proto", "inet_service"], "map": to,
                "flags": ["interval"], "size": MAX_PUBLISHED,
            } } })
        };
        let own = json!({ "add": { "set": {
            "family": "inet", "table": PortTable::NAME, "name": self.set("own"),
            "type": [self.address, self.address], "size": MAX_PUBLISHED,
        } } });
        [map("addresses", self.address), map("ports", "inet_service"), own]
    }

    /// A port in the maps.
    fn key(&self, port: &PublishedPort) -> Value {
        let host = match port.host.is_unspecified() {
            true => json!({ "prefix": { "addr": port.host, "len": 0 } }),
            false => json!(port.host),
        };
        json!({ "concat": [host, port.protocol.name(), port.host_port] })
    }

    /// What leads packets to addresses of the node to containers, if they are also `limited` so.
    fn translation(&self, limited: Option<Value>) -> Vec<Value> {
        let protocols: Vec<_> = PortProtocol::ALL.iter().map(|it| it.name()).collect();
        let port = payload("th", "dport");
        let key = json!({ "concat": [self.field("daddr"), meta("l4proto"), port] });
        let looked_up =
            |map: &str| json!({ "map": { "key": key, "data": format!("@{}", self.set(map)) } });
        let kind = json!({ "fib": { "result": "type", "flags": ["daddr"] } });
        let mut expression = vec![
            matches(meta("nfproto"), "==", json!(self.nf_protocol)),
            matches(meta("l4proto"), "==", json!({ "set": protocols })),
        ];
        expression.extend(limited);
        expression.push(matches(kind, "==", json!("local")));
        expression.push(json!({ "dnat": {
            "family": self.protocol, "addr": looked_up("addresses"), "port": looked_up("ports"),
        } }));
        expression
    }
}
