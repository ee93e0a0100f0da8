//! Registering a node with its addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::error::Error;
use super::stored::{StoredNode, object_in};
use crate::datastore::{
    Contended, Datastore, Decision, Entry, Selection, Snapshot, Transaction, keys, transact,
};
use crate::ipam::{Family, Guarded, MachineId, MachineRecord, Ownership};
use crate::resources::{Birth, Kind, Node, Resource};

/// How often a registration that others overtake is tried at once. Thousands of nodes that
/// start at the same moment overtake each other; the agent's pauses spread them.
const MAX_ATTEMPTS: u32 = 10;

/// The addresses by which other nodes reach a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    /// The IPv4 address with the prefix length of its subnet; `None` leaves what
    /// is registered.
    pub ipv4: Option<IpNet>,
    /// The IPv6 address, likewise.
    pub ipv6: Option<IpNet>,
}

impl NodeAddresses {
    /// Sets that of a family.
    pub fn set(&mut self, family: Family, address: IpNet) {
        match family {
            Family::V4 => self.ipv4 = Some(address),
            Family::V6 => self.ipv6 = Some(address),
        }
    }

    /// Leaves out that of a family.
    pub fn remove(&mut self, family: Family) {
        match family {
            Family::V4 => self.ipv4 = None,
            Family::V6 => self.ipv6 = None,
        }
    }

    /// The fields of `spec.bgp` with their new values.
    fn fields(&self) -> impl Iterator<Item = (&'static str, IpNet)> {
        let fields = [("ipv4Address", self.ipv4), ("ipv6Address", self.ipv6)];
        fields.into_iter().filter_map(|(field, address)| Some((field, address?)))
    }
}

/// Registers a node with its addresses: creates its Node resource, or changes only the
/// addresses in it that differ; and records the machine `own` for the name if no machine
/// is recorded. Answers whether anything was written. `birth` is for a resource that is
/// created; without it a Node that does not exist is not created, so that a caller who has
/// seen the Node does not bring back one that was deleted since.
///
/// Of two nodes that register the same address at the same moment one succeeds: the
/// commit compares that no Node was written since all were read.
///
/// # Errors
/// [`Error::Clash`] when another machine is recorded for the name;
/// [`Error::AddressTaken`] when another node is registered with one of the addresses;
/// [`Error::Ipam`] with [`crate::ipam::Error::NotReady`],
/// [`crate::ipam::Error::Contended`], [`crate::ipam::Error::Malformed`] or
/// [`crate::ipam::Error::Datastore`].
pub async fn register(
    datastore: &dyn Datastore,
    name: &str,
    addresses: NodeAddresses,
    birth: Option<&Birth>,
    own: Option<&MachineId>,
) -> Result<bool, Error> {
    let selections =
        [Selection::Prefix(keys::NODES.to_owned()), Selection::Key(keys::machine(name))];
    transact(datastore, async |attempts| {
        if attempts == MAX_ATTEMPTS {
            let keys = vec![keys::node(name)];
            return Err(Contended { keys, attempts: MAX_ATTEMPTS }.into());
        }
        let guarded = Guarded::read(datastore, selections.clone()).await?;
        let mut transaction = guarded.transaction();
        decide(name, &addresses, birth, own, &guarded, &mut transaction)?;
        Ok(match transaction.writes.is_empty() {
            true => Decision::Done(false),
            false => Decision::Commit(transaction, true),
        })
    })
    .await
}

/// Adds to a transaction what registers the node; nothing when it is registered already.
fn decide(
    name: &str,
    addresses: &NodeAddresses,
    birth: Option<&Birth>,
    own: Option<&MachineId>,
    snapshot: &Snapshot,
    transaction: &mut Transaction,
) -> Result<(), Error> {
    let nodes = snapshot.entries(0);
    let record = MachineRecord::read(snapshot.entry(1))?;
    let ownership = Ownership::new(own, record.as_ref().map(|record| &record.value.machine));
    if let Some(clash) = ownership.clash(name) {
        return Err(clash.into());
    }
    if let Some(record) = &record {
        transaction.unchanged(record.key.clone(), record.revision);
    }
    if let Some(taken) = taken(name, addresses, nodes) {
        return Err(taken);
    }
    match nodes.iter().find(|entry| entry.key == keys::node(name)) {
        None => {
            let Some(birth) = birth else { return Ok(()) };
            let node = newborn(name, addresses).created(birth.clone());
            let value = crate::resources::to_go_json(&Value::Object(node.object));
            transaction.create(keys::node(name), value.into_bytes());
        }
        Some(entry) => {
            let node = StoredNode::read(entry)?;
            // An address that is only spelt differently stays as it is.
            let differs = |(field, address): &(&str, IpNet)| {
                node.get(&["bgp", field]).and_then(read_address) != Some(*address)
            };
            let differing: Vec<_> = addresses.fields().filter(differs).collect();
            let paths: Vec<_> = differing.iter().map(|(field, _)| ["bgp", field]).collect();
            let values = differing.iter().map(|(_, address)| Some(address.to_string()));
            let fields: Vec<_> = paths.iter().map(|path| &path[..]).zip(values).collect();
            if fields.is_empty() {
                // Nothing of it is written, and it must not be deleted meanwhile either.
                transaction.unchanged(entry.key.clone(), entry.revision);
            }
            node.set(&fields, transaction);
        }
    }
    ownership.claim(name, transaction);
    transaction.none_newer(keys::NODES.to_owned(), snapshot.revision);
    Ok(())
}

fn newborn(name: &str, addresses: &NodeAddresses) -> Resource {
    let mut object = Map::new();
    object.insert("metadata".to_owned(), json!({"name": name}));
    let spec = object_in(&mut object, "spec");
    for (field, address) in addresses.fields() {
        object_in(spec, "bgp").insert(field.to_owned(), address.to_string().into());
    }
    Resource::new(Kind::Node, object)
}

/// An address as it may be registered: with or without a prefix length.
fn read_address(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// Why an address is refused that another node is registered with: routes to the two would
/// be the same. (Calico: `node/pkg/lifecycle/startup/startup.go`, checkConflicts.) A node
/// that cannot be read has no address.
fn taken(name: &str, addresses: &NodeAddresses, nodes: &[Entry]) -> Option<Error> {
    nodes.iter().filter(|entry| entry.key != keys::node(name)).find_map(|entry| {
        let other = Node::from_json(&entry.value).ok()?;
        let theirs = [other.ipv4_address, other.ipv6_address];
        let is_theirs = |(_, own): &(&str, IpNet)| {
            theirs.iter().flatten().any(|address| address.addr() == own.addr())
        };
        let (_, address) = addresses.fields().find(is_theirs)?;
        Some(Error::AddressTaken { address, node: name.to_owned(), other: other.name })
    })
}
