//! The NAT of a node, as data.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Value, json};

use super::nft::{NftTable, chain, matches, meta, payload, rule};
use crate::resources::IpPool;

/// The name of the table's chain, and of its hook.
const CHAIN: &str = "postrouting";

/// What NAT has to know of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatPool {
    /// The pool's range.
    pub cidr: IpNet,
    /// Whether traffic from it to outside every pool is masqueraded
    /// (`natOutgoing`).
    pub nat_outgoing: bool,
}

impl From<&IpPool> for NatPool {
    fn from(pool: &IpPool) -> Self {
        Self { cidr: pool.cidr, nat_outgoing: pool.nat_outgoing }
    }
}

/// Whether what this address sends to outside all pools is to be masqueraded.
pub fn needs_nat(pools: &[NatPool], address: IpAddr) -> bool {
    pools.iter().any(|pool| pool.nat_outgoing && pool.cidr.contains(&address))
}

/// The NAT table that a node should have: what comes from an address in
/// `nat_pools` and goes to none in `pools` is masqueraded. Disabled pools count
/// like any other; that is how a range is exempted (Calico's Felix,
/// `masq_mgr.go`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatTable {
    pools_v4: Vec<Ipv4Net>,
    nat_pools_v4: Vec<Ipv4Net>,
    pools_v6: Vec<Ipv6Net>,
    nat_pools_v6: Vec<Ipv6Net>,
    /// The UDP ports that are never given as source ports.
    kept_ports: BTreeSet<u16>,
}

impl NatTable {
    /// The table for these pools, in whatever order; `None` when no pool asks
    /// for NAT. `kept_ports` are the UDP ports of tunnels: an answer to one
    /// would be taken for a packet of the tunnel (Calico's issue 12244).
    pub fn from_pools(
        pools: &[NatPool],
        kept_ports: impl IntoIterator<Item = u16>,
    ) -> Option<Self> {
        let (pools_v4, pools_v6) = by_family(pools.iter());
        let (nat_pools_v4, nat_pools_v6) = by_family(pools.iter().filter(|pool| pool.nat_outgoing));
        if nat_pools_v4.is_empty() && nat_pools_v6.is_empty() {
            return None;
        }
        let kept_ports = kept_ports.into_iter().collect();
        Some(Self { pools_v4, nat_pools_v4, pools_v6, nat_pools_v6, kept_ports })
    }
}

impl NftTable for NatTable {
    const NAME: &'static str = "weir";
    const REASON: &'static str = "a pool asks for NAT (natOutgoing)";
    const ALTERNATIVE: &'static str = "set natOutgoing to false on every pool";

    /// One rule for each family with NAT, or the one that keeps connections.
    fn rules(&self) -> usize {
        let families = [self.nat_pools_v4.is_empty(), self.nat_pools_v6.is_empty()];
        let of_family = 1 + usize::from(!self.kept_ports.is_empty());
        let families = families.iter().filter(|is_empty| !**is_empty).count();
        (families * of_family).max(1)
    }

    /// A table that masquerades nothing. Connections that were masqueraded from
    /// their beginning live on, but only as long as there is a chain of this type
    /// (`nf_nat_register_fn` in `net/netfilter/nf_nat_core.c`) and a rule that looks
    /// at connections (`nf_ct_netns_get` in `nf_conntrack_proto.c`).
    fn retired() -> Option<Self> {
        Some(Self::default())
    }

    fn contents(&self, comment: &str) -> Vec<Value> {
        let mut commands = vec![chain(Self::NAME, CHAIN, "nat", 100)];
        if !self.nat_pools_v4.is_empty() {
            let (pools, nat_pools) = (elements(&self.pools_v4), elements(&self.nat_pools_v4));
            let sets = FamilySets { protocol: "ip", suffix: "v4", set_type: "ipv4_addr" };
            commands.extend(sets.contents(pools, nat_pools, &self.kept_ports, comment));
        }
        if !self.nat_pools_v6.is_empty() {
            let (pools, nat_pools) = (elements(&self.pools_v6), elements(&self.nat_pools_v6));
            let sets = FamilySets { protocol: "ip6", suffix: "v6", set_type: "ipv6_addr" };
            commands.extend(sets.contents(pools, nat_pools, &self.kept_ports, comment));
        }
        if self.nat_pools_v4.is_empty() && self.nat_pools_v6.is_empty() {
            commands.push(keeping_rule(comment));
        }
        commands
    }
}

/// The ranges of each family, sorted and joined: nft takes no interval twice.
fn by_family<'a>(pools: impl Iterator<Item = &'a NatPool>) -> (Vec<Ipv4Net>, Vec<Ipv6Net>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for pool in pools {
        match pool.cidr.trunc() {
            IpNet::V4(cidr) => v4.push(cidr),
            IpNet::V6(cidr) => v6.push(cidr),
        }
    }
    (Ipv4Net::aggregate(&v4), Ipv6Net::aggregate(&v6))
}

fn elements<T: Copy + Into<IpNet>>(ranges: &[T]) -> Vec<Value> {
    let element = |&range: &T| -> Value {
        let range: IpNet = range.into();
        json!({ "prefix": { "addr": range.addr(), "len": range.prefix_len() } })
    };
    ranges.iter().map(element).collect()
}

/// What the sets and rules of a family are called.
struct FamilySets {
    protocol: &'static str,
    suffix: &'static str,
    set_type: &'static str,
}

impl FamilySets {
    fn contents(
        &self,
        pools: Vec<Value>,
        nat_pools: Vec<Value>,
        kept_ports: &BTreeSet<u16>,
        comment: &str,
    ) -> Vec<Value> {
        let set = |name: &str, elements: Vec<Value>| {
            json!({ "add": { "set": {
                "family": "inet", "table": NatTable::NAME, "name": name, "type": self.set_type,
                "flags": ["interval"], "elem": elements,
            } } })
        };
        let is_in = |field: &str, operator: &str, set: &str| {
            let left = payload(self.protocol, field);
            matches(left, operator, json!(format!("@{set}")))
        };
        let [all, with_nat] = ["pools", "nat_pools"].map(|set| format!("{set}_{}", self.suffix));
        let masquerade = |only: Vec<Value>, how: Value| {
            let leaves = [is_in("saddr", "==", &with_nat), is_in("daddr", "!=", &all)];
            let expression = leaves.into_iter().chain(only).chain([json!({ "masquerade": how })]);
            rule(NatTable::NAME, CHAIN, comment, expression.collect())
        };
        let of_udp = (!kept_ports.is_empty()).then(|| {
            let is_udp = matches(meta("l4proto"), "==", json!("udp"));
            masquerade(vec![is_udp], json!({ "port": { "range": ports_without(kept_ports) } }))
        });
        let sets = [set(&all, pools), set(&with_nat, nat_pools)];
        sets.into_iter().chain(of_udp).chain([masquerade(Vec::new(), Value::Null)]).collect()
    }
}

/// The largest range of source ports between these, without the privileged ones.
fn ports_without(kept: &BTreeSet<u16>) -> [u16; 2] {
    let starts = [1024].into_iter().chain(kept.iter().map(|port| port.saturating_add(1).max(1024)));
    let ends = kept.iter().map(|port| port.saturating_sub(1)).chain([u16::MAX]);
    let largest = starts.zip(ends).max_by_key(|(first, last)| last.saturating_sub(*first));
    largest.map_or([1024, u16::MAX], |(first, last)| [first, last])
}

/// A rule that has the kernel keep track of connections, and does nothing to them.
fn keeping_rule(comment: &str) -> Value {
    let established = json!({ "match": {
        "op": "in", "left": { "ct": { "key": "state" } }, "right": "established",
    } });
    json!({ "add": { "rule": {
        "family": "inet", "table": NatTable::NAME, "chain": CHAIN, "comment": comment,
        "expr": [established, { "accept": null }],
    } } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(cidr: &str, nat_outgoing: bool) -> NatPool {
        NatPool { cidr: cidr.parse().unwrap(), nat_outgoing }
    }

    #[test]
    fn no_pool_with_nat_needs_no_table() {
        assert_eq!(NatTable::from_pools(&[], None), None);
        assert_eq!(NatTable::from_pools(&[pool("10.0.0.0/16", false)], None), None);
    }

    #[test]
    fn a_retired_table_masquerades_nothing_and_looks_at_connections() {
        let retired = NatTable::retired().unwrap();
        let document = retired.ruleset().to_string();
        assert!(!document.contains("masquerade"), "{document}");
        assert!(document.contains(r#""type":"nat""#), "{document}");
        assert_eq!(document.matches(r#""ct":"#).count(), retired.rules(), "{document}");
    }

    #[test]
    fn every_pool_is_exempt_and_only_nat_pools_are_sources() {
        let table =
            NatTable::from_pools(&[pool("10.1.0.0/16", true), pool("10.9.0.0/24", false)], None)
                .unwrap();
        assert_eq!(table.nat_pools_v4, ["10.1.0.0/16".parse().unwrap()]);
        assert_eq!(
            table.pools_v4,
            ["10.1.0.0/16".parse().unwrap(), "10.9.0.0/24".parse().unwrap()]
        );
        assert_eq!(table.rules(), 1);
        assert!(!table.ruleset().to_string().contains("ip6"));
    }

    #[test]
    fn order_and_overlap_change_nothing() {
        let one = NatTable::from_pools(&[pool("10.1.0.0/16", true), pool("fd00::/64", true)], None);
        let other = NatTable::from_pools(
            &[pool("fd00::/64", true), pool("10.1.128.0/17", true), pool("10.1.0.0/16", true)],
            None,
        );
        assert_eq!(one, other);
        assert_eq!(one.unwrap().fingerprint(), other.unwrap().fingerprint());
    }

    #[test]
    fn every_difference_changes_the_fingerprint() {
        let tables = [
            vec![pool("10.1.0.0/16", true)],
            vec![pool("10.1.0.0/17", true)],
            vec![pool("10.1.0.0/16", true), pool("10.2.0.0/16", false)],
            vec![pool("10.1.0.0/16", true), pool("10.2.0.0/16", true)],
            vec![pool("fd00::/64", true)],
        ];
        let fingerprints: std::collections::HashSet<_> = tables
            .iter()
            .flat_map(|pools| [None, Some(4789), Some(60000)].map(|port| (pools, port)))
            .map(|(pools, port)| NatTable::from_pools(pools, port).unwrap().fingerprint())
            .collect();
        assert_eq!(fingerprints.len(), 3 * tables.len());
    }

    #[test]
    fn the_port_of_vxlan_is_in_no_range_of_source_ports() {
        for port in [1, 1023, 4789, 8472, 32767, 32768, u16::MAX] {
            let [first, last] = ports_without(&[port].into());
            assert!(first >= 1024 && first < last && !(first..=last).contains(&port), "{port}");
        }
        let pools = [pool("10.1.0.0/16", true), pool("fd00::/64", true)];
        assert_eq!(ports_without(&[4789, 60000, 1025].into()), [4790, 59999]);
        let table = NatTable::from_pools(&pools, Some(4789)).unwrap();
        let document = table.ruleset().to_string();
        assert_eq!(document.matches("[4790,65535]").count(), 2, "{document}");
        assert_eq!(document.matches(&table.fingerprint()).count(), table.rules());
    }
}
