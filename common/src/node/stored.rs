//! A Node resource as it is stored, and how it is changed.

use serde_json::{Map, Value};

use super::Error;
use crate::datastore::{Entry, Transaction};
use crate::ipam::Stored;
use crate::resources::{Kind, Resource};

/// A stored Node resource, whole.
pub(super) struct StoredNode {
    key: String,
    stored: Stored<Resource>,
}

impl StoredNode {
    /// Reads what is stored under a node's key.
    ///
    /// # Errors
    /// [`crate::ipam::Error::Malformed`] when it is no resource's JSON.
    pub(super) fn read(entry: &Entry) -> Result<Self, Error> {
        let stored = Stored::read(entry, |value| Resource::from_stored(Kind::Node, value))
            .map_err(crate::ipam::Error::from)?;
        Ok(Self { key: entry.key.clone(), stored })
    }

    /// A text in `spec.bgp`.
    pub(super) fn bgp(&self, field: &str) -> Option<&str> {
        self.stored.value.spec("bgp")?.get(field)?.as_str()
    }

    /// Adds to a transaction that these fields of `spec.bgp` get these values;
    /// `None` removes one. Nothing is added when they have them.
    pub(super) fn set_bgp(&self, fields: &[(&str, Option<String>)], transaction: &mut Transaction) {
        let is_so = |(field, value): &(&str, Option<String>)| self.bgp(field) == value.as_deref();
        if fields.iter().all(is_so) {
            return;
        }
        let old = &self.stored.value;
        let mut object = old.object.clone();
        let bgp = object_in(object_in(&mut object, "spec"), "bgp");
        for (field, value) in fields {
            match value {
                Some(value) => bgp.insert((*field).to_owned(), value.as_str().into()),
                None => bgp.shift_remove(*field),
            };
        }
        // An empty `bgp`, which Calico refuses, is left out by this.
        let value = Value::Object(Resource::new(Kind::Node, object).replacing(old).object);
        let value = crate::resources::to_go_json(&value).into_bytes();
        transaction.update(self.key.clone(), self.stored.revision, value);
    }
}

/// The object in a field, which is made one if it is none.
pub(super) fn object_in<'a>(
    object: &'a mut Map<String, Value>,
    field: &str,
) -> &'a mut Map<String, Value> {
    let value = object.entry(field).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it was made an object above")
}
