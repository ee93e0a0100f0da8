//! Registering a node with its addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::Error;
use super::stored::{StoredNode, object_in};
use crate::datastore::{self, Datastore, Entry, Selection, Snapshot, Transaction, keys};
use crate::ipam::{Family, ReadyFlag, engine};
use crate::resources::{Birth, Kind, Node, Resource};

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

    /// The fields of `spec.bgp` with their new values.
    fn fields(&self) -> impl Iterator<Item = (&'static str, IpNet)> {
        let fields = [("ipv4Address", self.ipv4), ("ipv6Address", self.ipv6)];
        fields.into_iter().filter_map(|(field, address)| Some((field, address?)))
    }
}

/// Registers a node with its addresses: makes its Node resource, or changes the
/// addresses in it that differ and nothing else. Answers whether anything was
/// changed. `birth` is for a resource that is made.
///
/// After a change everything is read again, so that of two nodes that register
/// the same address in one moment at least one learns of it.
///
/// # Errors
/// [`Error::AddressTaken`] when another node is registered with one of the
/// addresses; [`Error::Ipam`] with [`crate::ipam::Error::NotReady`],
/// [`crate::ipam::Error::Contended`], [`crate::ipam::Error::Malformed`] or
/// [`crate::ipam::Error::Datastore`].
pub async fn register(
    datastore: &dyn Datastore,
    name: &str,
    addresses: NodeAddresses,
    birth: &Birth,
) -> Result<bool, Error> {
    let selections = [
        ReadyFlag::selection(),
        Selection::Key(keys::node(name)),
        Selection::Prefix(keys::NODES.to_owned()),
    ];
    let mut changed = false;
    for _ in 0..engine::MAX_ATTEMPTS {
        let snapshot = datastore.read(&selections).await?;
        refuse_taken(name, &addresses, &snapshot.selected[2])?;
        let transaction = decide(name, &addresses, birth, &snapshot)?;
        if transaction.writes.is_empty() {
            return Ok(changed);
        }
        match datastore.commit(transaction).await {
            Ok(datastore::Outcome::Committed(_)) => changed = true,
            Ok(datastore::Outcome::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(crate::ipam::Error::contended(vec![keys::node(name)]).into())
}

/// The transaction that registers the node; without writes when it is
/// registered as it should be.
fn decide(
    name: &str,
    addresses: &NodeAddresses,
    birth: &Birth,
    snapshot: &Snapshot,
) -> Result<Transaction, Error> {
    let entry = |index: usize| snapshot.selected.get(index).and_then(|entries| entries.first());
    let mut transaction = Transaction::default();
    match entry(1) {
        None => {
            let node = newborn(name, addresses).created(birth.clone());
            let value = crate::resources::to_go_json(&Value::Object(node.object));
            transaction.create(keys::node(name), value.into_bytes());
        }
        Some(entry) => {
            let node = StoredNode::read(entry)?;
            // What is only written differently stays as it is.
            let differs = |(field, address): &(&str, IpNet)| {
                node.bgp(field).and_then(read_address) != Some(*address)
            };
            let fields: Vec<_> = addresses
                .fields()
                .filter(differs)
                .map(|(field, address)| (field, Some(address.to_string())))
                .collect();
            node.set_bgp(&fields, &mut transaction);
        }
    }
    if !transaction.writes.is_empty() {
        let ready = ReadyFlag::parse(entry(0))?;
        ready.require()?;
        ready.guard(&mut transaction);
    }
    Ok(transaction)
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

/// Refuses an address that another node is registered with: routes to the two
/// would be the same. (Calico: `node/pkg/lifecycle/startup/startup.go`,
/// checkConflicts.) A node that cannot be read has no address.
fn refuse_taken(name: &str, addresses: &NodeAddresses, nodes: &[Entry]) -> Result<(), Error> {
    for entry in nodes.iter().filter(|entry| entry.key != keys::node(name)) {
        let Ok(node) = Node::from_json(&entry.value) else { continue };
        let theirs = [node.ipv4_address, node.ipv6_address];
        let taken = |(_, own): &(&str, IpNet)| {
            theirs.iter().flatten().any(|address| address.addr() == own.addr())
        };
        if let Some((_, address)) = addresses.fields().find(taken) {
            let (node, other) = (name.to_owned(), node.name);
            return Err(Error::AddressTaken { address, node, other });
        }
    }
    Ok(())
}
