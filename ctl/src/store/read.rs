//! Reading resources.

use ipnet::IpNet;
use weir_common::datastore::{Datastore, Entry, Revision, Selection, Stored, keys};
use weir_common::resources::bgp::BgpPeer;
use weir_common::resources::{IpPool, Kind, Resource};

use super::error::StoreError;

/// All resources of a kind as of one moment.
pub struct List {
    /// The resources, in order of their names.
    pub resources: Vec<Resource>,
    /// The moment.
    pub revision: Revision,
}

/// Reads all resources of a kind.
///
/// # Errors
/// [`StoreError::Unreadable`] for a value that is no resource;
/// [`StoreError::Datastore`].
pub async fn list(datastore: &dyn Datastore, kind: Kind) -> Result<List, StoreError> {
    let selection = match kind {
        Kind::IpamConfig => Selection::Key(kind.prefix().to_owned()),
        _ => Selection::Prefix(kind.prefix().to_owned()),
    };
    let mut snapshot = datastore.read(&[selection]).await?;
    let entries = snapshot.selected.pop().unwrap_or_default();
    let resources = entries.iter().map(|entry| to_resource(kind, entry));
    Ok(List { resources: resources.collect::<Result<_, _>>()?, revision: snapshot.revision })
}

/// Reads one resource.
///
/// # Errors
/// [`StoreError::DoesNotExist`]; [`StoreError::Unreadable`];
/// [`StoreError::Datastore`].
pub async fn get(
    datastore: &dyn Datastore,
    kind: Kind,
    name: &str,
) -> Result<Resource, StoreError> {
    let Some(entry) = datastore.get(&key_of(kind, name)?).await? else {
        return Err(StoreError::DoesNotExist { kind, name: name.to_owned() });
    };
    to_resource(kind, &entry)
}

/// The key under which a resource is, if it is there.
///
/// # Errors
/// [`StoreError::DoesNotExist`] for an IPAM configuration by another name than
/// its own: its key does not have the name in it.
pub(super) fn key_of(kind: Kind, name: &str) -> Result<String, StoreError> {
    let key = kind.key(name);
    if kind.name_of(&key) == Some(name) {
        return Ok(key);
    }
    Err(StoreError::DoesNotExist { kind, name: name.to_owned() })
}

/// The name of the pool with exactly these addresses, if there is one.
///
/// # Errors
/// [`StoreError::Datastore`].
pub async fn find_pool_by_cidr(
    datastore: &dyn Datastore,
    cidr: IpNet,
) -> Result<Option<String>, StoreError> {
    let mut snapshot = datastore.read(&[Selection::Prefix(keys::POOLS.to_owned())]).await?;
    let entries = snapshot.selected.pop().unwrap_or_default();
    let pools = entries.iter().filter_map(read_stored_pool);
    Ok(pools.into_iter().find(|pool| pool.cidr == cidr).map(|pool| pool.name))
}

/// The name of a peering of the same nodes with the same address as this one, if there is one;
/// this one's own name before others.
///
/// # Errors
/// [`StoreError::Invalid`] when this is no peering; [`StoreError::Datastore`].
pub async fn find_peer_like(
    datastore: &dyn Datastore,
    resource: &Resource,
) -> Result<Option<String>, StoreError> {
    let wanted = BgpPeer::from_object(&resource.object)?;
    let mut snapshot = datastore.read(&[Selection::Prefix(keys::BGP_PEERS.to_owned())]).await?;
    let entries = snapshot.selected.pop().unwrap_or_default();
    let is_alike = |entry: &&Entry| {
        BgpPeer::from_json(&entry.value)
            .is_ok_and(|peer| peer.nodes == wanted.nodes && peer.target == wanted.target)
    };
    let names = entries.iter().filter(is_alike).filter_map(|it| Kind::BgpPeer.name_of(&it.key));
    Ok(names.max_by_key(|name| *name == resource.name()).map(str::to_owned))
}

/// A pool for comparisons with others: also of a stored pool that breaks a
/// rule at least name and addresses are known, unless it has none.
pub fn read_stored_pool(entry: &Entry) -> Option<IpPool> {
    IpPool::from_json(&entry.value).ok().or_else(|| {
        let name = Kind::IpPool.name_of(&entry.key)?;
        let value: serde_json::Value = serde_json::from_slice(&entry.value).ok()?;
        let cidr: IpNet = value["spec"]["cidr"].as_str()?.parse().ok()?;
        Some(IpPool::new(name, cidr))
    })
}

pub(super) fn to_resource(kind: Kind, entry: &Entry) -> Result<Resource, StoreError> {
    let parse = |value: &[u8]| Resource::from_stored(kind, value);
    let resource = Stored::read(entry, parse)?.value;
    // By the name of its key it can be asked for, and deleted.
    let named = match kind.name_of(&entry.key) {
        Some(name) if resource.name().is_empty() => resource.renamed(name),
        _ => resource,
    };
    Ok(named.read_at(entry.revision))
}
