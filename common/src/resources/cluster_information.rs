//! What Calico stores about the cluster as a whole.

use super::error::Error;
use super::fields::{self, Fields, Problems};

/// The cluster's information.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterInformation {
    /// `false` while someone moves the datastore: nobody may write then.
    pub datastore_ready: Option<bool>,
}

impl ClusterInformation {
    /// Reads it from its stored JSON (v3). Other fields are passed over.
    ///
    /// # Errors
    /// [`Error::NotJson`], [`Error::NotAnObject`], or [`Error::Invalid`] when
    /// the flag is not a flag.
    pub fn from_json(value: &[u8]) -> Result<Self, Error> {
        let object = fields::object("ClusterInformation", value)?;
        let mut problems = Problems::default();
        let spec =
            Fields::new(&object, "").object("spec", "ClusterInformation.Spec", &mut problems);
        let datastore_ready = spec.boolean("datastoreReady", "DatastoreReady", &mut problems);
        problems.into_result(Some(Self { datastore_ready }))
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
}
