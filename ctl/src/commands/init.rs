//! `weirctl init`

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use weir_common::printable;
use weir_common::resources::{Kind, Resource, overlap};

use super::change::ChangeArgs;
use super::report;
use crate::session::{CommandResult, Failure, Session};
use crate::store;

/// Calico's name for a new cluster's IPv4 pool (`node/pkg/lifecycle/startup`).
const IPV4_POOL: &str = "default-ipv4-ippool";
/// Calico's name for a new cluster's IPv6 pool.
const IPV6_POOL: &str = "default-ipv6-ippool";

/// Arguments of `weirctl init`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  weirctl init\n  \
                  weirctl init --cidr 10.244.0.0/16 --ipip-mode CrossSubnet\n  \
                  weirctl init --vxlan-mode CrossSubnet --ipv6-cidr fd00:10:244::/48\n  \
                  weirctl init --ipv6-cidr fd00:10:244::/48")]
pub struct InitArgs {
    /// Addresses of the IPv4 pool
    #[arg(long, value_name = "CIDR", default_value = "192.168.0.0/16")]
    pub cidr: String,
    /// When packets between nodes are wrapped in IPIP
    #[arg(long, value_name = "MODE", value_enum, default_value = "Never", ignore_case = true)]
    pub ipip_mode: TunnelMode,
    /// When packets between nodes are wrapped in VXLAN, of both pools
    #[arg(
        long,
        value_name = "MODE",
        value_enum,
        default_value = "Never",
        ignore_case = true,
        conflicts_with = "ipip_mode"
    )]
    pub vxlan_mode: TunnelMode,
    /// Prefix length of the IPv4 pool's blocks
    #[arg(long, value_name = "LENGTH", default_value_t = 26)]
    pub block_size: u8,
    /// Addresses of an IPv6 pool; none without
    #[arg(long, value_name = "CIDR")]
    pub ipv6_cidr: Option<String>,
    /// Prefix length of the IPv6 pool's blocks
    #[arg(long, value_name = "LENGTH", default_value_t = 122)]
    pub ipv6_block_size: u8,
    /// Let packets leave the cluster with the containers' own addresses
    #[arg(long)]
    pub no_nat: bool,
    /// Make the pools although they overlap addresses or routes of this node
    #[arg(long)]
    pub force: bool,
    /// How the change is made.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// The modes of tunnels, spelt as in a pool.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum TunnelMode {
    /// Never: nodes reach each other's blocks directly
    #[value(name = "Never")]
    Never,
    /// Always
    #[value(name = "Always")]
    Always,
    /// Only between nodes of different subnets
    #[value(name = "CrossSubnet")]
    CrossSubnet,
}

impl TunnelMode {
    fn text(self) -> &'static str {
        match self {
            Self::Never => "Never",
            Self::Always => "Always",
            Self::CrossSubnet => "CrossSubnet",
        }
    }
}

/// Makes the pools of a new cluster, unless there is a pool already; and the cluster's
/// GUID, unless there is one.
///
/// # Errors
/// [`Failure`] when a pool breaks a rule or overlaps an address or a route of
/// this node.
pub async fn run(arguments: InitArgs, session: &Session<'_>) -> CommandResult {
    let mut pools = vec![ipv4_pool(&arguments)];
    pools.extend(ipv6_pool(&arguments));
    let ranges = pools.iter().map(range).collect::<Result<Vec<_>, _>>()?;
    // A cluster with pools is left alone, whatever its nodes' addresses are.
    let list = store::list(session.datastore, Kind::IpPool).await;
    let list = list.map_err(|error| Failure::new(report::with_advice(&error)))?;
    if list.resources.is_empty() && !arguments.force {
        check_node(&ranges, session).await?;
    }
    let names: Vec<_> = pools.iter().map(|pool| pool.name().to_owned()).collect();
    let pools: Vec<_> = pools.into_iter().map(|pool| (pool, session.environment.birth())).collect();
    let made = store::initialize(session.datastore, &pools).await;
    if made.is_ok() {
        session.ensure_cluster_guid().await;
    }
    match made {
        Ok(existing) if existing.is_empty() => {
            let made = names.iter().zip(&ranges).map(|(name, range)| format!("{name} ({range})"));
            let count = names.len();
            let made = made.collect::<Vec<_>>().join(", ");
            Ok(format!("Successfully created {count} 'IPPool' resource(s): {made}\n"))
        }
        Ok(existing) => Ok(format!(
            "Nothing to do: there is a pool already ({})\n",
            printable(&existing.join(", "))
        )),
        Err(error) => Err(Failure::new(format!(
            "failed to create 'IPPool' resource: {}",
            report::in_brackets(&error)
        ))),
    }
}

fn ipv4_pool(arguments: &InitArgs) -> Resource {
    let modes = [arguments.ipip_mode, arguments.vxlan_mode];
    pool(IPV4_POOL, &arguments.cidr, modes, !arguments.no_nat, arguments.block_size)
}

fn ipv6_pool(arguments: &InitArgs) -> Option<Resource> {
    let cidr = arguments.ipv6_cidr.as_ref()?;
    let modes = [TunnelMode::Never, arguments.vxlan_mode];
    Some(pool(IPV6_POOL, cidr, modes, !arguments.no_nat, arguments.ipv6_block_size))
}

fn pool(
    name: &str,
    cidr: &str,
    [ipip_mode, vxlan_mode]: [TunnelMode; 2],
    nat: bool,
    block_size: u8,
) -> Resource {
    let mut object = Map::new();
    let mut spec = json!({"cidr": cidr, "ipipMode": ipip_mode.text(), "natOutgoing": nat,
                          "blockSize": block_size});
    if !matches!(vxlan_mode, TunnelMode::Never) {
        spec["vxlanMode"] = vxlan_mode.text().into();
    }
    object.insert("spec".to_owned(), spec);
    Resource::new(Kind::IpPool, object).renamed(name)
}

/// The pool's addresses, if it is a valid pool of the family that it is named
/// after.
fn range(resource: &Resource) -> Result<IpNet, Failure> {
    let pool = resource
        .pool()
        .map_err(|error| Failure::new(format!("failed to create 'IPPool' resource: [{error}]")))?;
    let (flag, is_right) = match resource.name() {
        IPV4_POOL => ("--cidr", pool.cidr.addr().is_ipv4()),
        _ => ("--ipv6-cidr", pool.cidr.addr().is_ipv6()),
    };
    if is_right {
        return Ok(pool.cidr);
    }
    let written = resource.spec("cidr").and_then(Value::as_str).unwrap_or_default();
    Err(Failure::new(format!(
        "{flag} {written} is of the other family; \
         write for example: weirctl init --cidr 10.244.0.0/16 --ipv6-cidr fd00:10:244::/48"
    )))
}

/// Checks that the pools take none of the addresses that this node uses.
async fn check_node(ranges: &[IpNet], session: &Session<'_>) -> Result<(), Failure> {
    let occupied = session.environment.occupied().await?;
    for range in ranges {
        if let Some(in_the_way) = occupied.iter().find(|occupied| overlap(*range, occupied.range)) {
            let flag = if range.addr().is_ipv4() { "--cidr" } else { "--ipv6-cidr" };
            return Err(Failure::new(format!(
                "the pool {range} would overlap this node's {}; \
                 choose another range: weirctl init {flag} CIDR; or, if that is meant, add --force",
                in_the_way.what
            )));
        }
    }
    Ok(())
}
