//! Setting and removing labels (`calicoctl/calicoctl/commands/label.go`).

use serde_json::{Map, Value, json};

use super::error::FieldError;
use super::kind::Kind;
use super::metadata;
use super::resource::Resource;
use crate::printable::printable;

/// A change of one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelChange {
    /// Gives the label this value.
    Set {
        /// The label's key.
        key: String,
        /// Its value.
        value: String,
        /// Whether another value may be replaced.
        overwrite: bool,
    },
    /// Takes the label away.
    Remove {
        /// The label's key.
        key: String,
    },
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelOutcome {
    /// The label is new.
    Set,
    /// The label was there; its value may be the same.
    Updated,
    /// The label is gone.
    Removed,
}

/// Why a label cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// The argument is no `key=value`.
    #[error(
        "invalid label '{0}'; write KEY=VALUE to set a label, or KEY --remove to remove it, for \
         example: weirctl label node n1 zone=a"
    )]
    NoPair(String),
    /// No selector could name this key.
    #[error("invalid label key '{0}'; a key consists of letters, digits, '.', '_', '-' and '/'")]
    Key(String),
    /// The label breaks a rule of Kubernetes.
    #[error("error with field {0}")]
    Invalid(FieldError),
    /// The label has another value already.
    #[error(
        "key {key} is already present with value '{}'; \
         use '--overwrite' to set a new value",
        printable(present)
    )]
    Present {
        /// The label's key.
        key: String,
        /// The value it has.
        present: String,
    },
    /// There is no such label to remove.
    #[error("key {key} does not exist; {}", labels_there_are(present))]
    Absent {
        /// The label's key.
        key: String,
        /// The keys of the labels that there are.
        present: Vec<String>,
    },
    /// Resources of this kind are stored without labels.
    #[error("a resource of kind {0} has no labels")]
    Unlabelled(Kind),
}

fn labels_there_are(keys: &[String]) -> String {
    if keys.is_empty() {
        "it has no labels".into()
    } else {
        format!("it has {}", printable(&keys.join(", ")))
    }
}

impl LabelChange {
    /// Reads the argument that says what to set: `key=value`.
    ///
    /// # Errors
    /// [`LabelError::NoPair`], [`LabelError::Key`], [`LabelError::Invalid`].
    pub fn set(argument: &str, overwrite: bool) -> Result<Self, LabelError> {
        match argument.split_once('=') {
            Some((key, value)) if !value.contains('=') => {
                let (key, value) = (checked_key(key)?, value.to_owned());
                match metadata::problem_of_label(&key, &value) {
                    Some(problem) => Err(LabelError::Invalid(problem)),
                    None => Ok(Self::Set { key, value, overwrite }),
                }
            }
            _ => Err(LabelError::NoPair(argument.to_owned())),
        }
    }

    /// Reads the argument that says what to remove: a key.
    ///
    /// # Errors
    /// [`LabelError::Key`].
    pub fn remove(argument: &str) -> Result<Self, LabelError> {
        Ok(Self::Remove { key: checked_key(argument)? })
    }

    /// The label's key.
    pub fn key(&self) -> &str {
        match self {
            Self::Set { key, .. } | Self::Remove { key } => key,
        }
    }

    /// The resource with the label changed, and what that did.
    ///
    /// # Errors
    /// [`LabelError::Present`], [`LabelError::Absent`],
    /// [`LabelError::Unlabelled`].
    pub fn apply(&self, resource: &Resource) -> Result<(Resource, LabelOutcome), LabelError> {
        if resource.kind == Kind::IpamConfig {
            return Err(LabelError::Unlabelled(resource.kind));
        }
        let mut labels = resource.labels();
        let outcome = match self {
            Self::Set { key, value, overwrite } => match labels.insert(key.clone(), json!(value)) {
                None => LabelOutcome::Set,
                Some(before) if *overwrite || before == *value => LabelOutcome::Updated,
                Some(before) => {
                    let present = super::fields::shown(&before);
                    return Err(LabelError::Present { key: key.clone(), present });
                }
            },
            Self::Remove { key } => {
                let removed = labels.shift_remove(key);
                removed.ok_or_else(|| absent(key, &labels))?;
                LabelOutcome::Removed
            }
        };
        Ok((resource.clone().labelled(labels), outcome))
    }
}

fn absent(key: &str, labels: &Map<String, Value>) -> LabelError {
    LabelError::Absent { key: key.to_owned(), present: labels.keys().cloned().collect() }
}

/// A key that selectors can name (`libcalico-go/lib/selector/tokenizer`).
fn checked_key(key: &str) -> Result<String, LabelError> {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-/".contains(letter);
    if key.is_empty() || !key.chars().all(allowed) {
        return Err(LabelError::Key(key.to_owned()));
    }
    Ok(key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(labels: Value) -> Resource {
        let object = json!({"metadata": {"name": "n1", "labels": labels}, "spec": {}});
        Resource::new(Kind::Node, object.as_object().unwrap().clone())
    }

    fn changed(change: &LabelChange) -> Result<(Value, LabelOutcome), String> {
        let (resource, outcome) =
            change.apply(&node(json!({"zone": "a"}))).map_err(|error| error.to_string())?;
        Ok((resource.object["metadata"]["labels"].clone(), outcome))
    }

    #[test]
    fn labels_are_set_replaced_and_removed() {
        let set = |text, overwrite| changed(&LabelChange::set(text, overwrite).unwrap());
        let added = json!({"zone": "a", "rack": "7"});
        assert_eq!(set("rack=7", false).unwrap(), (added, LabelOutcome::Set));
        assert_eq!(set("zone=a", false).unwrap(), (json!({"zone": "a"}), LabelOutcome::Updated));
        assert_eq!(set("zone=", true).unwrap(), (json!({"zone": ""}), LabelOutcome::Updated));
        let error = set("zone=b", false).unwrap_err();
        assert!(error.starts_with("key zone is already present with value 'a'"), "{error}");
        let removed = changed(&LabelChange::remove("zone").unwrap()).unwrap();
        assert_eq!(removed, (json!({}), LabelOutcome::Removed));
        let error = changed(&LabelChange::remove("rack").unwrap()).unwrap_err();
        assert_eq!(error, "key rack does not exist; it has zone");
    }

    #[test]
    fn arguments_that_are_no_label_are_refused() {
        for text in ["zone", "a=b=c", "", "=", "a b=c", "a=b c", "-a=b", "a/b/c=d"] {
            assert!(LabelChange::set(text, false).is_err(), "{text}");
        }
        assert_eq!(LabelChange::remove("zone=a"), Err(LabelError::Key("zone=a".into())));
        let config = Resource::new(Kind::IpamConfig, Map::new());
        let change = LabelChange::set("a=b", false).unwrap();
        assert_eq!(change.apply(&config), Err(LabelError::Unlabelled(Kind::IpamConfig)));
    }
}
