//! What the network's file says.

use std::collections::BTreeMap;
use std::path::Path;

use super::files::FileError;
use crate::commands::doctor::{is_weirs, trouble_of_network};

/// The text with the environment's values in the place of `__NAME__`, escaped as in a string of
/// JSON. So templates for Calico's installer work.
///
/// # Errors
/// [`FileError::Variable`] for a variable that is not set.
pub fn fill(template: &str, variables: &BTreeMap<String, String>) -> Result<String, FileError> {
    let (mut text, mut rest) = (String::new(), template);
    while let Some((before, name, after)) = next_variable(rest) {
        let missing = || FileError::Variable { name: name.to_owned() };
        let value = variables.get(name).ok_or_else(missing)?;
        let quoted = serde_json::Value::from(value.as_str()).to_string();
        text.push_str(before);
        text.push_str(&quoted[1..quoted.len() - 1]);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

/// What is before the first `__NAME__`, its name, and what is after it.
fn next_variable(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(found) = text[from..].find("__") {
        let begin = from + found;
        let after = &text[begin + 2..];
        if let Some(end) = after.find("__")
            && is_name(&after[..end])
        {
            return Some((&text[..begin], &after[..end], &after[end + 2..]));
        }
        from = begin + 2;
    }
    None
}

/// Whether it is the name of a variable as people write them.
fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_uppercase())
        && text.chars().all(|it| it.is_ascii_uppercase() || it.is_ascii_digit() || it == '_')
}

/// Checks a network as the plugins read it.
///
/// # Errors
/// [`FileError::Network`] for one that runtimes or plugins refuse, or that has none of Weir's.
pub fn check(path: &Path, text: &str) -> Result<(), FileError> {
    let none = || "no plugin in it is Weir's; write \"type\": \"weir\"".to_owned();
    let trouble = trouble_of_network(path, text).or_else(|| (!is_weirs(text)).then(none));
    match trouble {
        Some(what) => Err(FileError::Network { path: path.to_owned(), what }),
        None => Ok(()),
    }
}
