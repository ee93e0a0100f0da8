//! A Node resource as it is stored, and how it is changed.

use serde_json::{Map, Value};

use super::error::Error;
use crate::datastore::{Entry, Transaction};
use crate::ipam::Stored;
use crate::resources::{self, Kind, Resource, type_name};

/// A stored Node resource, whole.
pub(super) struct StoredNode {
    key: String,
    stored: Stored<Resource>,
}

impl StoredNode {
    /// Reads what is stored under a node's key.
    ///
    /// # Errors
    /// [`crate::ipam::Error::Malformed`] when it is not a resource's JSON, or one whose
    /// parts are not objects: what others wrote there would be lost.
    pub(super) fn read(entry: &Entry) -> Result<Self, Error> {
        let parse = |value: &[u8]| Resource::from_stored(Kind::Node, value).and_then(check_parts);
        let stored = Stored::read(entry, parse).map_err(crate::ipam::Error::from)?;
        Ok(Self { key: entry.key.clone(), stored })
    }

    /// A text in `spec`, by its path.
    pub(super) fn get(&self, path: &[&str]) -> Option<&str> {
        let (first, rest) = path.split_first()?;
        let value = self.stored.value.spec(first)?;
        rest.iter().try_fold(value, |value, field| value.get(field))?.as_str()
    }

    /// Adds to a transaction that these fields of `spec`, by their paths, get these values;
    /// `None` removes one. Nothing is added when they have them.
    pub(super) fn set(&self, fields: &[(&[&str], Option<String>)], transaction: &mut Transaction) {
        let is_so = |(path, value): &(&[&str], Option<String>)| self.get(path) == value.as_deref();
        if fields.iter().all(is_so) {
            return;
        }
        let old = &self.stored.value;
        let mut object = old.object.clone();
        for (path, value) in fields {
            let Some((field, parents)) = path.split_last() else { continue };
            let spec = object_in(&mut object, "spec");
            let parent = parents.iter().fold(spec, |object, parent| object_in(object, parent));
            match value {
                Some(value) => parent.insert((*field).to_owned(), value.as_str().into()),
                None => parent.shift_remove(*field),
            };
        }
        // An empty `bgp`, which Calico refuses, is left out by this.
        let value = Value::Object(Resource::new(Kind::Node, object).replacing(old).object);
        let value = crate::resources::to_go_json(&value).into_bytes();
        transaction.update(self.key.clone(), self.stored.revision, value);
    }
}

/// The resource, if the parts that are written again are objects or absent.
fn check_parts(node: Resource) -> Result<Resource, resources::Error> {
    let spec = node.object.get("spec");
    let parts = [
        ("the metadata of a Node", node.object.get("metadata")),
        ("the spec of a Node", spec),
        ("the spec.bgp of a Node", spec.and_then(|spec| spec.get("bgp"))),
    ];
    for (kind, part) in parts {
        if let Some(other) = part.filter(|part| !part.is_object() && !part.is_null()) {
            return Err(resources::Error::NotAnObject { kind, found: type_name(other) });
        }
    }
    Ok(node)
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
