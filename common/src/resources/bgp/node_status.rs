//! CalicoNodeStatus: what a node is asked to report, and how often.

use serde_json::{Map, Value};

use crate::resources::error::{Error, FieldError};
use crate::resources::fields::{self, Fields, Problems};

/// What a node is asked to report in the status of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalicoNodeStatus {
    /// The name under which it is stored.
    pub name: String,
    /// The node that reports.
    pub node: String,
    /// What it reports.
    pub classes: Vec<StatusClass>,
    /// How often in seconds; 0 for not at all.
    pub update_period: u32,
}

/// A part of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusClass {
    /// The BGP daemon.
    Agent,
    /// The sessions.
    Bgp,
    /// The routes.
    Routes,
}

const CLASSES: [(&str, StatusClass); 3] =
    [("Agent", StatusClass::Agent), ("BGP", StatusClass::Bgp), ("Routes", StatusClass::Routes)];

impl CalicoNodeStatus {
    /// Reads it from its stored JSON (v3). Unknown fields and the status are passed over.
    ///
    /// # Errors
    /// [`Error::NotJson`], [`Error::NotAnObject`], or [`Error::Invalid`] with
    /// everything that is wrong.
    pub fn from_json(value: &[u8]) -> Result<Self, Error> {
        Self::from_object(&fields::object("CalicoNodeStatus", value)?)
    }

    /// As [`CalicoNodeStatus::from_json`], from JSON that is parsed already.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything that is wrong.
    pub fn from_object(object: &Map<String, Value>) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let resource = Fields::new(object, "");
        let name = fields::name(&resource, &mut problems).unwrap_or_default();
        let spec = resource.object("spec", "CalicoNodeStatus.Spec", &mut problems);
        let node = spec.text("node", "Node", &mut problems).unwrap_or_default().to_owned();
        if node.is_empty() {
            problems.add(FieldError::new(spec.path("Node"), "must be specified"));
        }
        let classes = read_classes(&spec, &mut problems);
        if !spec.is_set("updatePeriodSeconds") {
            problems.add(
                FieldError::new(spec.path("UpdatePeriodSeconds"), "must be specified")
                    .advice("write for example updatePeriodSeconds: 10"),
            );
        }
        let period =
            spec.ranged("updatePeriodSeconds", "UpdatePeriodSeconds", 0..=86_400, &mut problems);
        let update_period = period.unwrap_or_default();
        problems.into_result(Some(Self { name, node, classes, update_period }))
    }
}

fn read_classes(spec: &Fields<'_>, problems: &mut Problems) -> Vec<StatusClass> {
    let texts = spec.texts("classes", "Classes", problems);
    let mut classes = Vec::new();
    for text in &texts {
        let class = CLASSES.iter().find(|(name, _)| name == text).map(|(_, class)| *class);
        match class.filter(|class| !classes.contains(class)) {
            Some(class) => classes.push(class),
            None => problems.add(
                FieldError::new(spec.path("Classes"), "must be Agent, BGP and Routes, each once")
                    .value(text),
            ),
        }
    }
    if texts.is_empty() {
        problems.add(FieldError::new(spec.path("Classes"), "must have one of Agent, BGP, Routes"));
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(spec: &Value) -> Result<CalicoNodeStatus, Error> {
        let object = json!({"metadata": {"name": "n1"}, "spec": spec, "status": {"bgp": 5}});
        CalicoNodeStatus::from_json(object.to_string().as_bytes())
    }

    #[test]
    fn what_a_node_is_asked_is_read() {
        let spec = json!({"node": "n1", "classes": ["BGP", "Agent"], "updatePeriodSeconds": 0});
        let expected = CalicoNodeStatus {
            name: "n1".into(),
            node: "n1".into(),
            classes: vec![StatusClass::Bgp, StatusClass::Agent],
            update_period: 0,
        };
        assert_eq!(read(&spec).unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = json!({"node": "n1", "classes": ["BGP"], "updatePeriodSeconds": 10});
        for (field, value) in [
            ("Node", json!({"node": ""})),
            ("Classes", json!({"classes": []})),
            ("Classes", json!({"classes": ["BGP", "BGP"]})),
            ("Classes", json!({"classes": ["Bgp"]})),
            ("UpdatePeriodSeconds", json!({"updatePeriodSeconds": null})),
            ("UpdatePeriodSeconds", json!({"updatePeriodSeconds": 86_401})),
            ("UpdatePeriodSeconds", json!({"updatePeriodSeconds": -1})),
        ] {
            let mut spec = good.clone();
            spec.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
            let error = read(&spec).unwrap_err().to_string();
            let expected = format!("error with field CalicoNodeStatus.Spec.{field} ");
            assert!(error.starts_with(&expected), "{spec}: {error}");
        }
    }
}
