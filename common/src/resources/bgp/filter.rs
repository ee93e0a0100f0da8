//! BGPFilter: rules about what peers are told and what is taken from them.

use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::community::Community;
use super::read;
use crate::resources::as_number;
use crate::resources::error::{Error, FieldError};
use crate::resources::fields::{self, Fields, Problems, shown};

/// A route's priority (Calico's `api/pkg/apis/projectcalico/v3/bgpfilter.go`).
const PRIORITIES: RangeInclusive<i64> = 1..=2_147_483_646;

/// How many operations a rule may have, and how many AS numbers may be put in front.
const MOST: usize = 10;

/// A BGP filter: the first rule that matches decides, and what none matches goes on to the
/// next filter and to what Weir does without any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpFilter {
    /// Rules about announced IPv4 prefixes.
    pub export_v4: Vec<FilterRule>,
    /// Rules about received IPv4 prefixes.
    pub import_v4: Vec<FilterRule>,
    /// Rules about announced IPv6 prefixes.
    pub export_v6: Vec<FilterRule>,
    /// Rules about received IPv6 prefixes.
    pub import_v6: Vec<FilterRule>,
}

/// One rule. All of its conditions have to hold; one without any matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterRule {
    /// The prefix.
    pub prefix: Option<PrefixMatch>,
    /// Whether it has to be learned from a peer (`source: RemotePeers`).
    pub is_from_peers: bool,
    /// The interface of its next hop, as a shell pattern of letters, digits and `_ . - : @ *`.
    pub interface: Option<String>,
    /// What kind of peer it is told to or taken from.
    pub peer_type: Option<PeerType>,
    /// Communities, all of which it has.
    pub communities: Vec<Community>,
    /// What its AS path begins with.
    pub as_path_prefix: Vec<u32>,
    /// Its priority: the local preference, counted down from 2147483647 (Calico).
    pub priority: Option<u32>,
    /// What becomes of it.
    pub action: FilterAction,
    /// What is done to it; only where it is accepted.
    pub operations: Vec<FilterOperation>,
}

/// Which prefixes a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixMatch {
    /// The range.
    pub cidr: IpNet,
    /// How a prefix is compared with it.
    pub operator: PrefixOperator,
    /// The shortest and the longest length of a prefix, with `In` and `NotIn`.
    pub length: Option<(u8, u8)>,
}

/// How a prefix is compared with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PrefixOperator {
    /// It is the range.
    Equal,
    /// It is not the range.
    NotEqual,
    /// It lies in the range.
    In,
    /// It does not lie in the range.
    NotIn,
}

/// Whether a peer is of another AS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerType {
    /// Of another AS (eBGP).
    External,
    /// Of the same AS (iBGP).
    Internal,
}

/// What becomes of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterAction {
    /// It is announced, or taken.
    Accept,
    /// It is not.
    Reject,
}

/// What is done to an accepted prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterOperation {
    /// It gets a community.
    AddCommunity(Community),
    /// Its AS path gets these numbers in front, in this order.
    PrependAsPath(Vec<u32>),
    /// It gets a priority.
    SetPriority(u32),
}

impl BgpFilter {
    /// Reads a filter from its stored JSON (v3). Unknown fields are passed over.
    ///
    /// # Errors
    /// [`Error::NotJson`], [`Error::NotAnObject`], or [`Error::Invalid`] with
    /// everything that is wrong.
    pub fn from_json(value: &[u8]) -> Result<Self, Error> {
        Self::from_object(&fields::object("BGPFilter", value)?)
    }

    /// As [`BgpFilter::from_json`], from JSON that is parsed already.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything that is wrong.
    pub fn from_object(object: &Map<String, Value>) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let resource = Fields::new(object, "");
        fields::name(&resource, &mut problems);
        let spec = resource.object("spec", "BGPFilter.Spec", &mut problems);
        let mut rules = |key: &str, display: &str, is_v4: bool| {
            let rules = spec.objects(key, display, &mut problems);
            rules.iter().filter_map(|rule| FilterRule::read(rule, is_v4, &mut problems)).collect()
        };
        let filter = Self {
            export_v4: rules("exportV4", "ExportV4", true),
            import_v4: rules("importV4", "ImportV4", true),
            export_v6: rules("exportV6", "ExportV6", false),
            import_v6: rules("importV6", "ImportV6", false),
        };
        problems.into_result(Some(filter))
    }
}

impl FilterRule {
    fn read(rule: &Fields<'_>, is_v4: bool, problems: &mut Problems) -> Option<Self> {
        let actions = [("Accept", FilterAction::Accept), ("Reject", FilterAction::Reject)];
        let action = rule.word("action", "Action", &actions, problems);
        if !rule.is_set("action") {
            let reason = "must be one of Accept, Reject";
            problems.add(FieldError::new(rule.path("Action"), reason));
        }
        let operations = read_operations(rule, problems);
        if !operations.is_empty() && action == Some(FilterAction::Reject) {
            problems.add(
                FieldError::new(rule.path("Operations"), "go with the action Accept alone")
                    .advice("leave them out, or write action: Accept"),
            );
        }
        let interface = rule.text("interface", "Interface", problems);
        let peer_types = [("eBGP", PeerType::External), ("iBGP", PeerType::Internal)];
        let sources = [("RemotePeers", true)];
        Some(Self {
            prefix: read_prefix(rule, is_v4, problems),
            is_from_peers: rule.word("source", "Source", &sources, problems).unwrap_or(false),
            interface: interface
                .and_then(|it| read::interface(it, rule.path("Interface"), problems)),
            peer_type: rule.word("peerType", "PeerType", &peer_types, problems),
            communities: read_communities(rule, problems),
            as_path_prefix: read_as_numbers(rule, "asPathPrefix", "ASPathPrefix", problems),
            priority: rule.ranged("priority", "Priority", PRIORITIES, problems),
            operations,
            action: action?,
        })
    }
}

fn read_prefix(rule: &Fields<'_>, is_v4: bool, problems: &mut Problems) -> Option<PrefixMatch> {
    let operators = [
        ("Equal", PrefixOperator::Equal),
        ("NotEqual", PrefixOperator::NotEqual),
        ("In", PrefixOperator::In),
        ("NotIn", PrefixOperator::NotIn),
    ];
    let operator = rule.word("matchOperator", "MatchOperator", &operators, problems);
    let cidr = read_cidr(rule, is_v4, problems);
    if rule.is_set("cidr") != rule.is_set("matchOperator") {
        let (absent, other) = match rule.is_set("cidr") {
            true => ("MatchOperator", "cidr"),
            false => ("CIDR", "matchOperator"),
        };
        let reason = format!("must be specified together with {other}");
        problems.add(FieldError::new(rule.path(absent), reason));
    }
    if rule.is_set("prefixLength") && !rule.is_set("cidr") {
        problems.add(FieldError::new(rule.path("PrefixLength"), "needs cidr and matchOperator"));
    }
    let (cidr, operator) = (cidr?, operator?);
    Some(PrefixMatch { cidr, operator, length: read_length(rule, cidr, operator, problems) })
}

fn read_cidr(rule: &Fields<'_>, is_v4: bool, problems: &mut Problems) -> Option<IpNet> {
    let cidr = read::range(rule, problems)?;
    if matches!(cidr, IpNet::V4(_)) == is_v4 {
        return Some(cidr);
    }
    let version = if is_v4 { 4 } else { 6 };
    let reason = format!("must be of IPv{version} in this list");
    problems.add(FieldError::new(rule.path("CIDR"), reason).value(cidr));
    None
}

/// Reads the lengths of prefixes. Those in a range are as long as the range at least.
fn read_length(
    rule: &Fields<'_>,
    cidr: IpNet,
    operator: PrefixOperator,
    problems: &mut Problems,
) -> Option<(u8, u8)> {
    if !rule.is_set("prefixLength") {
        return None;
    }
    let (shortest, longest) = (cidr.prefix_len(), cidr.max_prefix_len());
    let lengths = rule.object("prefixLength", "PrefixLength", problems);
    let mut read = |key, display, default| {
        let length = lengths.ranged(key, display, 0..=i64::from(longest), problems);
        length.unwrap_or(default)
    };
    let (least, most): (u8, u8) = (read("min", "Min", shortest), read("max", "Max", longest));
    let least = least.max(shortest);
    let path = rule.path("PrefixLength");
    if !matches!(operator, PrefixOperator::In | PrefixOperator::NotIn) {
        problems.add(FieldError::new(path, "goes with matchOperator In or NotIn"));
    } else if least > most {
        let reason = format!("no prefix in {cidr} has a length from {least} to {most}");
        problems.add(FieldError::new(path, reason));
    }
    Some((least, most))
}

fn read_communities(rule: &Fields<'_>, problems: &mut Problems) -> Vec<Community> {
    if !rule.is_set("communities") {
        return Vec::new();
    }
    let communities = rule.object("communities", "Communities", problems);
    let path = communities.path("Values");
    let values = communities.texts("values", "Values", problems);
    if values.is_empty() {
        problems.add(FieldError::new(path.clone(), "must have a community at least"));
    }
    values.into_iter().filter_map(|value| read::community(value, path.clone(), problems)).collect()
}

/// Reads a list of AS numbers, none of which is 0 (RFC 7607).
fn read_as_numbers(
    object: &Fields<'_>,
    key: &str,
    display: &str,
    problems: &mut Problems,
) -> Vec<u32> {
    let path = object.path(display);
    let Some(value) = object.any(key) else { return Vec::new() };
    let Some(values) = value.as_array() else {
        problems.add(FieldError::new(path, "must be a list of AS numbers").value(shown(value)));
        return Vec::new();
    };
    let mut numbers = Vec::new();
    for value in values {
        match as_number::from_value(value).filter(|number| *number != 0) {
            Some(number) => numbers.push(number),
            None => problems.add(
                FieldError::new(path.clone(), "must be AS numbers, 1 to 4294967295")
                    .value(shown(value)),
            ),
        }
    }
    numbers
}

fn read_operations(rule: &Fields<'_>, problems: &mut Problems) -> Vec<FilterOperation> {
    let operations = rule.objects("operations", "Operations", problems);
    if operations.len() > MOST {
        let reason = format!("a rule has at most {MOST} operations");
        problems.add(FieldError::new(rule.path("Operations"), reason));
    }
    operations.iter().filter_map(|operation| read_operation(operation, problems)).collect()
}

fn read_operation(operation: &Fields<'_>, problems: &mut Problems) -> Option<FilterOperation> {
    let known = ["addCommunity", "prependASPath", "setPriority"];
    let mut given = known.into_iter().filter(|key| operation.is_set(key));
    let (Some(key), None) = (given.next(), given.next()) else {
        let reason = "an operation is one of addCommunity, prependASPath, setPriority";
        problems.add(FieldError::new(operation.own_path(), reason));
        return None;
    };
    match key {
        "addCommunity" => {
            let add = operation.object(key, "AddCommunity", problems);
            let value = add.text("value", "Value", problems).unwrap_or_default();
            let community = read::community(value, add.path("Value"), problems);
            community.map(FilterOperation::AddCommunity)
        }
        "prependASPath" => {
            let prepend = operation.object(key, "PrependASPath", problems);
            let numbers = read_as_numbers(&prepend, "prefix", "Prefix", problems);
            if !(1..=MOST).contains(&numbers.len()) {
                let reason = format!("must be 1 to {MOST} AS numbers");
                problems.add(FieldError::new(prepend.path("Prefix"), reason));
            }
            Some(FilterOperation::PrependAsPath(numbers))
        }
        _ => {
            let set = operation.object(key, "SetPriority", problems);
            if !set.is_set("value") {
                problems.add(FieldError::new(set.path("Value"), "must be specified"));
            }
            let priority = set.ranged("value", "Value", PRIORITIES, problems);
            priority.map(FilterOperation::SetPriority)
        }
    }
}

#[cfg(test)]
mod tests;
