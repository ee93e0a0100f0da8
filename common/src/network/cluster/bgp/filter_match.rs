//! What BGPFilters do with a prefix, as far as that is known before a daemon has it.

use ipnet::IpNet;

use super::bird::unusable_rule;
use super::session::Flow;
use crate::resources::bgp::{
    BgpFilter, Community, FilterAction, FilterRule, PeerType, PrefixMatch, PrefixOperator,
};

/// What is known of a prefix that would be told to a peer, or taken from it.
#[derive(Clone, Debug)]
pub struct Announced {
    /// The prefix.
    pub prefix: IpNet,
    /// Whether another node announced it.
    pub is_from_peers: bool,
    /// What kind of peer it is.
    pub peer: PeerType,
    /// Its communities; `None` where others have given it some.
    pub communities: Option<Vec<Community>>,
}

/// What the filters of a session make of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterVerdict {
    /// No rule matches.
    Unmatched,
    /// This rule decides: the filter's name and the rule's number from 1.
    Decided(String, usize, FilterAction),
    /// It depends on what only the daemon knows whether this rule matches.
    Depends(String, usize),
    /// The filter is not there: everything is rejected.
    Missing(String),
    /// BIRD cannot be told this rule: what no filter before decides about is rejected.
    Unusable(String, usize),
}

/// The first rule of the filters, in their order, that decides about an announcement.
pub fn judge<'a>(
    flow: Flow,
    filters: impl IntoIterator<Item = (&'a str, Option<&'a BgpFilter>)> + Clone,
    announced: &Announced,
) -> FilterVerdict {
    if let Some((name, _)) = filters.clone().into_iter().find(|(_, filter)| filter.is_none()) {
        return FilterVerdict::Missing(name.to_owned());
    }
    let is_v4 = announced.prefix.addr().is_ipv4();
    for (name, filter) in filters {
        let rules = filter.map(|it| it.rules(flow, is_v4)).unwrap_or_default();
        if let Some(number) = unusable_rule(rules, is_v4) {
            return FilterVerdict::Unusable(name.to_owned(), number);
        }
        for (index, rule) in rules.iter().enumerate() {
            match matches(rule, announced) {
                Some(false) => {}
                Some(true) => {
                    return FilterVerdict::Decided(name.to_owned(), index + 1, rule.action);
                }
                None => return FilterVerdict::Depends(name.to_owned(), index + 1),
            }
        }
    }
    FilterVerdict::Unmatched
}

/// Whether a rule matches; `None` where it depends on what is not known.
fn matches(rule: &FilterRule, announced: &Announced) -> Option<bool> {
    let of_prefix = rule.prefix.is_none_or(|prefix| prefix.matches(announced.prefix));
    let of_source = !rule.is_from_peers || announced.is_from_peers;
    let of_peer = rule.peer_type.is_none_or(|kind| kind == announced.peer);
    let has = |community| announced.communities.as_ref().map(|all| all.contains(community));
    let of_communities: Vec<Option<bool>> = rule.communities.iter().map(has).collect();
    // A path that this node starts is empty.
    let of_path = match rule.as_path_prefix.is_empty() {
        true => Some(true),
        false => (!announced.is_from_peers).then_some(false),
    };
    let of_daemon = (rule.interface.is_none() && rule.priority.is_none()).then_some(true);
    let all = [Some(of_prefix), Some(of_source), Some(of_peer), of_path, of_daemon];
    let all = [all.as_slice(), of_communities.as_slice()].concat();
    let is_certain = all.contains(&Some(false)) || !all.contains(&None);
    is_certain.then(|| !all.contains(&Some(false)))
}

impl PrefixMatch {
    /// Whether the condition holds for a prefix.
    pub fn matches(&self, prefix: IpNet) -> bool {
        let (shortest, longest) = self.length.unwrap_or((0, 128));
        let is_in =
            self.cidr.contains(&prefix) && (shortest..=longest).contains(&prefix.prefix_len());
        match self.operator {
            PrefixOperator::Equal => self.cidr.trunc() == prefix,
            PrefixOperator::NotEqual => self.cidr.trunc() != prefix,
            PrefixOperator::In => is_in,
            PrefixOperator::NotIn => !is_in,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn some_net() -> impl Strategy<Value = IpNet> {
        (0u32..8, 26u8..=32).prop_map(|(host, length)| {
            let address = Ipv4Addr::from(0x0a00_0000 + host * 16);
            IpNet::new(address.into(), length).unwrap().trunc()
        })
    }

    fn some_rule() -> impl Strategy<Value = FilterRule> {
        let operator = prop::sample::select(vec![
            PrefixOperator::Equal,
            PrefixOperator::NotEqual,
            PrefixOperator::In,
            PrefixOperator::NotIn,
        ]);
        let length = prop::option::of((26u8..28, 28u8..=32));
        let prefix = (some_net(), operator, length)
            .prop_map(|(cidr, operator, length)| PrefixMatch { cidr, operator, length });
        let peer = prop::sample::select(vec![PeerType::External, PeerType::Internal]);
        (prop::option::of(prefix), any::<bool>(), prop::option::of(peer), any::<bool>()).prop_map(
            |(prefix, is_from_peers, peer_type, accepts)| FilterRule {
                prefix,
                is_from_peers,
                interface: None,
                peer_type,
                communities: Vec::new(),
                as_path_prefix: Vec::new(),
                priority: None,
                action: if accepts { FilterAction::Accept } else { FilterAction::Reject },
                operations: Vec::new(),
            },
        )
    }

    /// Bit by bit, as RFC 4632 has it.
    fn lies_in(inner: IpNet, outer: IpNet) -> bool {
        let bits = |net: IpNet| match net.addr() {
            std::net::IpAddr::V4(address) => u32::from(address),
            std::net::IpAddr::V6(_) => unreachable!(),
        };
        let same = |bit: u8| bits(inner) >> (31 - bit) & 1 == bits(outer) >> (31 - bit) & 1;
        inner.prefix_len() >= outer.prefix_len() && (0..outer.prefix_len()).all(same)
    }

    fn holds(rule: &FilterRule, announced: &Announced) -> bool {
        let of_prefix = rule.prefix.is_none_or(|it| {
            let lengths = it.length.is_none_or(|(least, most)| {
                least <= announced.prefix.prefix_len() && announced.prefix.prefix_len() <= most
            });
            let is_in = lies_in(announced.prefix, it.cidr) && lengths;
            match it.operator {
                PrefixOperator::Equal => announced.prefix == it.cidr,
                PrefixOperator::NotEqual => announced.prefix != it.cidr,
                PrefixOperator::In => is_in,
                PrefixOperator::NotIn => !is_in,
            }
        });
        let of_source = if rule.is_from_peers { announced.is_from_peers } else { true };
        of_prefix && of_source && [None, Some(announced.peer)].contains(&rule.peer_type)
    }

    proptest! {
        #[test]
        fn the_first_rule_that_holds_decides(
            rules in prop::collection::vec(prop::collection::vec(some_rule(), 0..4), 0..3),
            prefix in some_net(),
            is_from_peers in any::<bool>(),
        ) {
            let announced =
                Announced { prefix, is_from_peers, peer: PeerType::External, communities: None };
            let filters: Vec<BgpFilter> = rules
                .iter()
                .map(|rules| BgpFilter { export_v4: rules.clone(), ..BgpFilter::default() })
                .collect();
            let named = filters.iter().map(|filter| ("f", Some(filter)));
            let numbered =
                rules.iter().flat_map(|rules| rules.iter().enumerate().map(|(at, it)| (at + 1, it)));
            let first = numbered.into_iter().find(|(_, rule)| holds(rule, &announced));
            let expected = first.map_or(FilterVerdict::Unmatched, |(number, rule)| {
                FilterVerdict::Decided("f".to_owned(), number, rule.action)
            });
            let named = named.collect::<Vec<_>>();
            prop_assert_eq!(judge(Flow::Export, named, &announced), expected);
        }
    }

    #[test]
    fn what_only_the_daemon_knows_is_not_guessed() {
        let own = Announced {
            prefix: "10.0.0.0/26".parse().unwrap(),
            is_from_peers: false,
            peer: PeerType::Internal,
            communities: Some(vec![Community::Standard(1, 2)]),
        };
        let plain = FilterRule {
            prefix: None,
            is_from_peers: false,
            interface: None,
            peer_type: None,
            communities: Vec::new(),
            as_path_prefix: Vec::new(),
            priority: None,
            action: FilterAction::Reject,
            operations: Vec::new(),
        };
        let with = |communities| FilterRule { communities, ..plain.clone() };
        let path = FilterRule { as_path_prefix: vec![65000], ..plain.clone() };
        let interface = FilterRule { interface: Some("eth*".into()), ..plain.clone() };
        let learned = Announced { is_from_peers: true, communities: None, ..own.clone() };
        for (rule, announced, expected) in [
            (&plain, &own, Some(true)),
            (&with(vec![Community::Standard(1, 2)]), &own, Some(true)),
            (&with(vec![Community::Standard(1, 3)]), &own, Some(false)),
            (&with(vec![Community::Standard(1, 2)]), &learned, None),
            (&path, &own, Some(false)),
            (&path, &learned, None),
            (&interface, &own, None),
            (&FilterRule { is_from_peers: true, ..interface.clone() }, &own, Some(false)),
        ] {
            assert_eq!(matches(rule, announced), expected, "{rule:?}");
        }
        let filter = BgpFilter { export_v4: vec![plain], ..BgpFilter::default() };
        let missing = [("there", Some(&filter)), ("gone", None)];
        assert_eq!(judge(Flow::Export, missing, &own), FilterVerdict::Missing("gone".into()));
        // One that decides before counts all the same.
        let length = Some((30, 26));
        let cidr = "10.0.0.0/24".parse().unwrap();
        let prefix = Some(PrefixMatch { cidr, operator: PrefixOperator::In, length });
        let bad = BgpFilter { export_v4: vec![FilterRule { prefix, ..path }], ..filter.clone() };
        let verdict = |filters| judge(Flow::Export, filters, &own);
        let unusable = FilterVerdict::Unusable("bad".into(), 1);
        assert_eq!(verdict([("bad", Some(&bad)), ("there", Some(&filter))]), unusable);
        let decided = FilterVerdict::Decided("there".into(), 1, FilterAction::Reject);
        assert_eq!(verdict([("there", Some(&filter)), ("bad", Some(&bad))]), decided);
        let import = [("bad", Some(&bad))];
        assert_eq!(judge(Flow::Import, import, &own), FilterVerdict::Unmatched);
    }
}
