//! RequestPool: which range of addresses a network of Docker's has.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use weir_common::datastore::{Datastore, Selection, Stored, keys};
use weir_common::ipam::{Error, Family, PoolReference, choose, edges_of, read_pools};
use weir_common::resources::{AllowedUse, IpPool, Node, parse_cidr};
use weir_common::{nearest, printable};

use super::driver::Driver;
use super::error::DriverError;
use super::front::Front;
use super::pool_id::PoolId;
use super::protocol::{GATEWAY, PoolAnswer, PoolRequest};

/// The options that there are (`--ipam-opt`).
const OPTIONS: [&str; 2] = [OPTION_POOLS, OPTION_GATEWAY];

/// Pools by name or CIDR, separated by commas.
pub const OPTION_POOLS: &str = "pools";

/// The gateway of a network of another driver than Weir's: an address of the pool; one for each
/// family or subnet, separated by commas.
const OPTION_GATEWAY: &str = "gateway";

/// How many letters an option may differ from one that is meant.
const FARTHEST: usize = 2;

/// The names of the address spaces, by which dockerd tells networks of several IPAM drivers
/// apart.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct AddressSpaces {
    /// Of this node's networks.
    #[serde(rename = "LocalDefaultAddressSpace")]
    pub local: &'static str,
    /// Of the cluster's.
    #[serde(rename = "GlobalDefaultAddressSpace")]
    pub global: &'static str,
}

impl Front {
    /// The address spaces of this driver.
    pub fn address_spaces(self) -> AddressSpaces {
        match self {
            Self::Weir => AddressSpaces { local: "WeirLocal", global: "WeirGlobal" },
            Self::Calico | Self::CalicoIpam => AddressSpaces {
                local: "CalicoLocalAddressSpace",
                global: "CalicoGlobalAddressSpace",
            },
        }
    }
}

/// Why a network gets no range.
#[derive(Debug, thiserror::Error)]
pub enum PoolRefusal {
    /// An option that there is not.
    #[error(
        "--ipam-opt {} is not known{}; there are pools=NAME,… and gateway=ADDRESS",
        printable(option),
        meant.map(|meant| format!(" (is {meant} meant?)")).unwrap_or_default()
    )]
    UnknownOption {
        /// Its name.
        option: String,
        /// One whose name is near.
        meant: Option<&'static str>,
    },
    /// A text that is not a CIDR.
    #[error("{flag} {:?} is an invalid CIDR: {advice}", printable(text))]
    InvalidCidr {
        /// The flag.
        flag: &'static str,
        /// What is in it.
        text: String,
        /// What to do about it.
        advice: String,
    },
    /// An IPv4 range for IPv6.
    #[error("--subnet {0} is not an IPv6 range; leave --ipv6 out, or name an IPv6 pool")]
    NotIpv6(IpNet),
    /// No pool has the CIDR.
    #[error(
        "no pool has exactly {subnet}; pools are: {} (weirctl get ippool){}",
        existing.join(", "),
        around.map(|pool| format!(
            "; for a part of a pool write --subnet {pool} --ip-range {subnet}"
        )).unwrap_or_default()
    )]
    NoSuchPool {
        /// What was asked for.
        subnet: IpNet,
        /// The pools there are.
        existing: Vec<String>,
        /// One that the range lies in.
        around: Option<IpNet>,
    },
    /// `--subnet` and `--ipam-opt pools` say different things.
    #[error("--subnet {0} and --ipam-opt pools={1} both name pools; leave one of them out")]
    NamedTwice(IpNet, String),
    /// No pool of the family is among those that are named.
    #[error("--ipam-opt pools={0} names no {1} pool; add one, or make the network without {1}")]
    NoneOfFamily(String, Family),
    /// A range that is not within one pool.
    #[error(
        "--ip-range {range} does not lie in {}; choose a part of --subnet",
        pool.map_or("one pool".to_owned(), |pool| format!("pool {pool}"))
    )]
    OutsideRange {
        /// The range.
        range: IpNet,
        /// The network's only pool, if it has one.
        pool: Option<IpNet>,
    },
    /// A gateway that is no address.
    #[error("--ipam-opt gateway={:?} is not an address; write it as 10.7.0.1", printable(.0))]
    InvalidGateway(String),
    /// A gateway that cannot be had.
    #[error("--ipam-opt gateway={gateway} {}", match pool {
        None => "needs a network of one pool: add --subnet".to_owned(),
        Some(pool) => format!(
            "is not an address for a gateway in pool {pool}; choose one that is not its first or last"
        ),
    })]
    NoGateway {
        /// The gateway.
        gateway: String,
        /// The network's only pool, if it has one.
        pool: Option<IpNet>,
    },
    /// The pools cannot be used.
    #[error(transparent)]
    Pools(#[from] Error),
}

/// A node for which pools are chosen.
#[derive(Clone, Copy, Debug)]
pub struct ForNode<'a> {
    /// Its name.
    pub node: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
}

/// Decides which range a network gets out of these pools.
///
/// # Errors
/// [`PoolRefusal`].
pub fn decide(
    front: Front,
    request: &PoolRequest,
    pools: &[Stored<IpPool>],
    node: ForNode<'_>,
) -> Result<PoolId, PoolRefusal> {
    let option = |name: &str| request.options.get(name).filter(|value| !value.is_empty());
    if let Some(unknown) = request.options.keys().find(|it| !OPTIONS.contains(&it.as_str())) {
        let meant = nearest(unknown, OPTIONS, FARTHEST);
        return Err(PoolRefusal::UnknownOption { option: unknown.clone(), meant });
    }
    let subnet = cidr("--subnet", &request.pool)?;
    let family = match subnet {
        Some(subnet) if request.v6 && Family::of(subnet.addr()) == Family::V4 => {
            return Err(PoolRefusal::NotIpv6(subnet));
        }
        Some(subnet) => Family::of(subnet.addr()),
        None if request.v6 => Family::V6,
        None => Family::V4,
    };
    let asked = asked(family, subnet, option(OPTION_POOLS), pools)?;
    if pools.is_empty() {
        return Err(Error::NoPool(family).into());
    }
    let chosen = choose(pools, family, AllowedUse::Workload, &asked, node.node, node.labels);
    let named: Vec<IpNet> = match asked.is_empty() {
        // Which serve the node is seen again with each address; now there is one.
        true => chosen.map(|_| Vec::new())?,
        false => chosen?.iter().map(|pool| pool.value.cidr).collect(),
    };
    let only = named.first().copied().filter(|_| named.len() == 1);
    let range = cidr("--ip-range", &request.sub_pool)?;
    if let Some(range) = range.filter(|range| !only.is_some_and(|pool| pool.contains(range))) {
        return Err(PoolRefusal::OutsideRange { range, pool: only });
    }
    let gateway = option(OPTION_GATEWAY).map(|text| gateway(family, text, only));
    let gateway = gateway.transpose()?.flatten();
    let range = range.filter(|range| Some(*range) != only);
    Ok(PoolId::of(named, range, gateway).unwrap_or(PoolId::any(family, front)))
}

/// The pools that are asked for by `--subnet` or by option; none for those that serve the node.
fn asked(
    family: Family,
    subnet: Option<IpNet>,
    option: Option<&String>,
    pools: &[Stored<IpPool>],
) -> Result<Vec<PoolReference>, PoolRefusal> {
    let is_of_family = |reference: &PoolReference| {
        let named = pools.iter().find(|pool| reference.names(&pool.value));
        // One that is not there is refused with those that are.
        named.is_none_or(|pool| Family::of(pool.value.cidr.addr()) == family)
    };
    let named = option.into_iter().flat_map(|text| text.split(','));
    let named = named.map(|text| text.trim().parse().unwrap_or_else(|never| match never {}));
    let named: Vec<PoolReference> = named.filter(is_of_family).collect();
    let Some(subnet) = subnet else {
        return match option.filter(|_| named.is_empty()) {
            Some(text) => Err(PoolRefusal::NoneOfFamily(printable(text).into_owned(), family)),
            None => Ok(named),
        };
    };
    if let Some(text) = option.filter(|_| !named.is_empty()) {
        return Err(PoolRefusal::NamedTwice(subnet, printable(text).into_owned()));
    }
    let cidrs = || pools.iter().map(|pool| pool.value.cidr);
    if pools.is_empty() || cidrs().any(|cidr| cidr == subnet) {
        return Ok(vec![PoolReference::Cidr(subnet)]);
    }
    let existing = pools.iter().map(|it| format!("{} ({})", it.value.cidr, it.value.name));
    let existing = existing.map(|it| printable(&it).into_owned()).collect();
    let around = cidrs().find(|cidr| cidr.contains(&subnet));
    Err(PoolRefusal::NoSuchPool { subnet, existing, around })
}

/// The gateway of a network of this one pool, among those that are given: there may be some for
/// the network's other subnets.
fn gateway(family: Family, text: &str, pool: Option<IpNet>) -> Result<Option<IpNet>, PoolRefusal> {
    let mut given = Vec::new();
    for text in text.split(',').map(str::trim) {
        let address: Result<IpAddr, _> = text.parse();
        given.push(address.map_err(|_| PoolRefusal::InvalidGateway(text.to_owned()))?);
    }
    given.retain(|address| Family::of(*address) == family);
    if given.is_empty() {
        return Ok(None);
    }
    let refused = || PoolRefusal::NoGateway { gateway: text.to_owned(), pool };
    let pool = pool.ok_or_else(refused)?;
    let is_edge = |address: &IpAddr| edges_of(pool).iter().any(|edge| edge.range.contains(address));
    let fits = |address: &&IpAddr| pool.contains(*address) && !is_edge(address);
    let address = given.iter().find(fits).ok_or_else(refused)?;
    Ok(Some(IpNet::new_assert(*address, pool.prefix_len())))
}

/// The range in a flag; `None` where it is not given.
fn cidr(flag: &'static str, text: &str) -> Result<Option<IpNet>, PoolRefusal> {
    if text.is_empty() {
        return Ok(None);
    }
    match parse_cidr(text) {
        Ok(cidr) => Ok(Some(cidr.trunc())),
        Err(error) => {
            let advice = error.advice.unwrap_or(error.reason);
            Err(PoolRefusal::InvalidCidr { flag, text: text.to_owned(), advice })
        }
    }
}

/// Reads the pools and the labels of a node, and decides.
///
/// # Errors
/// [`PoolRefusal`].
pub async fn request(
    datastore: &dyn Datastore,
    node: &str,
    front: Front,
    request: &PoolRequest,
) -> Result<PoolId, PoolRefusal> {
    let selections = [Selection::Prefix(keys::POOLS.to_owned()), Selection::Key(keys::node(node))];
    let snapshot = datastore.read(&selections).await.map_err(Error::from)?;
    let pools = read_pools(snapshot.entries(0)).map_err(Error::from)?;
    let stored = snapshot.stored(1, Node::from_json).map_err(Error::from)?;
    let labels = stored.map(|node| node.value.labels).unwrap_or_default();
    decide(front, request, &pools, ForNode { node, labels: &labels })
}

impl Driver {
    pub(super) async fn request_pool(
        &self,
        front: Front,
        request: PoolRequest,
    ) -> Result<PoolAnswer, DriverError> {
        let decided = self::request(self.datastore.as_ref(), &self.node, front, &request).await;
        let id = decided.map_err(|refusal| match refusal {
            PoolRefusal::Pools(error) => self.refused(&error),
            refusal => DriverError::caused_by(&refusal),
        })?;
        Ok(PoolAnswer {
            pool_id: id.to_string(),
            pool: id.cidr().to_string(),
            data: BTreeMap::from([(GATEWAY.to_owned(), id.gateway().to_string())]),
        })
    }
}
