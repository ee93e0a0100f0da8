//! Patches: changes of a resource, in the three forms that `calicoctl patch`
//! takes (`libcalico-go` leaves them to Kubernetes' and evanphx's libraries).

mod merge;
mod operation;

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use self::operation::Operation;
use super::document::{self, DocumentError};
use super::error::{Error, FieldError};
use super::fields::type_name;
use super::resource::Resource;
use super::{schema, types};

/// The form of a patch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PatchType {
    /// A part of the resource, with Kubernetes' directives (`$patch`,
    /// `$retainKeys`).
    #[default]
    Strategic,
    /// A list of operations (RFC 6902).
    Json,
    /// A part of the resource, without directives (RFC 7386).
    Merge,
}

/// A patch that has been read.
#[derive(Clone, Debug)]
pub struct Patch(PatchForm);

#[derive(Clone, Debug)]
enum PatchForm {
    Strategic(Map<String, Value>),
    Json(Vec<Operation>),
    Merge(Map<String, Value>),
}

/// Why a patch cannot be read or applied.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The text is neither YAML nor JSON, or the patched resource has a field
    /// that no resource of its kind has.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The text has another shape than patches of this form.
    #[error("the patch is {found} instead of {expected}")]
    Shape {
        /// What was found, in JSON's words.
        found: &'static str,
        /// What belongs there, with an example.
        expected: &'static str,
    },
    /// An operation is not one of RFC 6902's.
    #[error("operation {position} of the patch is not one of RFC 6902's: {cause}")]
    Operation {
        /// Its number in the list, from 1 on.
        position: usize,
        /// What is wrong with it.
        cause: serde_json::Error,
    },
    /// An operation cannot be carried out.
    #[error("operation {position} of the patch: {reason}")]
    Refused {
        /// Its number in the list, from 1 on.
        position: usize,
        /// What stands in the way.
        reason: String,
    },
    /// A directive that is of no use for these resources.
    #[error(
        "the directive {0} of the patch is not supported; write $patch: replace, \
         $patch: delete or $retainKeys: [FIELD, …], or use --type=json"
    )]
    Directive(String),
    /// The patch changes what makes the resource this one.
    #[error(transparent)]
    Identity(#[from] Error),
}

impl Patch {
    /// Reads a patch of this form, in JSON or YAML.
    ///
    /// # Errors
    /// [`PatchError`] when the text is no such patch.
    pub fn parse(text: &str, form: PatchType) -> Result<Self, PatchError> {
        const PART: &str = "a part of the resource, for example {\"spec\": {\"disabled\": true}}";
        let mut documents = document::values(text)?.into_iter();
        let value = documents.next().unwrap_or_default();
        Ok(Self(match (form, value) {
            (PatchType::Strategic, Value::Object(part)) => PatchForm::Strategic(part),
            (PatchType::Merge, Value::Object(part)) => PatchForm::Merge(part),
            (PatchType::Json, Value::Array(items)) => {
                let operations = operation::parse(items)?;
                if serde_json::from_str::<IgnoredAny>(text).is_ok() {
                    operation::check_flags(&operations)?;
                }
                PatchForm::Json(operations)
            }
            (PatchType::Json, other) => {
                let expected = "a list of operations, for example \
                                [{\"op\": \"add\", \"path\": \"/spec/disabled\", \"value\": true}]";
                return Err(PatchError::Shape { found: type_name(&other), expected });
            }
            (_, other) => {
                return Err(PatchError::Shape { found: type_name(&other), expected: PART });
            }
        }))
    }

    /// The resource with the patch applied. Its values are not checked: that
    /// is [`Resource::check`].
    ///
    /// # Errors
    /// [`PatchError`] when an operation cannot be carried out, or the result
    /// has an unknown field or another name or kind.
    pub fn apply(&self, resource: &Resource) -> Result<Resource, PatchError> {
        let mut patched = Value::Object(resource.object.clone());
        match &self.0 {
            PatchForm::Strategic(part) => merge::strategic(&mut patched, part)?,
            PatchForm::Merge(part) => merge::plain(&mut patched, part),
            PatchForm::Json(operations) => operation::apply_all(operations, &mut patched)?,
        }
        let Value::Object(object) = patched else {
            let expected = "changes within the resource";
            return Err(PatchError::Shape { found: type_name(&patched), expected });
        };
        document::check_added_fields(&object, resource)?;
        let object = types::converted(object, schema::fields(resource.kind));
        let patched = Resource { object, ..resource.clone() };
        check_identity(resource, &patched)?;
        Ok(patched)
    }
}

/// Checks that the patched resource is still the same one.
fn check_identity(before: &Resource, after: &Resource) -> Result<(), Error> {
    let text = |resource: &Resource, field: &str| {
        resource.object.get(field).map(super::fields::shown).unwrap_or_default()
    };
    let fields = [
        ("Metadata.Name", before.name().to_owned(), after.name().to_owned()),
        ("Kind", text(before, "kind"), text(after, "kind")),
        ("APIVersion", text(before, "apiVersion"), text(after, "apiVersion")),
    ];
    let changed = fields.into_iter().filter(|(_, before, after)| before != after);
    let problems: Vec<_> = changed
        .map(|(field, before, after)| {
            FieldError::new(field, "cannot be modified")
                .value(after)
                .advice(format!("leave it out of the patch, or write {before}"))
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems)) }
}

#[cfg(test)]
mod tests;
