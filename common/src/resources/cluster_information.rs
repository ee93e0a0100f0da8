//! What Calico stores about the cluster as a whole.

use serde_json::{Map, Value, json};

use super::error::Error;
use super::fields::{self, Fields, Problems};
use super::resource::{API_VERSION, Birth, to_go_json};

/// The cluster's information.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterInformation {
    /// `false` while the datastore is being moved: nothing may be written then.
    pub datastore_ready: Option<bool>,
    /// What identifies the cluster, in whatever datastore it is.
    pub guid: Option<String>,
    /// The version of Calico that the cluster has, as Calico writes it.
    pub calico_version: Option<String>,
    /// What the cluster is made of, as Calico writes it (`k8s,bgp`).
    pub cluster_type: Option<String>,
    /// The document, to keep what Weir does not know.
    document: Map<String, Value>,
}

impl ClusterInformation {
    /// Reads it from its stored JSON (v3).
    ///
    /// # Errors
    /// [`Error::NotJson`], [`Error::NotAnObject`], or [`Error::Invalid`] when
    /// the flag is not a flag.
    pub fn from_json(value: &[u8]) -> Result<Self, Error> {
        let document = fields::object("ClusterInformation", value)?;
        let mut problems = Problems::default();
        let spec =
            Fields::new(&document, "").object("spec", "ClusterInformation.Spec", &mut problems);
        let datastore_ready = spec.boolean("datastoreReady", "DatastoreReady", &mut problems);
        let text = |field| spec.any(field).and_then(Value::as_str).filter(|it| !it.is_empty());
        let text = |field| text(field).map(str::to_owned);
        let (guid, calico_version) = (text("clusterGUID"), text("calicoVersion"));
        let cluster_type = text("clusterType");
        problems.into_result(Some(()))?;
        Ok(Self { datastore_ready, guid, calico_version, cluster_type, document })
    }

    /// What to store so that the cluster has a GUID and is ready, as Calico does
    /// (`libcalico-go/lib/clientv3/client.go`, ensureClusterInformation): a random UUID as
    /// 32 hexadecimal digits. `None` when it has a GUID. `birth` is for a new document,
    /// `guid` a random UUID.
    pub fn with_guid(&self, birth: &Birth, guid: &str) -> Option<Vec<u8>> {
        self.guid.is_none().then(|| self.completed(birth, guid, None))
    }

    /// What to store so that the cluster is `ready`, or not, and has a GUID. `None` when
    /// it is so. The arguments are as for [`ClusterInformation::with_guid`].
    pub fn with_ready(&self, ready: bool, birth: &Birth, guid: &str) -> Option<Vec<u8>> {
        (self.datastore_ready != Some(ready)).then(|| self.completed(birth, guid, Some(ready)))
    }

    fn completed(&self, birth: &Birth, guid: &str, ready: Option<bool>) -> Vec<u8> {
        let mut document = self.document.clone();
        let head = [("kind", json!("ClusterInformation")), ("apiVersion", json!(API_VERSION))];
        for (field, value) in head {
            document.entry(field).or_insert(value);
        }
        let (uid, time) = (&birth.uid, &birth.timestamp);
        let metadata = json!({"name": "default", "uid": uid, "creationTimestamp": time});
        document.entry("metadata").or_insert(metadata);
        let spec = document.entry("spec").or_insert_with(|| json!({}));
        if spec.is_null() {
            *spec = json!({});
        }
        if self.guid.is_none() {
            spec["clusterGUID"] = guid.replace('-', "").into();
        }
        spec["datastoreReady"] = ready.or(self.datastore_ready).unwrap_or(true).into();
        to_go_json(&Value::Object(document)).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_is_read() {
        let ready = |value: &[u8]| ClusterInformation::from_json(value).unwrap().datastore_ready;
        assert_eq!(ready(br#"{"spec":{"datastoreReady":false,"clusterType":"k8s"}}"#), Some(false));
        assert_eq!(ready(br#"{"spec":{"datastoreReady":true}}"#), Some(true));
        assert_eq!(ready(br#"{"spec":{}}"#), None);
        assert_eq!(ready(b"{}"), None);
        assert!(ClusterInformation::from_json(br#"{"spec":{"datastoreReady":"no"}}"#).is_err());
    }

    #[test]
    fn the_flag_is_changed_and_everything_else_is_kept() {
        let birth = Birth { uid: "u".to_owned(), timestamp: "2026-11-23T03:40:17Z".to_owned() };
        let found = br#"{"metadata":{"name":"default"},"spec":{"clusterGUID":"g","calicoVersion":"v3","datastoreReady":true}}"#;
        let information = ClusterInformation::from_json(found).unwrap();
        assert_eq!(information.with_ready(true, &birth, "new"), None);
        let locked = information.with_ready(false, &birth, "new").unwrap();
        let value: Value = serde_json::from_slice(&locked).unwrap();
        let spec = json!({"clusterGUID": "g", "calicoVersion": "v3", "datastoreReady": false});
        assert_eq!(value["spec"], spec);
        let none = ClusterInformation::default().with_ready(false, &birth, "a-b").unwrap();
        let none = ClusterInformation::from_json(&none).unwrap();
        assert_eq!((none.datastore_ready, none.guid.as_deref()), (Some(false), Some("ab")));
    }

    #[test]
    fn a_guid_is_added_as_calico_does_and_everything_else_is_kept() {
        let birth = Birth { uid: "u".to_owned(), timestamp: "2026-11-23T03:40:17Z".to_owned() };
        let guid = "b809cb15-a978-4cae-b604-7af0d1a4b8cb";
        let with_guid = |value: &str| {
            let information = ClusterInformation::from_json(value.as_bytes()).unwrap();
            information.with_guid(&birth, guid).map(|value| String::from_utf8(value).unwrap())
        };
        let made = concat!(
            r#"{"kind":"ClusterInformation","apiVersion":"projectcalico.org/v3","#,
            r#""metadata":{"name":"default","uid":"u","creationTimestamp":"2026-11-23T03:40:17Z"},"#,
            r#""spec":{"clusterGUID":"b809cb15a9784caeb6047af0d1a4b8cb","datastoreReady":true}}"#
        );
        let information = ClusterInformation::default();
        assert_eq!(information.with_guid(&birth, guid).as_deref(), Some(made.as_bytes()));
        assert_eq!(with_guid(made), None);
        let found = r#"{"metadata":{"name":"default"},"spec":{"x":1,"datastoreReady":false}}"#;
        let value: Value = serde_json::from_str(&with_guid(found).unwrap()).unwrap();
        assert_eq!(
            (&value["spec"]["x"], &value["spec"]["datastoreReady"]),
            (&1.into(), &false.into())
        );
        assert_eq!(value["metadata"], json!({"name": "default"}));
        assert_eq!(value["spec"]["clusterGUID"], "b809cb15a9784caeb6047af0d1a4b8cb");
    }
}
