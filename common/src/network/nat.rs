//! The NAT of a node, as data.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::{Value, json};

use super::nft::{NftTable, chain, matches, rule};
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
}

impl NatTable {
    /// The table for these pools, in whatever order; `None` when no pool asks
    /// for NAT.
    pub fn from_pools(pools: &[NatPool]) -> Option<Self> {
        let (pools_v4, pools_v6) = by_family(pools.iter());
        let (nat_pools_v4, nat_pools_v6) = by_family(pools.iter().filter(|pool| pool.nat_outgoing));
        if nat_pools_v4.is_empty() && nat_pools_v6.is_empty() {
            return None;
        }
        Some(Self { pools_v4, nat_pools_v4, pools_v6, nat_pools_v6 })
    }
}

impl NftTable for NatTable {
    const NAME: &'static str = "weir";
    const REASON: &'static str = "a pool asks for NAT (natOutgoing)";
    const ALTERNATIVE: &'static str = "set natOutgoing to false on every pool";

    /// One rule for each family with NAT, or the one that keeps connections.
    fn rules(&self) -> usize {
        let families = [self.nat_pools_v4.is_empty(), self.nat_pools_v6.is_empty()];
        families.iter().filter(|is_empty| !**is_empty).count().max(1)
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
            commands.extend(family("ip", "v4", "ipv4_addr", pools, nat_pools, comment));
        }
        if !self.nat_pools_v6.is_empty() {
            let (pools, nat_pools) = (elements(&self.pools_v6), elements(&self.nat_pools_v6));
            commands.extend(family("ip6", "v6", "ipv6_addr", pools, nat_pools, comment));
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

fn family(
    protocol: &str,
    suffix: &str,
    set_type: &str,
    pools: Vec<Value>,
    nat_pools: Vec<Value>,
    comment: &str,
) -> [Value; 3] {
    let set = |name: &str, elements: Vec<Value>| {
        json!({ "add": { "set": {
            "family": "inet", "table": NatTable::NAME, "name": name, "type": set_type,
            "flags": ["interval"], "elem": elements,
        } } })
    };
    let is_in = |field: &str, operator: &str, set: &str| {
        let left = json!({ "payload": { "protocol": protocol, "field": field } });
        matches(left, operator, json!(format!("@{set}")))
    };
    let (all, with_nat) = (format!("pools_{suffix}"), format!("nat_pools_{suffix}"));
    [
        set(&all, pools),
        set(&with_nat, nat_pools),
        rule(
            NatTable::NAME,
            CHAIN,
            comment,
            vec![
                is_in("saddr", "==", &with_nat),
                is_in("daddr", "!=", &all),
                json!({ "masquerade": null }),
            ],
        ),
    ]
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
        assert_eq!(NatTable::from_pools(&[]), None);
        assert_eq!(NatTable::from_pools(&[pool("10.0.0.0/16", false)]), None);
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
            NatTable::from_pools(&[pool("10.1.0.0/16", true), pool("10.9.0.0/24", false)]).unwrap();
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
        let one = NatTable::from_pools(&[pool("10.1.0.0/16", true), pool("fd00::/64", true)]);
        let other = NatTable::from_pools(&[
            pool("fd00::/64", true),
            pool("10.1.128.0/17", true),
            pool("10.1.0.0/16", true),
        ]);
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
        let fingerprints: std::collections::HashSet<_> =
            tables.iter().map(|pools| NatTable::from_pools(pools).unwrap().fingerprint()).collect();
        assert_eq!(fingerprints.len(), tables.len());
    }
}
