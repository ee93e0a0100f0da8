//! Which of the allocations of a node's name are this machine's.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::assignee::Assignee;
use super::error::Error;
use super::machine::MachineId;
use crate::datastore::{Datastore, Entry, Stored, Transaction, keys};
use crate::printable::shell_word;

/// The machine that has a node's name, as stored under [`keys::machine`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// The machine.
    pub machine: MachineId,
    /// Fields Weir does not know, kept as they are.
    #[serde(flatten)]
    pub(super) unknown: Map<String, Value>,
}

impl MachineRecord {
    /// The first record of a name.
    pub fn new(machine: MachineId) -> Self {
        Self { machine, unknown: Map::new() }
    }

    /// Reads a stored record.
    ///
    /// # Errors
    /// When it is not one.
    pub fn from_json(value: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(value)
    }

    /// The value to store.
    pub fn to_json(&self) -> Vec<u8> {
        super::to_json(self)
    }

    /// Reads the entry under the record's key, if there is one.
    pub(crate) fn read(entry: Option<&Entry>) -> Result<Option<Stored<Self>>, Error> {
        Ok(entry.map(|entry| Stored::read(entry, Self::from_json)).transpose()?)
    }
}

/// This machine, and the one that a node's name is recorded for: together they tell whose
/// an allocation of that name is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ownership<'a> {
    own: Option<&'a MachineId>,
    recorded: Option<&'a MachineId>,
}

impl<'a> Ownership<'a> {
    /// For the machine `own`, if it has an identity, and the name's record, if there is one.
    pub fn new(own: Option<&'a MachineId>, recorded: Option<&'a MachineId>) -> Self {
        Self { own, recorded }
    }

    /// Whether an allocation of the name that was made on this machine, as its attributes
    /// say, is this machine's. One that names no machine was made by an earlier version:
    /// it belongs to the machine that the name is recorded for, or to whoever asks if
    /// there is no record.
    pub fn is_own(&self, made_on: Option<&str>) -> bool {
        match made_on {
            Some(machine) => self.own.is_some_and(|own| own.as_str() == machine),
            None => self.recorded.is_none() || self.recorded == self.own,
        }
    }

    /// Says that the name is recorded for another machine, if it is.
    pub fn clash(&self, node: &str) -> Option<Clash> {
        let recorded = self.recorded.filter(|recorded| Some(*recorded) != self.own)?;
        Some(Clash { node: node.to_owned(), recorded: recorded.clone(), own: self.own.cloned() })
    }

    /// Adds to a transaction that the name becomes this machine's, if it has none.
    pub(crate) fn claim(&self, node: &str, transaction: &mut Transaction) {
        if let (Some(own), None) = (self.own, self.recorded) {
            let record = MachineRecord::new(own.clone());
            transaction.create(keys::machine(node), record.to_json());
        }
    }
}

/// A node's name that is recorded for another machine than this one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "node name {node} belongs to machine {recorded}, and this is {}: addresses of the other \
     machine are left alone, and this node is not registered; give this host another name, or, \
     if it takes the other's place, run: weirctl node adopt {}",
    described(own.as_ref()),
    shell_word(node)
)]
pub struct Clash {
    /// The name.
    pub node: String,
    /// The machine that it is recorded for.
    pub recorded: MachineId,
    /// This machine; `None` where it has no identity.
    pub own: Option<MachineId>,
}

fn described(own: Option<&MachineId>) -> String {
    match own {
        Some(own) => format!("machine {own}"),
        None => "a machine without an identity (write one into /var/lib/weir/machine)".to_owned(),
    }
}

/// Looks whether a node's name is recorded for another machine than `own`.
///
/// # Errors
/// [`Error::Datastore`], [`Error::Malformed`].
pub async fn find_clash(
    datastore: &dyn Datastore,
    node: &str,
    own: Option<&MachineId>,
) -> Result<Option<Clash>, Error> {
    let record = MachineRecord::read(datastore.get(&keys::machine(node)).await?.as_ref())?;
    let recorded = record.as_ref().map(|record| &record.value.machine);
    Ok(Ownership::new(own, recorded).clash(node))
}

impl Assignee {
    /// Whose an allocation of the host's name is, where that is `recorded` for a machine.
    pub(super) fn ownership<'a>(&'a self, recorded: Option<&'a MachineId>) -> Ownership<'a> {
        Ownership::new(self.machine.as_ref(), recorded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_is_of_the_machine_that_it_names_and_else_of_the_recorded_one() {
        let [own, other] = ["own", "other"].map(MachineId::from_source);
        // This machine, the recorded one; whose is what names our machine, another, none?
        let cases = [
            (Some(&own), None, [true, false, true]),
            (Some(&own), Some(&own), [true, false, true]),
            (Some(&own), Some(&other), [true, false, false]),
            (None, None, [false, false, true]),
            (None, Some(&other), [false, false, false]),
        ];
        for (this, recorded, expected) in cases {
            let ownership = Ownership::new(this, recorded);
            let made_on = [Some(own.as_str()), Some(other.as_str()), None];
            assert_eq!(made_on.map(|it| ownership.is_own(it)), expected, "{this:?} {recorded:?}");
        }
    }

    #[test]
    fn a_clash_names_both_machines_and_what_to_do() {
        let [own, other] = ["own", "other"].map(MachineId::from_source);
        assert_eq!(Ownership::new(Some(&own), Some(&own)).clash("n1"), None);
        assert_eq!(Ownership::new(Some(&own), None).clash("n1"), None);
        assert_eq!(Ownership::new(None, None).clash("n1"), None);
        let clash = Ownership::new(Some(&own), Some(&other)).clash("n1").unwrap().to_string();
        for part in [own.as_str(), other.as_str(), "name n1", "weirctl node adopt n1"] {
            assert!(clash.contains(part), "{clash}");
        }
        let clash = Ownership::new(None, Some(&other)).clash("n1").unwrap().to_string();
        assert!(clash.contains("/var/lib/weir/machine"), "{clash}");
    }

    #[test]
    fn a_record_keeps_what_it_does_not_know() {
        let text = br#"{"machine":"0123456789abcdef","since":"2026"}"#;
        assert_eq!(MachineRecord::from_json(text).unwrap().to_json(), text);
        for wrong in ["{}", r#"{"machine":"0123"}"#, r#"{"machine":null}"#, "[]"] {
            assert!(MachineRecord::from_json(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
