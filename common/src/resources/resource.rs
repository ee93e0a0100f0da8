//! A resource as JSON: what people write and what is stored, with the fields
//! that Weir does not know.

use serde_json::{Map, Value, json};

use super::bgp::{self, BgpConfiguration, BgpFilter, BgpPeer, CalicoNodeStatus};
use super::error::{Error, FieldError};
use super::felix_configuration::FelixConfiguration;
use super::ipam_config::IpamConfig;
use super::kind::IPAM_CONFIG_NAME;
use super::kind::Kind;
use super::node::Node;
use super::pool::IpPool;
use super::reservation::IpReservation;
use super::{fields, ipam_config, metadata, node, schema, types};
use crate::tunnel::TunnelKind;

/// The `apiVersion` of the present form.
pub const API_VERSION: &str = "projectcalico.org/v3";

/// A resource in its v3 form, as JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// What it is.
    pub kind: Kind,
    /// The whole document, unknown fields included.
    pub object: Map<String, Value>,
    /// Whether it was written in the old form (v1), which knows it by its content instead of
    /// its name, and cannot say all that it has.
    pub is_from_v1: bool,
    /// What of an older form could not be turned into the present one.
    pub unconverted: Vec<FieldError>,
}

/// What a resource gets when it is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// A random UUID.
    pub uid: String,
    /// The present time in RFC 3339, to the second, in UTC.
    pub timestamp: String,
}

impl Resource {
    /// Reads what is stored under the key of a resource of this kind.
    /// Defaults are filled in, as Calico does when it reads.
    ///
    /// # Errors
    /// [`Error::NotJson`], [`Error::NotAnObject`]; for an IPAM configuration
    /// [`Error::Invalid`] as well.
    pub fn from_stored(kind: Kind, value: &[u8]) -> Result<Self, Error> {
        if kind == Kind::IpamConfig {
            let spec = ipam_config::to_spec(&IpamConfig::from_json(value)?);
            let object = document(kind.name(), IPAM_CONFIG_NAME, spec);
            return Ok(Self::new(kind, object));
        }
        let mut resource = Self::new(kind, fields::object(kind.name(), value)?);
        resource.fill_defaults();
        Ok(resource)
    }

    /// A resource of this kind from a v3 document.
    pub fn new(kind: Kind, object: Map<String, Value>) -> Self {
        Self { kind, object, is_from_v1: false, unconverted: Vec::new() }
    }

    /// Its name; empty when it has none.
    pub fn name(&self) -> &str {
        self.metadata("name").unwrap_or_default()
    }

    /// The revision it was read at, as it stands in the document.
    pub fn resource_version(&self) -> Option<&str> {
        self.metadata("resourceVersion")
    }

    fn metadata(&self, key: &str) -> Option<&str> {
        let text = self.object.get("metadata")?.get(key)?.as_str()?;
        (!text.is_empty()).then_some(text)
    }

    /// The field `key` of `spec`.
    pub fn spec(&self, key: &str) -> Option<&Value> {
        self.object.get("spec")?.get(key)
    }

    /// Checks it by the one validator of its kind, and that all other fields
    /// that Calico knows have the types by which Calico can read it.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything that is wrong.
    pub fn check(&self) -> Result<(), Error> {
        let mut problems = self.unconverted.clone();
        for checked in [self.check_stored(), self.check_written()] {
            match checked {
                Ok(()) => {}
                Err(Error::Invalid(more)) => problems.extend(more),
                Err(other) => return Err(other),
            }
        }
        types::check(&self.object, self.kind, &mut problems);
        metadata::check(&self.object, self.kind, &mut problems);
        if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems)) }
    }

    /// Checks what Weir makes use of, as what uses it does.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything that is wrong.
    pub fn check_stored(&self) -> Result<(), Error> {
        match self.kind {
            Kind::IpPool => self.pool().map(drop),
            Kind::IpReservation => IpReservation::from_object(&self.object).map(drop),
            Kind::Node => Node::from_object(&self.object).map(drop),
            Kind::IpamConfig => ipam_config::from_document(&self.object)?.check(),
            Kind::BgpConfiguration => BgpConfiguration::from_object(&self.object).map(drop),
            Kind::BgpPeer => BgpPeer::from_object(&self.object).map(drop),
            Kind::BgpFilter => BgpFilter::from_object(&self.object).map(drop),
            Kind::CalicoNodeStatus => CalicoNodeStatus::from_object(&self.object).map(drop),
            Kind::FelixConfiguration => FelixConfiguration::from_object(&self.object).map(drop),
        }
    }

    /// Checks what is refused when it is written, and passed over when it is read.
    fn check_written(&self) -> Result<(), Error> {
        match self.kind {
            Kind::Node => node::check_written(&self.object),
            Kind::BgpConfiguration => bgp::check_written_configuration(&self.object),
            _ => Ok(()),
        }
    }

    /// The pool that it describes.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything that is wrong.
    pub fn pool(&self) -> Result<IpPool, Error> {
        IpPool::from_object(&self.object)
    }

    /// The resource as it is created: with defaults, a UID and the time, and
    /// without what belongs to an earlier life (`libcalico-go/lib/clientv3`).
    #[must_use]
    pub fn created(mut self, birth: Birth) -> Self {
        let metadata = self.metadata_mut();
        metadata.shift_remove("resourceVersion");
        metadata.insert("uid".into(), json!(birth.uid));
        metadata.insert("creationTimestamp".into(), json!(birth.timestamp));
        self.object.shift_remove("status");
        self.finish()
    }

    /// The resource with all of `old` that the form in which it was written cannot say: of a v1
    /// pool labels, block size, selectors and so on, of a v1 peer its password, filters and so on.
    #[must_use]
    pub fn completed_by(&self, old: &Self) -> Self {
        let mut complete = self.clone();
        if self.is_from_v1 {
            for part in ["metadata", "spec"] {
                let mut object = old.object_in(part);
                object.extend(self.object_in(part));
                complete.object.insert(part.into(), Value::Object(object));
            }
        }
        complete
    }

    /// The resource as it replaces `old`: with defaults, and with all that
    /// only the datastore decides taken over, unknown fields included.
    #[must_use]
    pub fn replacing(mut self, old: &Self) -> Self {
        let mut metadata = old.object_in("metadata");
        let new = self.object_in("metadata");
        for key in ["labels", "annotations"] {
            match new.get(key) {
                Some(value) => metadata.insert(key.into(), value.clone()),
                None => metadata.shift_remove(key),
            };
        }
        metadata.shift_remove("resourceVersion");
        let spec = self.object_in("spec");
        self.object.insert("metadata".into(), Value::Object(metadata));
        self.object.insert("spec".into(), Value::Object(spec));
        schema::keep_unknown(&mut self.object, &old.object, schema::fields(self.kind));
        if let Some(status) = old.object.get("status") {
            self.object.insert("status".into(), status.clone());
        }
        self.finish()
    }

    /// The value to store. `stored` is what is stored under its key now.
    ///
    /// # Errors
    /// Only for an IPAM configuration: [`Error::Invalid`] when it, or
    /// [`Error::NotJson`] when `stored`, is none.
    pub fn to_stored(&self, stored: Option<&[u8]>) -> Result<Vec<u8>, Error> {
        if self.kind == Kind::IpamConfig {
            let before = stored.map(IpamConfig::from_json).transpose()?.unwrap_or_default();
            let config = ipam_config::from_document(&self.object)?;
            return Ok(IpamConfig { stored: before.stored, ..config }.to_json());
        }
        Ok(to_go_json(&Value::Object(self.object.clone())).into_bytes())
    }

    /// The same resource under another name.
    #[must_use]
    pub fn renamed(mut self, name: &str) -> Self {
        self.metadata_mut().insert("name".into(), json!(name));
        self
    }

    /// Its labels; none when there are none.
    pub fn labels(&self) -> Map<String, Value> {
        let labels = self.object.get("metadata").and_then(|metadata| metadata.get("labels"));
        labels.and_then(Value::as_object).cloned().unwrap_or_default()
    }

    /// The same resource with these labels.
    #[must_use]
    pub fn labelled(mut self, labels: Map<String, Value>) -> Self {
        self.metadata_mut().insert("labels".into(), Value::Object(labels));
        self
    }

    /// The same resource without what ties it to this cluster: UID, time of
    /// creation and version.
    #[must_use]
    pub fn exported(mut self) -> Self {
        for key in ["uid", "resourceVersion", "creationTimestamp"] {
            self.metadata_mut().shift_remove(key);
        }
        self
    }

    /// The same resource, saying at which revision it was read.
    #[must_use]
    pub fn read_at(mut self, revision: crate::datastore::Revision) -> Self {
        let kind = self.kind;
        self.metadata_mut().insert("resourceVersion".into(), json!(revision.to_string()));
        self.object = schema::arranged(self.object, schema::fields(kind));
        self
    }

    fn finish(mut self) -> Self {
        self.object.insert("kind".into(), json!(self.kind.name()));
        self.object.insert("apiVersion".into(), json!(API_VERSION));
        self.fill_defaults();
        self.object = schema::arranged(self.object, schema::fields(self.kind));
        self
    }

    /// Fills in a pool's defaults and its CIDR's canonical form. What is no
    /// valid pool stays as it is.
    fn fill_defaults(&mut self) {
        if self.kind != Kind::IpPool {
            return;
        }
        let Ok(pool) = self.pool() else { return };
        let Some(Value::Object(spec)) = self.object.get_mut("spec") else { return };
        let uses: Vec<_> = pool.allowed_uses.iter().map(ToString::to_string).collect();
        let defaults = [
            ("cidr", json!(pool.cidr.to_string())),
            ("blockSize", json!(pool.block_size)),
            ("nodeSelector", json!(pool.node_selector.to_string())),
            ("allowedUses", json!(uses)),
            ("assignmentMode", json!(pool.assignment_mode.to_string())),
        ];
        let mode = |kind: TunnelKind| (kind.row().mode_field, json!(pool.mode(kind).to_string()));
        for (key, value) in TunnelKind::of_modes().map(mode).chain(defaults) {
            spec.insert(key.to_owned(), value);
        }
    }

    /// The object in field `key`; an empty one when there is none.
    fn object_in(&self, key: &str) -> Map<String, Value> {
        self.object.get(key).and_then(Value::as_object).cloned().unwrap_or_default()
    }

    fn metadata_mut(&mut self) -> &mut Map<String, Value> {
        let metadata = self.object.entry("metadata").or_insert_with(|| json!({}));
        if !metadata.is_object() {
            *metadata = json!({});
        }
        metadata.as_object_mut().expect("it was made an object above")
    }
}

/// A document of this kind, name and spec.
pub(super) fn document(kind: &str, name: &str, spec: Map<String, Value>) -> Map<String, Value> {
    let mut document = Map::new();
    document.insert("kind".into(), json!(kind));
    document.insert("apiVersion".into(), json!(API_VERSION));
    document.insert("metadata".into(), json!({"name": name}));
    document.insert("spec".into(), Value::Object(spec));
    document
}

/// JSON as Go's `encoding/json` writes it, and so as Calico stores it: `<`,
/// `>`, `&` and two line separators are escaped. They occur in strings only.
pub fn to_go_json(value: &Value) -> String {
    escape_as_go(&value.to_string())
}

/// Escapes in JSON text what Go escapes.
pub fn escape_as_go(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
