//! BGPFilters as functions of BIRD: one for each direction and family that is used.

use std::collections::BTreeSet;

use super::super::session::{BgpPlan, Flow};
use super::BirdText;
use super::problem::BirdProblem;
use super::text::{BirdFamily, is_interface_pattern, symbol};
use crate::printable;
use crate::resources::bgp::{
    BgpFilter, Community, FilterAction, FilterOperation, FilterRule, PeerType, PrefixMatch,
    PrefixOperator,
};

/// Priorities are told as local preferences counted down from here, as Calico does: the lower a
/// priority, the better.
const BEST_PREFERENCE: u32 = 2_147_483_647;

/// The name of the function of a filter.
pub fn function(filter: &str, flow: Flow, family: BirdFamily) -> String {
    let flow = match flow {
        Flow::Export => "export",
        Flow::Import => "import",
    };
    format!("filter_{}_{flow}{}", symbol(filter), family.digit())
}

/// Prints the functions, and returns the names of the filters that have them.
pub fn print<'a>(plan: &'a BgpPlan, output: &mut BirdText) -> BTreeSet<&'a str> {
    let used: BTreeSet<&String> = plan.sessions.values().flat_map(|it| &it.filters).collect();
    let filters = plan.filters.iter().filter(|(name, _)| used.contains(name));
    let mut printed = BTreeSet::new();
    for (name, filter) in filters {
        output.begin(format!("BGPFilter {}", printable(name)));
        for family in BirdFamily::BOTH {
            for flow in [Flow::Export, Flow::Import] {
                print_function(name, filter, flow, family, output);
            }
        }
        printed.insert(name.as_str());
    }
    printed
}

fn print_function(
    name: &str,
    filter: &BgpFilter,
    flow: Flow,
    family: BirdFamily,
    output: &mut BirdText,
) {
    let field = match (flow, family) {
        (Flow::Export, BirdFamily::V4) => "exportV4",
        (Flow::Import, BirdFamily::V4) => "importV4",
        (Flow::Export, BirdFamily::V6) => "exportV6",
        (Flow::Import, BirdFamily::V6) => "importV6",
    };
    let is_v4 = family == BirdFamily::V4;
    let rules = filter.rules(flow, is_v4);
    output.line(format!("function {}(bool is_external) {{", function(name, flow, family)));
    match unusable_rule(rules, is_v4) {
        Some(index) => {
            output.problems.insert(BirdProblem::UnusableFilter {
                filter: name.to_owned(),
                field,
                rule: index,
            });
            output.line("  reject;");
        }
        None => rules.iter().for_each(|rule| output.line(statement(rule))),
    }
    output.line("}");
}

/// The number of the first rule, from 1, that BIRD cannot be told: with it the list rejects
/// everything.
pub fn unusable_rule(rules: &[FilterRule], is_v4: bool) -> Option<usize> {
    let family = if is_v4 { BirdFamily::V4 } else { BirdFamily::V6 };
    rules.iter().position(|rule| !is_sound(rule, family)).map(|index| index + 1)
}

/// Whether BIRD can be told a rule.
fn is_sound(rule: &FilterRule, family: BirdFamily) -> bool {
    let is_prefix_sound = rule.prefix.is_none_or(|prefix| {
        let longest = if family == BirdFamily::V4 { 32 } else { 128 };
        BirdFamily::of(prefix.cidr.addr()) == family
            && prefix.length.is_none_or(|(least, most)| least <= most && most <= longest)
    });
    let priorities = rule.operations.iter().filter_map(|operation| match operation {
        FilterOperation::SetPriority(priority) => Some(*priority),
        _ => None,
    });
    is_prefix_sound
        && rule.interface.as_deref().is_none_or(is_interface_pattern)
        && priorities.chain(rule.priority).all(|priority| priority <= BEST_PREFERENCE)
}

fn statement(rule: &FilterRule) -> String {
    let verdict = match rule.action {
        FilterAction::Accept => {
            let operations: String = rule.operations.iter().map(operation).collect();
            format!("{{ {operations}accept; }}")
        }
        FilterAction::Reject => "reject;".to_owned(),
    };
    let conditions = conditions(rule);
    match conditions.is_empty() {
        true => format!("  {verdict}"),
        false => format!("  if {} then {verdict}", conditions.join(" && ")),
    }
}

fn conditions(rule: &FilterRule) -> Vec<String> {
    let mut conditions: Vec<String> = rule.prefix.iter().map(prefix_condition).collect();
    if rule.is_from_peers {
        conditions.push("source = RTS_BGP".to_owned());
    }
    if let Some(pattern) = &rule.interface {
        conditions.push(format!("defined(ifname) && ifname ~ \"{pattern}\""));
    }
    conditions.extend(rule.peer_type.map(|peer_type| match peer_type {
        PeerType::External => "is_external".to_owned(),
        PeerType::Internal => "! is_external".to_owned(),
    }));
    conditions.extend(rule.communities.iter().map(|community| {
        let (value, list) = community_words(*community);
        format!("{value} ~ {list}")
    }));
    if !rule.as_path_prefix.is_empty() {
        let numbers: String = rule.as_path_prefix.iter().map(|it| format!("{it} ")).collect();
        conditions.push(format!("bgp_path ~ [= {numbers}* =]"));
    }
    conditions.extend(rule.priority.map(|priority| {
        let preference = BEST_PREFERENCE.saturating_sub(priority);
        format!("defined(bgp_local_pref) && bgp_local_pref = {preference}")
    }));
    conditions
}

fn prefix_condition(prefix: &PrefixMatch) -> String {
    let cidr = prefix.cidr.trunc();
    let range = match prefix.length {
        // To BIRD, a range of shorter lengths would mean what the prefix lies in.
        Some((_, most)) if most < cidr.prefix_len() => {
            return (prefix.operator == PrefixOperator::NotIn).to_string();
        }
        Some((least, most)) => format!("{{{},{most}}}", least.max(cidr.prefix_len())),
        None => "+".to_owned(),
    };
    match prefix.operator {
        PrefixOperator::Equal => format!("net = {cidr}"),
        PrefixOperator::NotEqual => format!("net != {cidr}"),
        PrefixOperator::In => format!("net ~ [ {cidr}{range} ]"),
        PrefixOperator::NotIn => format!("net !~ [ {cidr}{range} ]"),
    }
}

fn operation(operation: &FilterOperation) -> String {
    match operation {
        FilterOperation::AddCommunity(community) => adding(*community),
        // Each one is put in front of those before.
        FilterOperation::PrependAsPath(numbers) => {
            numbers.iter().rev().map(|number| format!("bgp_path.prepend({number}); ")).collect()
        }
        FilterOperation::SetPriority(priority) => {
            format!("bgp_local_pref = {}; ", BEST_PREFERENCE.saturating_sub(*priority))
        }
    }
}

/// The statement that adds a community.
pub fn adding(community: Community) -> String {
    let (value, list) = community_words(community);
    format!("{list}.add({value}); ")
}

/// A community, and the attribute that has those of its kind.
fn community_words(community: Community) -> (String, &'static str) {
    match community {
        Community::Standard(high, low) => (format!("({high},{low})"), "bgp_community"),
        Community::Large(one, two, three) => {
            (format!("({one},{two},{three})"), "bgp_large_community")
        }
    }
}
