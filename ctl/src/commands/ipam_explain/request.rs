//! What the next container asks for: what its network's configuration says,
//! changed by the flags of the call.
//!
//! Flags are written into the configuration, and the plugins' own reading of it
//! says what is wanted, so that the two cannot differ.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use weir_common::cni::{Arguments, IpamConfiguration, NetworkConfiguration, skeleton};
use weir_common::datastore::keys;
use weir_common::ipam::assign::{Request, Want};
use weir_common::ipam::explain::newcomer;
use weir_common::ipam::{Family, PoolReference};
use weir_common::resources::IpPool;

use super::ExplainArgs;
use crate::docker::{Front, OPTION_POOLS, PoolRequest, request_pool};
use crate::network::Network;
use crate::output::line;
use crate::session::{Failure, Session, chain};

/// What is asked for, and who says so.
pub struct Asked {
    /// What IPAM is asked for.
    pub request: Request,
    /// Whether it is for the node on which this runs.
    pub is_here: bool,
    /// Who says so, for people.
    by: String,
}

/// The flag that means a network of Docker's.
const DOCKER: &str = "--docker";

/// Finds out what the next container asks for.
///
/// # Errors
/// [`Failure`] when the plugins would refuse the configuration, or the node's
/// name or a pool cannot be read.
pub async fn read(arguments: &ExplainArgs, session: &Session<'_>) -> Result<Asked, Failure> {
    let own = session.environment.own_name().ok();
    let is_here = arguments.node.as_ref().is_none_or(|node| own.as_ref() == Some(node));
    let (request, by) = match arguments.docker {
        true => read_docker(arguments, session).await?,
        false => read_cni(arguments, session).await?,
    };
    Ok(Asked { request, is_here, by })
}

/// What a network of Docker's asks for: what its maker was answered says it.
async fn read_docker(
    arguments: &ExplainArgs,
    session: &Session<'_>,
) -> Result<(Request, String), Failure> {
    let node = match &arguments.node {
        Some(node) => node.clone(),
        None => session.environment.own_name()?,
    };
    let text = |given: &Option<String>| given.clone().unwrap_or_default();
    let pools = (OPTION_POOLS.to_owned(), arguments.pool.join(","));
    let mut request = newcomer(&node, Vec::new());
    for v6 in [false, true] {
        let is_asked = if v6 { arguments.ipv6 } else { arguments.ipv4 || !arguments.ipv6 };
        if !is_asked {
            continue;
        }
        let asked = PoolRequest {
            pool: text(&arguments.subnet),
            sub_pool: text(&arguments.ip_range),
            options: BTreeMap::from([pools.clone()]),
            v6,
            ..PoolRequest::default()
        };
        let answered = request_pool(session.datastore, &node, Front::Weir, &asked).await;
        let id = answered.map_err(|error| refused(DOCKER, &error))?;
        request.wants.push(id.want(None));
        request.within = id.within();
    }
    let flags = [("--subnet", &arguments.subnet), ("--ip-range", &arguments.ip_range)];
    let flags = flags.into_iter().filter_map(|(flag, value)| Some((flag, value.as_ref()?)));
    let by = flags.fold(DOCKER.to_owned(), |by, (flag, value)| format!("{by} {flag} {value}"));
    Ok((request, by))
}

/// What a network of CNI's asks for.
async fn read_cni(
    arguments: &ExplainArgs,
    session: &Session<'_>,
) -> Result<(Request, String), Failure> {
    let network = session.environment.network();
    let by = who(network.as_ref(), arguments);
    let mut plugin = network.map_or_else(default_plugin, |network| network.plugin);
    set_families(&mut plugin, arguments);
    let mut configuration = check(&plugin, &by)?;
    if !arguments.pool.is_empty() {
        let families = families_of(&require_ipam(&configuration, &by)?.wants);
        let mut pools = Vec::new();
        for pool in &arguments.pool {
            pools.push((pool.as_str(), family_of_pool(pool, session).await?));
        }
        set_pools(&mut plugin, &pools, &families);
        configuration = check(&plugin, &by)?;
    }
    let node = match &arguments.node {
        Some(node) => node.clone(),
        None => {
            let node_name =
                configuration.node_name.as_ref().map_err(|error| refused(&by, error))?;
            session.environment.node_name(node_name)?
        }
    };
    let ipam = require_ipam(&configuration, &by)?;
    let gateways = ipam.gateways.clone();
    Ok((Request { gateways, ..newcomer(&node, ipam.wants.clone()) }, by))
}

impl Asked {
    /// The node.
    pub fn node(&self) -> &str {
        &self.request.assignee.host
    }

    /// The line about it.
    pub fn in_words(&self) -> String {
        let wants: Vec<String> = self.request.wants.iter().map(describe).collect();
        line(&format!("Asked for by {}: {}", self.by, wants.join("; ")))
    }
}

fn describe(want: &Want) -> String {
    match want {
        Want::Exactly(address) => format!("the address {address}"),
        Want::Any { family, pools } if pools.is_empty() => format!("{family} from any pool"),
        Want::Any { family, pools } => {
            let pools: Vec<String> = pools.iter().map(PoolReference::to_string).collect();
            format!("{family} from {}", pools.join(", "))
        }
    }
}

/// Who says what is asked for: a file, the flags that change it, or nobody.
fn who(network: Option<&Network>, arguments: &ExplainArgs) -> String {
    let file = network.map(|network| network.path.display().to_string());
    let flags = [
        ("--ipv4", arguments.ipv4),
        ("--ipv6", arguments.ipv6),
        ("--pool", !arguments.pool.is_empty()),
    ];
    let flags = flags.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag.to_owned());
    let all: Vec<String> = file.into_iter().chain(flags).collect();
    if all.is_empty() { "default".to_owned() } else { all.join(", ") }
}

/// What a network asks for that says no more than it must.
fn default_plugin() -> Map<String, Value> {
    let plugin = json!({
        "name": "default", "cniVersion": "1.0.0", "type": "weir", "ipam": {"type": "weir-ipam"},
    });
    plugin.as_object().cloned().unwrap_or_default()
}

fn check(plugin: &Map<String, Value>, by: &str) -> Result<NetworkConfiguration, Failure> {
    skeleton::check_add(plugin, &Arguments::default()).map_err(|error| refused(by, &error))
}

fn require_ipam<'a>(
    configuration: &'a NetworkConfiguration,
    by: &str,
) -> Result<&'a IpamConfiguration, Failure> {
    configuration.require_ipam().map_err(|error| refused(by, &error))
}

fn refused(by: &str, error: &dyn std::error::Error) -> Failure {
    let message = chain(error);
    Failure::new(format!("the next container gets no address: {message} (asked for by {by})"))
}

fn families_of(wants: &[Want]) -> Vec<Family> {
    let mut families: Vec<Family> = wants.iter().map(Want::family).collect();
    families.dedup();
    families
}

/// The family of a pool; `None` when there is no such pool, or none that can be
/// read.
async fn family_of_pool(pool: &str, session: &Session<'_>) -> Result<Option<Family>, Failure> {
    match pool.parse() {
        Ok(PoolReference::Cidr(cidr)) => Ok(Some(Family::of(cidr.addr()))),
        Ok(PoolReference::Name(name)) => {
            let stored = session.datastore.get(&keys::pool(&name)).await?;
            let pool = stored.and_then(|entry| IpPool::from_json(&entry.value).ok());
            Ok(pool.map(|pool| Family::of(pool.cidr.addr())))
        }
        Err(never) => match never {},
    }
}

/// Lets `--ipv4` and `--ipv6` take the place of what the plugin says.
fn set_families(plugin: &mut Map<String, Value>, arguments: &ExplainArgs) {
    if (arguments.ipv4 || arguments.ipv6)
        && let Some(Value::Object(ipam)) = plugin.get_mut("ipam")
    {
        ipam.insert("assign_ipv4".to_owned(), arguments.ipv4.into());
        ipam.insert("assign_ipv6".to_owned(), arguments.ipv6.into());
        forget_addresses(plugin);
    }
}

/// Lets `--pool` take the place of the pools, the subnet and the addresses that
/// the plugin asks for, in each family that a pool named is of. One of no family
/// that is asked for is put where an ADD refuses it: into all of them.
fn set_pools(
    plugin: &mut Map<String, Value>,
    pools: &[(&str, Option<Family>)],
    families: &[Family],
) {
    forget_addresses(plugin);
    let Some(Value::Object(ipam)) = plugin.get_mut("ipam") else { return };
    for family in families {
        let belongs = |of: &Option<Family>| {
            *of == Some(*family) || of.is_none_or(|of| !families.contains(&of))
        };
        let named: Vec<&str> =
            pools.iter().filter(|(_, of)| belongs(of)).map(|(pool, _)| *pool).collect();
        if named.is_empty() {
            continue;
        }
        let key = match family {
            Family::V4 => "ipv4_pools",
            Family::V6 => "ipv6_pools",
        };
        ipam.insert(key.to_owned(), named.into());
        let subnet = ipam.get("subnet").and_then(Value::as_str);
        let subnet = subnet.and_then(|subnet| subnet.parse::<ipnet::IpNet>().ok());
        if subnet.is_some_and(|subnet| Family::of(subnet.addr()) == *family) {
            ipam.remove("subnet");
        }
    }
}

/// Drops addresses that are asked for, which would count before all else.
fn forget_addresses(plugin: &mut Map<String, Value>) {
    plugin.remove("args");
    plugin.remove("runtimeConfig");
}
