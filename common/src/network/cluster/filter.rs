//! The filter of the tunnels, as data.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::actual::ActualState;
use super::plan::ClusterPlan;
use crate::link::UNCHECKED_GROUP;
use crate::network::nft::{
    NftTable, chain, drop_packet, matches, meta, of_protocol, payload, rule,
};
use crate::tunnel::{Encapsulation, TunnelKind, TunnelRow};

/// The table that guards the tunnels of a node:
///
/// - What comes by a tunnel's protocol from others than the nodes of the cluster is dropped. Who could
///   send it could speak with the address of any container (Calico:
///   `felix/rules/static.go`, `filterInputChain`).
/// - What the node itself sends through a tunnel with another address than the
///   tunnel device's is masqueraded: the answer would come back by another way,
///   or be dropped at the other end (Calico: `static.go`, the rule with
///   `SrcAddrType(LOCAL, true)`).
/// - Packets of a tunnel in UDP that containers send are dropped, unless any source is allowed: NAT would
///   give them the node's address, and another node would take out what has any source (Calico:
///   `allowVXLANPacketsFromWorkloads`). [`SourceFilter`] does the same for the other protocols.
///
/// [`SourceFilter`]: crate::network::SourceFilter
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelFilter {
    tunnels: BTreeMap<TunnelKind, TunnelGuard>,
}

/// What is accepted for one tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TunnelGuard {
    senders: BTreeSet<IpNet>,
    /// The UDP ports, of one in UDP: that of the plan, and that which the device has until it is
    /// made again.
    ports: BTreeSet<u16>,
}

impl TunnelFilter {
    /// The filter of these kinds of tunnels; `None` for none. A tunnel that is not in the plan
    /// any more takes what the nodes send. While Weir's device has another port than the plan's,
    /// both are guarded.
    pub fn new(
        kinds: impl IntoIterator<Item = TunnelKind>,
        plan: &ClusterPlan,
        actual: &ActualState,
    ) -> Option<Self> {
        let guard = |kind: TunnelKind| {
            let own = actual.tunnels.get(&kind).filter(|has| has.claimed);
            let vxlan = own.and_then(|has| has.vxlan.as_ref());
            let has = vxlan.map(|vxlan| vxlan.device.port);
            let planned = plan.tunnels.get(&kind);
            let nodes = plan.nodes.keys().filter(|address| kind.carries(**address));
            let senders = planned.map_or_else(
                || nodes.map(|address| IpNet::from(*address)).collect(),
                |planned| planned.senders.clone(),
            );
            let port = planned.and_then(|planned| planned.port);
            (kind, TunnelGuard { senders, ports: port.into_iter().chain(has).collect() })
        };
        let tunnels: BTreeMap<_, _> = kinds.into_iter().map(guard).collect();
        (!tunnels.is_empty()).then_some(Self { tunnels })
    }
}

impl TunnelGuard {
    /// The set of senders, and the rules.
    fn contents(&self, kind: TunnelKind, comment: &str) -> Vec<Value> {
        let row = kind.row();
        let protocol = if row.is_ipv6 { "ip6" } else { "ip" };
        let fib = |flags: &[&str]| json!({ "fib": { "result": "type", "flags": flags } });
        let name = format!("senders-{}", row.id);
        let is_of_others = matches(payload(protocol, "saddr"), "!=", json!(format!("@{name}")));
        let family = if row.is_ipv6 { "ipv6" } else { "ipv4" };
        let own = [
            matches(meta("oifname"), "==", json!(row.device)),
            matches(fib(&["saddr", "oif"]), "!=", json!("local")),
            matches(fib(&["saddr"]), "==", json!("local")),
            json!({ "masquerade": null }),
        ];
        let dropped = [matches(meta("nfproto"), "==", json!(family))].into_iter();
        let dropped = dropped.chain([self.is_of_kind(row), is_of_others, drop_packet()]);
        let mut commands = vec![
            self.set(kind, &name),
            rule(TunnelFilter::NAME, "input", comment, dropped.collect()),
            rule(TunnelFilter::NAME, "postrouting", comment, own.into()),
        ];
        let is_in_udp = matches!(row.encapsulation, Encapsulation::Udp { .. });
        commands.extend(is_in_udp.then(|| self.of_containers(row, family, comment)));
        commands
    }

    /// Whether a packet is one of the tunnel; also one that is sent to a group or to all: the
    /// kernel takes that, too.
    fn is_of_kind(&self, row: &TunnelRow) -> Value {
        match row.encapsulation {
            Encapsulation::Protocol(number) => of_protocol(row.is_ipv6, number),
            Encapsulation::Udp { port, .. } => {
                let ports = match self.ports.iter().collect::<Vec<_>>()[..] {
                    [] => json!(port),
                    [only] => json!(only),
                    ref several => json!({ "set": several }),
                };
                matches(payload("udp", "dport"), "==", ports)
            }
        }
    }

    fn of_containers(&self, row: &TunnelRow, family: &str, comment: &str) -> Value {
        let sent = vec![
            matches(meta("iifname"), "==", json!("weir*")),
            matches(meta("iifgroup"), "!=", json!(UNCHECKED_GROUP)),
            matches(meta("nfproto"), "==", json!(family)),
            self.is_of_kind(row),
            drop_packet(),
        ];
        rule(TunnelFilter::NAME, "forward", comment, sent)
    }

    /// nft takes no empty list of elements.
    fn set(&self, kind: TunnelKind, name: &str) -> Value {
        let family = if kind.row().is_ipv6 { "ipv6_addr" } else { "ipv4_addr" };
        let mut set = json!({
            "family": "inet", "table": TunnelFilter::NAME, "name": name, "type": family,
            "flags": ["interval"],
        });
        let ranges = IpNet::aggregate(&self.senders.iter().copied().collect());
        let element = |range: &IpNet| json!({ "prefix": { "addr": range.network(), "len": range.prefix_len() } });
        if !ranges.is_empty() {
            set["elem"] = ranges.iter().map(element).collect();
        }
        json!({ "add": { "set": set } })
    }
}

impl NftTable for TunnelFilter {
    const NAME: &'static str = "weir-tunnel";
    const REASON: &'static str =
        "a pool tunnels between nodes (ipipMode, vxlanMode), and the tunnel is guarded";
    const ALTERNATIVE: &'static str = "set ipipMode and vxlanMode to Never on every pool";

    fn retired() -> Option<Self> {
        None
    }

    fn contents(&self, comment: &str) -> Vec<Value> {
        let chains = [
            chain(Self::NAME, "input", "filter", 0),
            // After the destination was translated (DNAT).
            chain(Self::NAME, "forward", "filter", 0),
            chain(Self::NAME, "postrouting", "nat", 100),
        ];
        let tunnels = self.tunnels.iter();
        chains
            .into_iter()
            .chain(tunnels.flat_map(|(kind, it)| it.contents(*kind, comment)))
            .collect()
    }

    fn rules(&self) -> usize {
        let is_in_udp =
            |kind: &TunnelKind| matches!(kind.row().encapsulation, Encapsulation::Udp { .. });
        2 * self.tunnels.len() + self.tunnels.keys().filter(|kind| is_in_udp(kind)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(kinds: &[TunnelKind], senders: &[&str]) -> TunnelFilter {
        let guard = TunnelGuard {
            senders: senders.iter().map(|sender| sender.parse().unwrap()).collect(),
            ports: BTreeSet::new(),
        };
        TunnelFilter { tunnels: kinds.iter().map(|kind| (*kind, guard.clone())).collect() }
    }

    #[test]
    fn the_fingerprint_is_of_kinds_and_senders() {
        let [one, two] = ["10.0.0.1/32", "10.0.0.2/32"];
        let mut fingerprints = BTreeSet::new();
        for kinds in [&[TunnelKind::Ipip][..], &[TunnelKind::Vxlan], &TunnelKind::ALL[..2]] {
            for senders in [&[][..], &[one], &[two], &[one, two]] {
                fingerprints.insert(filter(kinds, senders).fingerprint());
            }
        }
        assert_eq!(fingerprints.len(), 12);
        let turned = filter(&[TunnelKind::Ipip], &[two, one]);
        assert!(fingerprints.contains(&turned.fingerprint()));
    }

    #[test]
    fn both_ports_are_guarded_until_the_device_is_made_again() {
        let ports = |ports: &[u16]| {
            let mut filter = filter(&[TunnelKind::Vxlan], &["10.0.0.1/32"]);
            let guard = filter.tunnels.get_mut(&TunnelKind::Vxlan).unwrap();
            guard.ports = ports.iter().copied().collect();
            filter.ruleset().to_string()
        };
        for (guarded, text) in
            [(&[][..], "4789"), (&[8472], "8472"), (&[4789, 8472], r#"{"set":[4789,8472]}"#)]
        {
            let right = format!(r#""right":{text}}}"#);
            assert_eq!(ports(guarded).matches(&right).count(), 2, "input and forward: {right}");
        }
    }

    #[test]
    fn every_rule_carries_the_fingerprint() {
        let filter = filter(&TunnelKind::ALL, &["10.0.0.1/32"]);
        let document = filter.ruleset().to_string();
        assert_eq!(document.matches(&filter.fingerprint()).count(), filter.rules());
    }
}
