//! Which pools an attachment may take its address from.

use std::collections::BTreeMap;
use std::str::FromStr;

use ipnet::IpNet;

use super::error::Error;
use super::family::Family;
use super::passed_over::PassedOver;
use crate::datastore::Stored;
use crate::resources::{AllowedUse, AssignmentMode, IpPool, Selector, parse_cidr};

/// A pool as configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolReference {
    /// By its name.
    Name(String),
    /// By its CIDR, which must be exactly the pool's; host bits do not count.
    Cidr(IpNet),
}

impl FromStr for PoolReference {
    type Err = std::convert::Infallible;

    /// What Go reads as a CIDR is one, everything else is a name
    /// (`cni-plugin/internal/pkg/utils/utils.go`, ResolvePools).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let cidr = parse_cidr(text).map(|cidr| Self::Cidr(cidr.trunc()));
        Ok(cidr.unwrap_or_else(|_| Self::Name(text.to_owned())))
    }
}

impl std::fmt::Display for PoolReference {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => name.fmt(formatter),
            Self::Cidr(cidr) => cidr.fmt(formatter),
        }
    }
}

impl PoolReference {
    /// Whether it names this pool.
    pub fn names(&self, pool: &IpPool) -> bool {
        match self {
            Self::Name(name) => *name == pool.name,
            Self::Cidr(cidr) => *cidr == pool.cidr,
        }
    }
}

/// Why `pool` is not used for addresses of this family and for this purpose on a
/// node with these labels; `None` when it is.
///
/// A pool that is asked for is used whatever its selector and its assignment
/// mode say (`libcalico-go/lib/ipam/ipam.go`, determinePools).
pub fn verdict(
    pool: &IpPool,
    family: Family,
    purpose: AllowedUse,
    asked: bool,
    labels: &BTreeMap<String, String>,
) -> Option<PassedOver> {
    if Family::of(pool.cidr.addr()) != family {
        Some(PassedOver::OtherFamily(family))
    } else if let Some(flaw) = &pool.flaw {
        Some(PassedOver::Flawed(flaw.clone()))
    } else if pool.disabled {
        Some(PassedOver::Disabled)
    } else if !pool.allows(purpose) {
        Some(PassedOver::NotFor(purpose))
    } else if asked {
        None
    } else if pool.assignment_mode == AssignmentMode::Manual {
        Some(PassedOver::Manual)
    } else if pool.namespace_selector != Selector::default() {
        Some(PassedOver::ForNamespaces(pool.namespace_selector.to_string()))
    } else if !pool.node_selector.matches(labels) {
        Some(PassedOver::NotSelected(pool.node_selector.to_string()))
    } else {
        None
    }
}

/// The pools to take an address from, in this order: those asked for in the
/// order asked, else all that serve the node in the order of `pools`, which is
/// that of their names.
///
/// # Errors
/// When a pool asked for is not there or cannot be used, or none is left.
pub fn choose<'a>(
    pools: &'a [Stored<IpPool>],
    family: Family,
    purpose: AllowedUse,
    asked: &[PoolReference],
    node: &str,
    labels: &BTreeMap<String, String>,
) -> Result<Vec<&'a Stored<IpPool>>, Error> {
    if asked.is_empty() {
        automatic(pools, family, purpose, node, labels)
    } else {
        asked.iter().map(|reference| requested(pools, family, purpose, reference, labels)).collect()
    }
}

fn automatic<'a>(
    pools: &'a [Stored<IpPool>],
    family: Family,
    purpose: AllowedUse,
    node: &str,
    labels: &BTreeMap<String, String>,
) -> Result<Vec<&'a Stored<IpPool>>, Error> {
    let of_family = |pool: &&Stored<IpPool>| Family::of(pool.value.cidr.addr()) == family;
    let mut chosen = Vec::new();
    let mut passed_over = Vec::new();
    for pool in pools.iter().filter(of_family) {
        match verdict(&pool.value, family, purpose, false, labels) {
            None => chosen.push(pool),
            Some(why) => passed_over.push((pool.value.name.clone(), why)),
        }
    }
    if !chosen.is_empty() {
        Ok(chosen)
    } else if passed_over.is_empty() {
        Err(Error::NoPool(family))
    } else {
        Err(Error::NoPoolForNode { family, node: node.to_owned(), passed_over })
    }
}

fn requested<'a>(
    pools: &'a [Stored<IpPool>],
    family: Family,
    purpose: AllowedUse,
    reference: &PoolReference,
    labels: &BTreeMap<String, String>,
) -> Result<&'a Stored<IpPool>, Error> {
    let Some(pool) = pools.iter().find(|pool| reference.names(&pool.value)) else {
        return Err(Error::UnknownPool {
            asked: reference.to_string(),
            existing: described(pools),
        });
    };
    match verdict(&pool.value, family, purpose, true, labels) {
        None => Ok(pool),
        Some(why) => Err(Error::UnusablePool { pool: pool.value.name.clone(), why }),
    }
}

/// Each pool as `name (cidr)`, for messages.
pub(super) fn described<'a>(pools: impl IntoIterator<Item = &'a Stored<IpPool>>) -> Vec<String> {
    let text = |pool: &Stored<IpPool>| format!("{} ({})", pool.value.name, pool.value.cidr);
    pools.into_iter().map(text).collect()
}
