//! Registering a node with its addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::error::Error;
use super::stored::{StoredNode, object_in};
use crate::datastore::{self, Datastore, Entry, Revision, Selection, Snapshot, Transaction, keys};
use crate::ipam::{Family, MachineId, MachineRecord, Ownership, ReadyFlag, engine};
use crate::resources::{Birth, Kind, Node, Resource};

/// A field of `spec.bgp`, and its text if it has any.
type Field = (&'static str, Option<String>);

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

/// Registers a node with its addresses: makes its Node resource, or changes the
/// addresses in it that differ and nothing else; and makes the name the machine's `own`, if
/// it is nobody's. Answers whether anything was changed. `birth` is for a resource that is
/// made; without it a Node that does not exist stays away, and nothing is written: so a
/// caller who has seen the Node does not bring back one that was deleted since.
///
/// After a change everything is read again. Of two nodes that register the same
/// address in one moment, that whose Node was written later takes it back: it has what
/// it had before, or none.
///
/// # Errors
/// [`Error::Clash`] when the name is another machine's; [`Error::AddressTaken`] when another node is registered with one of the
/// addresses; [`Error::Ipam`] with [`crate::ipam::Error::NotReady`],
/// [`crate::ipam::Error::Contended`], [`crate::ipam::Error::Malformed`] or
/// [`crate::ipam::Error::Datastore`].
pub async fn register(
    datastore: &dyn Datastore,
    name: &str,
    addresses: NodeAddresses,
    birth: Option<&Birth>,
    own: Option<&MachineId>,
) -> Result<bool, Error> {
    let selections = [
        ReadyFlag::selection(),
        Selection::Key(keys::node(name)),
        Selection::Prefix(keys::NODES.to_owned()),
        Selection::Key(keys::machine(name)),
    ];
    let mut before = None;
    for _ in 0..engine::MAX_ATTEMPTS {
        let snapshot = datastore.read(&selections).await?;
        let record = MachineRecord::read(snapshot.selected[3].first())?;
        let recorded = record.as_ref().map(|record| &record.value.machine);
        let ownership = Ownership::new(own, recorded);
        if let Some(clash) = ownership.clash(name) {
            return Err(clash.into());
        }
        let taken = taken(name, &addresses, &snapshot.selected[2]);
        let transaction = match &taken {
            None => decide(name, &addresses, birth, ownership, &snapshot)?,
            Some((_, theirs)) => take_back(before.as_deref(), *theirs, &snapshot)?,
        };
        let is_done = transaction.writes.is_empty() || {
            let had = texts(&addresses, &snapshot)?;
            let outcome = datastore.commit(transaction).await?;
            let is_committed = matches!(outcome, datastore::Outcome::Committed(_));
            before = before.or(is_committed.then_some(had));
            // A change is read once more.
            is_committed && taken.is_some()
        };
        match taken {
            Some((error, _)) if is_done => return Err(error),
            None if is_done => return Ok(before.is_some()),
            _ => {}
        }
    }
    Err(crate::datastore::Contended::new(vec![keys::node(name)]).into())
}

/// The transaction that registers the node; without writes when it is
/// registered as it should be.
fn decide(
    name: &str,
    addresses: &NodeAddresses,
    birth: Option<&Birth>,
    ownership: Ownership<'_>,
    snapshot: &Snapshot,
) -> Result<Transaction, Error> {
    let mut transaction = Transaction::default();
    match snapshot.selected[1].first() {
        None => {
            let Some(birth) = birth else { return Ok(transaction) };
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
    ownership.claim(name, &mut transaction);
    require_ready(snapshot, &mut transaction)?;
    Ok(transaction)
}

/// The transaction that gives a node back what it had `before` it was registered, as
/// long as it is the later one of two with the same address, of which the other was
/// written at `theirs`; else without writes.
fn take_back(
    before: Option<&[Field]>,
    theirs: Revision,
    snapshot: &Snapshot,
) -> Result<Transaction, Error> {
    let mut transaction = Transaction::default();
    let own = snapshot.selected[1].first().filter(|own| own.revision > theirs);
    if let (Some(before), Some(own)) = (before, own) {
        StoredNode::read(own)?.set_bgp(before, &mut transaction);
        require_ready(snapshot, &mut transaction)?;
    }
    Ok(transaction)
}

/// What the stored Node has in the fields of these addresses.
fn texts(addresses: &NodeAddresses, snapshot: &Snapshot) -> Result<Vec<Field>, Error> {
    let node = snapshot.selected[1].first().map(StoredNode::read).transpose()?;
    let text = |field| node.as_ref().and_then(|node| node.bgp(field)).map(str::to_owned);
    Ok(addresses.fields().map(|(field, _)| (field, text(field))).collect())
}

/// Nothing is written while the datastore is being moved.
fn require_ready(snapshot: &Snapshot, transaction: &mut Transaction) -> Result<(), Error> {
    if !transaction.writes.is_empty() {
        let ready = ReadyFlag::parse(snapshot.selected[0].first())?;
        ready.require()?;
        ready.guard(transaction);
    }
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

/// Why an address is refused that another node is registered with, and the revision of
/// that Node: routes to the two would be the same. (Calico:
/// `node/pkg/lifecycle/startup/startup.go`, checkConflicts.) A node that cannot be read
/// has no address.
fn taken(name: &str, addresses: &NodeAddresses, nodes: &[Entry]) -> Option<(Error, Revision)> {
    nodes.iter().filter(|entry| entry.key != keys::node(name)).find_map(|entry| {
        let node = Node::from_json(&entry.value).ok()?;
        let theirs = [node.ipv4_address, node.ipv6_address];
        let is_theirs = |(_, own): &(&str, IpNet)| {
            theirs.iter().flatten().any(|address| address.addr() == own.addr())
        };
        let (_, address) = addresses.fields().find(is_theirs)?;
        let (node, other) = (name.to_owned(), node.name);
        Some((Error::AddressTaken { address, node, other }, entry.revision))
    })
}
