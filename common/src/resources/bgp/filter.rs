//! BGPFilter: rules about what peers are told and what is taken from them.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::community::Community;

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
    /// Its priority: the kernel's metric where it is announced, BIRD's `krt_metric`.
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
