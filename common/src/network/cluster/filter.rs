//! The filter of the tunnel, as data.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::plan::{TUNNEL_DEVICE, TunnelPlan};
use crate::network::nft::{NftTable, chain, matches, rule};

/// The name of the set of the nodes from which IPIP is accepted.
const PEERS: &str = "peers";

/// The number of IPIP among the protocols that IPv4 carries (RFC 2003).
const PROTOCOL_IPIP: u8 = 4;

/// The table that guards the tunnel of a node:
///
/// - IPIP from other senders than the nodes of the cluster is dropped. Who could
///   send it could speak with the address of any container (Calico:
///   `felix/rules/static.go`, `filterInputChain`).
/// - What the node itself sends through the tunnel with another address than the
///   tunnel device's is masqueraded: the answer would come back by another way,
///   or be dropped at the other end (Calico: `static.go`, the rule with
///   `SrcAddrType(LOCAL, true)`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelFilter {
    peers: BTreeSet<Ipv4Addr>,
}

impl TunnelFilter {
    /// The filter for a tunnel.
    pub fn from_plan(plan: &TunnelPlan) -> Self {
        Self { peers: plan.peers.clone() }
    }
}

impl NftTable for TunnelFilter {
    const NAME: &'static str = "weir-tunnel";
    const REASON: &'static str =
        "a pool tunnels between nodes (ipipMode), and the tunnel is guarded";
    const ALTERNATIVE: &'static str = "set ipipMode to Never on every pool";

    fn retired() -> Option<Self> {
        None
    }

    fn contents(&self, comment: &str) -> Vec<Value> {
        let payload = |field| json!({ "payload": { "protocol": "ip", "field": field } });
        let source_type = |flags: &[&str]| json!({ "fib": { "result": "type", "flags": flags } });
        vec![
            set(&self.peers),
            chain(Self::NAME, "input", "filter", 0),
            chain(Self::NAME, "postrouting", "nat", 100),
            rule(
                Self::NAME,
                "input",
                comment,
                vec![
                    matches(payload("protocol"), "==", json!(PROTOCOL_IPIP)),
                    matches(payload("saddr"), "!=", json!(format!("@{PEERS}"))),
                    json!({ "drop": null }),
                ],
            ),
            rule(
                Self::NAME,
                "postrouting",
                comment,
                vec![
                    matches(json!({ "meta": { "key": "oifname" } }), "==", json!(TUNNEL_DEVICE)),
                    matches(source_type(&["saddr", "oif"]), "!=", json!("local")),
                    matches(source_type(&["saddr"]), "==", json!("local")),
                    json!({ "masquerade": null }),
                ],
            ),
        ]
    }

    fn rules(&self) -> usize {
        2
    }
}

/// nft takes no empty list of elements.
fn set(peers: &BTreeSet<Ipv4Addr>) -> Value {
    let mut set = json!({
        "family": "inet", "table": TunnelFilter::NAME, "name": PEERS, "type": "ipv4_addr",
    });
    if !peers.is_empty() {
        set["elem"] = json!(peers);
    }
    json!({ "add": { "set": set } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(peers: &[&str]) -> TunnelFilter {
        let plan = TunnelPlan {
            address: None,
            mtu: 1480,
            peers: peers.iter().map(|peer| peer.parse().unwrap()).collect(),
            asymmetric: BTreeSet::new(),
        };
        TunnelFilter::from_plan(&plan)
    }

    #[test]
    fn the_fingerprint_is_of_the_peers_too() {
        let fingerprints: BTreeSet<String> =
            [&[][..], &["10.0.0.1"], &["10.0.0.2"], &["10.0.0.1", "10.0.0.2"]]
                .map(|peers| filter(peers).fingerprint())
                .into();
        assert_eq!(fingerprints.len(), 4);
        let turned = filter(&["10.0.0.2", "10.0.0.1"]);
        assert!(fingerprints.contains(&turned.fingerprint()));
    }

    #[test]
    fn every_rule_carries_the_fingerprint() {
        let filter = filter(&["10.0.0.1"]);
        let document = filter.ruleset().to_string();
        assert_eq!(document.matches(&filter.fingerprint()).count(), filter.rules());
    }
}
