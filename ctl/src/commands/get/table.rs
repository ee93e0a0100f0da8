//! The columns of each kind, as calicoctl has them
//! (`calicoctl/calicoctl/resourcemgr`).

use serde_json::Value;
use weir_common::resources::bgp::{BGP_DEFAULT_NAME, BgpConfiguration};
use weir_common::resources::{DEFAULT_AS_NUMBER, Kind, Resource};

use crate::output::{Style, columns as layout};
use crate::session::{Failure, Session};

/// The longest list of ranges in a cell, in characters.
const LONGEST_LIST: usize = 80;

/// A column: its title and what it shows.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The title.
    pub title: &'static str,
    content: Content,
}

/// What a column shows of a resource.
#[derive(Clone, Copy, Debug)]
enum Content {
    /// Its name.
    Name,
    /// The value at this path in its spec, and what stands there when there
    /// is none.
    Spec(&'static [&'static str], &'static str),
    /// The texts in this list of its spec.
    List(&'static str),
    /// The number of items in this list of its spec.
    Count(&'static str),
    /// The nodes that a BGP peer is about.
    PeerNodes,
    /// A node's AS number; in parentheses when it is the cluster's.
    AsNumber,
}

const fn name() -> Column {
    Column { title: "NAME", content: Content::Name }
}

const fn spec(title: &'static str, path: &'static [&'static str], absent: &'static str) -> Column {
    Column { title, content: Content::Spec(path, absent) }
}

const fn count(title: &'static str, key: &'static str) -> Column {
    Column { title, content: Content::Count(key) }
}

const POOL: &[Column] =
    &[name(), spec("CIDR", &["cidr"], ""), spec("SELECTOR", &["nodeSelector"], "all()")];

const WIDE_POOL: &[Column] = &[
    name(),
    spec("CIDR", &["cidr"], ""),
    spec("NAT", &["natOutgoing"], "false"),
    spec("IPIPMODE", &["ipipMode"], "Never"),
    spec("VXLANMODE", &["vxlanMode"], "Never"),
    spec("DISABLED", &["disabled"], "false"),
    spec("DISABLEBGPEXPORT", &["disableBGPExport"], "false"),
    spec("SELECTOR", &["nodeSelector"], "all()"),
    spec("ASSIGNMENTMODE", &["assignmentMode"], "Automatic"),
];

const WIDE_RESERVATION: &[Column] =
    &[name(), Column { title: "CIDRS", content: Content::List("reservedCIDRs") }];

const WIDE_NODE: &[Column] = &[
    name(),
    Column { title: "ASN", content: Content::AsNumber },
    spec("IPV4", &["bgp", "ipv4Address"], ""),
    spec("IPV6", &["bgp", "ipv6Address"], ""),
];

const WIDE_IPAM_CONFIG: &[Column] = &[
    name(),
    spec("STRICTAFFINITY", &["strictAffinity"], "false"),
    spec("AUTOALLOCATEBLOCKS", &["autoAllocateBlocks"], "true"),
    spec("MAXBLOCKSPERHOST", &["maxBlocksPerHost"], "0"),
];

const BGP_CONFIGURATION: &[Column] = &[
    name(),
    spec("LOGSEVERITY", &["logSeverityScreen"], ""),
    spec("MESHENABLED", &["nodeToNodeMeshEnabled"], "-"),
    spec("ASNUMBER", &["asNumber"], "-"),
];

const BGP_PEER: &[Column] = &[
    name(),
    spec("PEERIP", &["peerIP"], ""),
    Column { title: "NODE", content: Content::PeerNodes },
    spec("ASN", &["asNumber"], "0"),
];

const BGP_FILTER: &[Column] = &[
    name(),
    count("NUMEXPORTV4", "exportV4"),
    count("NUMIMPORTV4", "importV4"),
    count("NUMEXPORTV6", "exportV6"),
    count("NUMIMPORTV6", "importV6"),
];

const WIDE_NODE_STATUS: &[Column] = &[
    name(),
    spec("NODE", &["node"], ""),
    Column { title: "CLASSES", content: Content::List("classes") },
];

const FELIX_CONFIGURATION: &[Column] = &[name()];

/// The columns of a kind's short table.
pub fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::IpPool => POOL,
        Kind::IpReservation => &WIDE_RESERVATION[..1],
        Kind::Node => &WIDE_NODE[..1],
        Kind::IpamConfig => &WIDE_IPAM_CONFIG[..3],
        Kind::CalicoNodeStatus => &WIDE_NODE_STATUS[..2],
        Kind::BgpConfiguration | Kind::BgpPeer | Kind::BgpFilter | Kind::FelixConfiguration => {
            wide_columns(kind)
        }
    }
}

/// The columns of a kind's wide table.
pub fn wide_columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::IpPool => WIDE_POOL,
        Kind::IpReservation => WIDE_RESERVATION,
        Kind::Node => WIDE_NODE,
        Kind::IpamConfig => WIDE_IPAM_CONFIG,
        Kind::BgpConfiguration => BGP_CONFIGURATION,
        Kind::BgpPeer => BGP_PEER,
        Kind::BgpFilter => BGP_FILTER,
        Kind::CalicoNodeStatus => WIDE_NODE_STATUS,
        Kind::FelixConfiguration => FELIX_CONFIGURATION,
    }
}

/// The cluster's AS number, read only if a column needs it. A configuration that breaks a rule
/// counts as one that does not say it, with a warning.
///
/// # Errors
/// [`Failure`] when the datastore fails.
pub async fn cluster_as_number(session: &Session<'_>, columns: &[Column]) -> Result<u32, Failure> {
    if !columns.iter().any(|column| matches!(column.content, Content::AsNumber)) {
        return Ok(DEFAULT_AS_NUMBER);
    }
    let entry = session.datastore.get(&Kind::BgpConfiguration.key(BGP_DEFAULT_NAME)).await?;
    let Some(entry) = entry else {
        return Ok(DEFAULT_AS_NUMBER);
    };
    let configuration = BgpConfiguration::from_json(&entry.value).unwrap_or_else(|error| {
        super::warn_unusable(session, Kind::BgpConfiguration, BGP_DEFAULT_NAME, &error);
        BgpConfiguration::default()
    });
    Ok(configuration.as_number.unwrap_or(DEFAULT_AS_NUMBER))
}

/// The table of these resources.
pub fn text(columns: &[Column], resources: &[Resource], as_number: u32, style: Style) -> String {
    let header: Vec<_> = columns.iter().map(|column| column.title).collect();
    let row = |resource: &Resource| {
        columns.iter().map(|column| cell(column.content, resource, as_number)).collect()
    };
    layout::table(&header, &resources.iter().map(row).collect::<Vec<Vec<String>>>(), style)
}

fn cell(content: Content, resource: &Resource, as_number: u32) -> String {
    match content {
        Content::Name => resource.name().to_owned(),
        Content::Spec(path, absent) => {
            spec_value(resource, path).map_or_else(|| absent.to_owned(), shown)
        }
        Content::List(key) => list(resource.spec(key)),
        Content::Count(key) => {
            resource.spec(key).and_then(Value::as_array).map_or(0, Vec::len).to_string()
        }
        Content::PeerNodes => {
            let named = ["node", "nodeSelector"]
                .into_iter()
                .find_map(|key| resource.spec(key)?.as_str().filter(|text| !text.is_empty()));
            named.unwrap_or("(global)").to_owned()
        }
        Content::AsNumber => match spec_value(resource, &["bgp", "asNumber"]) {
            Some(number) => shown(number),
            None if resource.spec("bgp").is_some() => format!("({as_number})"),
            None => String::new(),
        },
    }
}

fn spec_value<'a>(resource: &'a Resource, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(resource.spec(first)?, |value, key| value.get(key))
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn list(value: Option<&Value>) -> String {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    let text = items.map(shown).collect::<Vec<_>>().join(",");
    if text.chars().count() <= LONGEST_LIST {
        return text;
    }
    text.chars().take(LONGEST_LIST - 3).chain("...".chars()).collect()
}
