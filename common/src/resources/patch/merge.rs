//! Patches that look like the part of the resource that they change.

use serde_json::{Map, Value};

use super::PatchError;

/// What directives of a strategic patch begin with.
const DIRECTIVE: char = '$';

/// Applies a JSON merge patch (RFC 7386, section 2): null removes a field,
/// objects are merged, all else is replaced.
pub(super) fn plain(target: &mut Value, part: &Map<String, Value>) {
    let target = as_object(target);
    for (name, value) in part {
        match value {
            Value::Null => {
                target.shift_remove(name);
            }
            Value::Object(part) => plain(target.entry(name.clone()).or_insert(Value::Null), part),
            other => {
                target.insert(name.clone(), other.clone());
            }
        }
    }
}

/// Applies a strategic merge patch (Kubernetes' `sig-api-machinery/
/// strategic-merge-patch.md`). None of the lists in these resources is merged
/// item by item, so that it differs from [`plain`] in its directives alone.
///
/// # Errors
/// [`PatchError::Directive`] for directives about merged lists, and unknown
/// ones.
pub(super) fn strategic(target: &mut Value, part: &Map<String, Value>) -> Result<(), PatchError> {
    let mut part = part.clone();
    match part.shift_remove("$patch").as_ref().map(Value::as_str) {
        None | Some(Some("merge")) => {}
        Some(Some("replace" | "delete")) => *target = Value::Object(Map::new()),
        Some(other) => return Err(PatchError::Directive(format!("$patch: {other:?}"))),
    }
    let target = as_object(target);
    match part.shift_remove("$retainKeys") {
        None => {}
        Some(Value::Array(names)) => target.retain(|name, _| names.contains(&name.as_str().into())),
        Some(other) => return Err(PatchError::Directive(format!("$retainKeys: {other}"))),
    }
    for (name, value) in part {
        match value {
            _ if name.starts_with(DIRECTIVE) => return Err(PatchError::Directive(name)),
            Value::Null => {
                target.shift_remove(&name);
            }
            Value::Object(part) => strategic(target.entry(name).or_insert(Value::Null), &part)?,
            other => {
                target.insert(name, other);
            }
        }
    }
    Ok(())
}

/// The value as an object; an empty one in the place of anything else.
fn as_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it was made an object above")
}
