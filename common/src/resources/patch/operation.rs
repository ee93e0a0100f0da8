//! JSON patches: lists of operations (RFC 6902).

use serde::Deserialize;
use serde_json::Value;

use super::PatchError;
use crate::resources::document::DocumentError;
use crate::resources::{schema, types};

/// One operation (RFC 6902, section 4). Paths are JSON pointers (RFC 6901).
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(super) enum Operation {
    Add { path: String, value: Value },
    Remove { path: String },
    Replace { path: String, value: Value },
    Move { from: String, path: String },
    Copy { from: String, path: String },
    Test { path: String, value: Value },
}

/// Reads the operations.
///
/// # Errors
/// [`PatchError::Operation`] for the first one that is none.
pub(super) fn parse(items: Vec<Value>) -> Result<Vec<Operation>, PatchError> {
    let operation = |(index, item)| {
        serde_json::from_value(item)
            .map_err(|cause| PatchError::Operation { position: index + 1, cause })
    };
    items.into_iter().enumerate().map(operation).collect()
}

/// Refuses the first boolean, if any, that operations written in JSON give as text: there every
/// text stands in quotes.
///
/// # Errors
/// [`DocumentError::QuotedFlag`].
pub(super) fn check_flags(operations: &[Operation]) -> Result<(), DocumentError> {
    for operation in operations {
        if let Operation::Add { path, value } | Operation::Replace { path, value } = operation
            && let (Some((_, field)), Some(word)) = (path.rsplit_once('/'), value.as_str())
            && schema::is_flag(field)
            && types::is_flag_word(word)
        {
            let (field, word) = (field.to_owned(), word.to_owned());
            return Err(DocumentError::QuotedFlag { field, word });
        }
    }
    Ok(())
}

/// Carries out all operations, each on what the one before it left.
///
/// # Errors
/// [`PatchError::Refused`] for the first one that cannot be carried out.
pub(super) fn apply_all(operations: &[Operation], target: &mut Value) -> Result<(), PatchError> {
    for (index, operation) in operations.iter().enumerate() {
        apply(operation, target)
            .map_err(|reason| PatchError::Refused { position: index + 1, reason })?;
    }
    Ok(())
}

fn apply(operation: &Operation, target: &mut Value) -> Result<(), String> {
    match operation {
        Operation::Add { path, value } => add(target, path, value.clone()),
        Operation::Remove { path } => remove(target, path).map(drop),
        Operation::Replace { path, value } => {
            *target.pointer_mut(path).ok_or_else(|| nothing_at(path))? = value.clone();
            Ok(())
        }
        Operation::Move { from, path } => {
            let value = remove(target, from)?;
            add(target, path, value)
        }
        Operation::Copy { from, path } => {
            let value = target.pointer(from).ok_or_else(|| nothing_at(from))?.clone();
            add(target, path, value)
        }
        Operation::Test { path, value } => {
            let found = target.pointer(path).ok_or_else(|| nothing_at(path))?;
            let differs = || format!("{path} is {found} instead of {value}");
            if found == value { Ok(()) } else { Err(differs()) }
        }
    }
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let (parent, name) = split(path)?;
    match target.pointer_mut(parent) {
        Some(Value::Object(object)) => {
            object.insert(name, value);
            Ok(())
        }
        Some(Value::Array(items)) if name == "-" => {
            items.push(value);
            Ok(())
        }
        Some(Value::Array(items)) => {
            let index = index(&name).filter(|index| *index <= items.len());
            items.insert(index.ok_or_else(|| nothing_at(path))?, value);
            Ok(())
        }
        _ => Err(nothing_at(parent)),
    }
}

fn remove(target: &mut Value, path: &str) -> Result<Value, String> {
    let (parent, name) = split(path)?;
    let removed = match target.pointer_mut(parent) {
        Some(Value::Object(object)) => object.shift_remove(&name),
        Some(Value::Array(items)) => {
            index(&name).filter(|index| *index < items.len()).map(|index| items.remove(index))
        }
        _ => None,
    };
    removed.ok_or_else(|| nothing_at(path))
}

/// A pointer's parent, and its last part in clear.
fn split(path: &str) -> Result<(&str, String), String> {
    let (parent, name) = path
        .rsplit_once('/')
        .ok_or_else(|| format!("'{path}' is not a path; a path looks like /spec/disabled"))?;
    Ok((parent, name.replace("~1", "/").replace("~0", "~")))
}

/// An index into a list: digits, without a zero in front.
fn index(name: &str) -> Option<usize> {
    let canonical = name == "0" || !name.starts_with(['0', '+']);
    name.parse().ok().filter(|_| canonical)
}

fn nothing_at(path: &str) -> String {
    format!("there is nothing at '{path}'")
}
