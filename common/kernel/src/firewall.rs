//! What other programs' rules do to what the node forwards, as the kernel has them.

use std::collections::BTreeMap;
use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use weir_common::network::{
    ForwardChain, ForwardFilters, ForwardRule, PolicyRule, RuleEffect, RulePackets, TableFamily,
    TableName,
};

use crate::Kernel;
use crate::error::Error;
use crate::message::{all_routes, destination, table_of};
use crate::nfnetlink::{FAMILY_HEADER, attributes, find, list, name_attribute};
use crate::route::nothing_there;

/// Names the tables of the old iptables that are in use, one on each line.
const LEGACY: [&str; 2] = ["/proc/self/net/ip_tables_names", "/proc/self/net/ip6_tables_names"];

/// The kernel's own tables for routes: default, main, local.
const OWN_TABLES: [u32; 3] = [253, 254, 255];

/// Numbers of `linux/netfilter/nf_tables.h`, and of hooks and verdicts of `linux/netfilter.h`.
mod abi {
    pub(super) const GET_TABLE: u16 = 10 << 8 | 1;
    pub(super) const GET_CHAIN: u16 = 10 << 8 | 4;
    pub(super) const GET_RULE: u16 = 10 << 8 | 7;
    pub(super) const HOOK_FORWARD: u32 = 2;
    pub(super) const TABLE_NAME: u16 = 1;
    pub(super) const TABLE_FLAGS: u16 = 2;
    pub(super) const DORMANT: u32 = 1;
    pub(super) const CHAIN_NAME: u16 = 3;
    pub(super) const CHAIN_HOOK: u16 = 4;
    pub(super) const HOOK_NUMBER: u16 = 1;
    pub(super) const CHAIN_POLICY: u16 = 5;
    pub(super) const RULE_CHAIN: u16 = 2;
    pub(super) const RULE_EXPRESSIONS: u16 = 4;
    pub(super) const EXPRESSION_NAME: u16 = 1;
    pub(super) const EXPRESSION_DATA: u16 = 2;
    pub(super) const IMMEDIATE_DATA: u16 = 2;
    pub(super) const VERDICT: u16 = 2;
    pub(super) const VERDICT_CODE: u16 = 1;
    pub(super) const VERDICT_CHAIN: u16 = 2;
    pub(super) const META_REGISTER: u16 = 1;
    pub(super) const META_KEY: u16 = 2;
    /// The name of the link that a packet comes by, and of the one that it goes by.
    pub(super) const META_IN: u32 = 6;
    pub(super) const META_OUT: u32 = 7;
    pub(super) const CMP_REGISTER: u16 = 1;
    pub(super) const CMP_OPERATION: u16 = 2;
    pub(super) const CMP_DATA: u16 = 3;
    pub(super) const EQUAL: u32 = 0;
    pub(super) const LOOKUP_RESULT: u16 = 3;
    pub(super) const VALUE: u16 = 1;
    pub(super) const TARGET_NAME: u16 = 1;
    pub(super) const DROP: u32 = 0;
    pub(super) const JUMP: u32 = -3i32 as u32;
    pub(super) const GOTO: u32 = -4i32 as u32;
    pub(super) const RETURN: u32 = -5i32 as u32;
    pub(super) const CONTINUE: u32 = -1i32 as u32;
}

/// Expressions that match, note or change packets and accept none.
const HARMLESS: [&str; 16] = [
    "bitwise",
    "byteorder",
    "cmp",
    "connlimit",
    "ct",
    "exthdr",
    "fib",
    "hash",
    "limit",
    "match",
    "meta",
    "numgen",
    "payload",
    "range",
    "rt",
    "socket",
];

/// Expressions, and targets of iptables, that let a packet go on, whichever it is.
const PASSED_BY_ALL: [&str; 5] = ["comment", "counter", "log", "LOG", "NFLOG"];

/// What the names of all host ends begin with.
const HOST_ENDS: &[u8] = b"weir";

/// Targets of iptables that accept nothing and are no end.
const MARKING: [&str; 5] = ["MARK", "CONNMARK", "TCPMSS", "SET", "CT"];

/// The rules of chains, in order.
type Rules = BTreeMap<(TableName, String), Vec<ForwardRule>>;

impl Kernel {
    /// The filters of what the node forwards: one request where there is none. What the kernel
    /// does not list, as while another program replaces its table, is no finding. A kernel
    /// without nftables has no such filters.
    pub fn forward_filters(&self) -> ForwardFilters {
        let chains = list(abi::GET_CHAIN, 0, &[], |body| chain(body).is_some());
        let chains = chains.unwrap_or_default();
        let chains = chains.iter().filter_map(|body| chain(body));
        ForwardFilters { legacy: has_legacy_filter(), ..dropping(chains, rules, is_active) }
    }

    /// The policy rules (`ip rule`) that send packets by tables other than the kernel's own.
    ///
    /// # Errors
    /// The kernel refuses a list.
    pub async fn policy_rules(&self) -> Result<Vec<PolicyRule>, Error> {
        let mut rules = Vec::new();
        for v6 in [false, true] {
            let mut request = RuleMessage::default();
            let family = all_routes(v6).header.address_family;
            request.header.family = family;
            let listed = match self.host.dump(RouteNetlinkMessage::GetRule(request)).await {
                Err(cause) if nothing_there(&cause) => Vec::new(),
                outcome => outcome.map_err(|cause| Error::refused("ip rule show", cause))?,
            };
            let of_table = |message| match message {
                // As with routes, a kernel without IPv6 lists those of other families for it.
                RouteNetlinkMessage::NewRule(rule) if rule.header.family == family => {
                    policy_rule(&rule)
                }
                _ => None,
            };
            let mut found: Vec<PolicyRule> = listed.into_iter().filter_map(of_table).collect();
            if !found.is_empty() {
                let routes = self.host.routes(all_routes(v6)).await?;
                for rule in &mut found {
                    let of_table = routes.iter().filter(|route| table_of(route) == rule.table);
                    rule.routes = of_table.map(destination).collect();
                }
            }
            rules.extend(found);
        }
        Ok(rules)
    }
}

/// A rule with a source that sends packets by another table than the kernel's own.
fn policy_rule(message: &RuleMessage) -> Option<PolicyRule> {
    let (mut source, mut table, mut priority) = (None, u32::from(message.header.table), 0);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Source(address) => source = Some(*address),
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Priority(number) => priority = *number,
            _ => {}
        }
    }
    let source = ipnet::IpNet::new(source?, message.header.src_len).ok()?;
    let is_other = message.header.action == RuleAction::ToTable && !OWN_TABLES.contains(&table);
    is_other.then_some(PolicyRule { priority, source, table, routes: Vec::new() })
}

/// Those of the chains that may drop all, with the rules of their tables, as far as both are
/// listed.
fn dropping(
    chains: impl Iterator<Item = ForwardChain>,
    rules: impl Fn(&TableName, Option<&str>) -> io::Result<Rules>,
    is_active: impl Fn(&TableName) -> io::Result<bool>,
) -> ForwardFilters {
    let rules_of = |chain: &ForwardChain| -> io::Result<Option<Rules>> {
        // Without a policy to drop, a rule of the chain itself decides whether all is dropped.
        let own = rules(&chain.table, Some(&chain.name))?;
        let drops_all = own.values().flatten().any(|rule| rule.effect == RuleEffect::DropAll);
        if !chain.drops && !drops_all {
            return Ok(None);
        }
        let of_table = rules(&chain.table, None)?;
        // A table that is gone by now has no rules.
        Ok(is_active(&chain.table)?.then_some(of_table))
    };
    let mut filters = ForwardFilters::default();
    for chain in chains {
        if let Ok(Some(rules)) = rules_of(&chain) {
            filters.rules.extend(rules);
            filters.chains.push(chain);
        }
    }
    filters
}

fn has_legacy_filter() -> bool {
    LEGACY.iter().any(|file| {
        std::fs::read_to_string(file).is_ok_and(|tables| tables.lines().any(|it| it == "filter"))
    })
}

/// A base chain of the forward hook, of a family that sees IP packets.
fn chain(body: &[u8]) -> Option<ForwardChain> {
    let family = match body.first()? {
        1 => TableFamily::Inet,
        2 => TableFamily::Ip,
        10 => TableFamily::Ip6,
        _ => return None,
    };
    let attributes = body.get(FAMILY_HEADER..)?;
    let hook = find(attributes, abi::CHAIN_HOOK)?;
    let is_forward = number(hook, abi::HOOK_NUMBER) == Some(abi::HOOK_FORWARD);
    is_forward.then_some(ForwardChain {
        table: (family, text(attributes, abi::TABLE_NAME)?),
        name: text(attributes, abi::CHAIN_NAME)?,
        drops: number(attributes, abi::CHAIN_POLICY) == Some(abi::DROP),
    })
}

/// The rules of a table, or of one of its chains.
fn rules((family, table): &TableName, chain: Option<&str>) -> io::Result<Rules> {
    let mut wanted = name_attribute(abi::TABLE_NAME, table);
    wanted.extend(chain.into_iter().flat_map(|chain| name_attribute(abi::RULE_CHAIN, chain)));
    let mut rules = Rules::new();
    for body in list(abi::GET_RULE, number_of(*family), &wanted, |_| true)? {
        let attributes = body.get(FAMILY_HEADER..).unwrap_or_default();
        if text(attributes, abi::TABLE_NAME).as_ref() != Some(table) {
            continue;
        }
        if let Some(name) = text(attributes, abi::RULE_CHAIN) {
            let key = ((*family, table.clone()), name);
            let expressions = find(attributes, abi::RULE_EXPRESSIONS).unwrap_or_default();
            rules.entry(key).or_default().push(rule(expressions));
        }
    }
    Ok(rules)
}

/// Whether a table is there, and not switched off with all its chains (`flags dormant`).
fn is_active((family, table): &TableName) -> io::Result<bool> {
    let is_it = |body: &[u8]| {
        let attributes = body.get(FAMILY_HEADER..).unwrap_or_default();
        body.first() == Some(&number_of(*family))
            && text(attributes, abi::TABLE_NAME).as_ref() == Some(table)
            && number(attributes, abi::TABLE_FLAGS).is_none_or(|flags| flags & abi::DORMANT == 0)
    };
    Ok(!list(abi::GET_TABLE, number_of(*family), &[], is_it)?.is_empty())
}

/// What a rule of these expressions does. What is not known may accept.
fn rule(expressions: &[u8]) -> ForwardRule {
    let (mut accepts, mut leads_on, mut drops, mut is_for_all) = (false, None, false, true);
    let (mut links, mut loaded) = (Vec::new(), None);
    // What its packets must be, and whether that is to come or go by host ends.
    let (mut conditions, mut host_ends) = (0, None);
    for (_, expression) in attributes(expressions) {
        let data = find(expression, abi::EXPRESSION_DATA).unwrap_or_default();
        let name = text(expression, abi::EXPRESSION_NAME).unwrap_or_default();
        let name = match name.as_str() {
            "target" => text(data, abi::TARGET_NAME).unwrap_or_default(),
            "match" if text(data, abi::TARGET_NAME).as_deref() == Some("comment") => {
                "comment".to_owned()
            }
            _ => name,
        };
        match name.as_str() {
            "immediate" => match verdict(data) {
                Some((abi::DROP, _)) => drops = true,
                Some((abi::JUMP, Some(chain))) => leads_on = Some(RuleEffect::Chain(chain)),
                Some((abi::GOTO, Some(chain))) => leads_on = Some(RuleEffect::GoTo(chain)),
                Some((abi::RETURN, _)) => leads_on = Some(RuleEffect::Return),
                Some((abi::CONTINUE, _)) => {}
                Some(_) => accepts = true,
                // A value for a register.
                None => {}
            },
            "reject" | "REJECT" | "DROP" => drops = true,
            other if PASSED_BY_ALL.contains(&other) => {}
            "lookup" => {
                is_for_all = false;
                conditions += 1;
                // Into the verdict.
                accepts |= number(data, abi::LOOKUP_RESULT) == Some(0);
            }
            other => {
                is_for_all = false;
                accepts |= !HARMLESS.contains(&other) && !MARKING.contains(&other);
                match other {
                    "cmp" => {
                        conditions += 1;
                        let name = compared_name(data, loaded);
                        links.extend(name.filter(|name| name.contains(&0)).map(as_text));
                        if name == Some(HOST_ENDS) {
                            host_ends = loaded.map(|(key, _)| key);
                        }
                    }
                    "meta" => loaded = loaded_name(data),
                    // It may use the same register.
                    _ => {
                        conditions += 1;
                        loaded = None;
                    }
                }
            }
        }
    }
    let effect = match leads_on {
        _ if accepts => RuleEffect::Accept,
        Some(effect) => effect,
        None if drops && is_for_all => RuleEffect::DropAll,
        None => RuleEffect::Other,
    };
    let packets = match (conditions, host_ends) {
        (0, _) if is_for_all => RulePackets::All,
        (1, Some(abi::META_IN)) => RulePackets::FromContainers,
        (1, Some(abi::META_OUT)) => RulePackets::ToContainers,
        _ => RulePackets::Others,
    };
    ForwardRule { effect, packets, links }
}

/// The verdict that an expression sets, as code and chain.
fn verdict(data: &[u8]) -> Option<(u32, Option<String>)> {
    let verdict = find(find(data, abi::IMMEDIATE_DATA)?, abi::VERDICT)?;
    let code = number(verdict, abi::VERDICT_CODE)?;
    Some((code, text(verdict, abi::VERDICT_CHAIN)))
}

/// Which name of a packet's link is loaded, and into which register.
fn loaded_name(data: &[u8]) -> Option<(u32, u32)> {
    let key = number(data, abi::META_KEY)?;
    let is_name = [abi::META_IN, abi::META_OUT].contains(&key);
    is_name.then(|| Some((key, number(data, abi::META_REGISTER)?)))?
}

/// The name that a packet's link must have, with its end (a zero), or how the name must begin.
fn compared_name(data: &[u8], loaded: Option<(u32, u32)>) -> Option<&[u8]> {
    let is_of_link = number(data, abi::CMP_REGISTER) == Some(loaded?.1);
    let is_equal = number(data, abi::CMP_OPERATION) == Some(abi::EQUAL);
    let value = find(find(data, abi::CMP_DATA)?, abi::VALUE)?;
    (is_of_link && is_equal).then_some(value)
}

fn number_of(family: TableFamily) -> u8 {
    match family {
        TableFamily::Inet => 1,
        TableFamily::Ip => 2,
        TableFamily::Ip6 => 10,
    }
}

fn text(bytes: &[u8], wanted: u16) -> Option<String> {
    find(bytes, wanted).map(as_text)
}

/// The text up to its end, a zero.
fn as_text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// A number in the network's order.
fn number(bytes: &[u8], wanted: u16) -> Option<u32> {
    find(bytes, wanted)?.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_is_no_finding() {
        let chain = |table: &str| ForwardChain {
            table: (TableFamily::Inet, table.to_owned()),
            name: "forward".to_owned(),
            drops: true,
        };
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let rules = |table: &TableName, chain: Option<&str>| match (table.1.as_str(), chain) {
            ("replaced", _) | ("replaced later", None) => Err(gone()),
            _ => Ok(Rules::new()),
        };
        let is_active = |table: &TableName| match table.1.as_str() {
            "changing" => Err(io::ErrorKind::Interrupted.into()),
            name => Ok(name != "removed"),
        };
        let tables = ["replaced", "replaced later", "changing", "removed", "stays"];
        let found = dropping(tables.into_iter().map(chain), rules, is_active);
        assert_eq!(found.chains, [chain("stays")]);
    }
}
