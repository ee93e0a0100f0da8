//! Reading the fields of a JSON object, gathering all that is wrong with them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::error::{Error, FieldError};
use super::selector::Selector;

/// The longest selector (Calico's `api/pkg/apis/projectcalico/v3/ippool.go`), in characters.
const LONGEST_SELECTOR: usize = 1024;

/// What was found wrong so far.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<FieldError>);

impl Problems {
    /// Notes a problem, once: several kinds of tunnels may read the same field.
    pub(super) fn add(&mut self, problem: FieldError) {
        if !self.0.contains(&problem) {
            self.0.push(problem);
        }
    }

    pub(super) fn into_vec(self) -> Vec<FieldError> {
        self.0
    }

    /// Refuses what is wrong with one of these fields, or with what they are in.
    pub(super) fn refuse(&self, needed: &[&str]) -> Result<(), Error> {
        let concerns = |problem: &&FieldError| {
            needed.iter().any(|needed| {
                let rest = needed.strip_prefix(problem.field.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        let refused: Vec<FieldError> = self.0.iter().filter(concerns).cloned().collect();
        if refused.is_empty() { Ok(()) } else { Err(Error::Invalid(refused)) }
    }

    /// All that is wrong, if anything is.
    pub(super) fn into_error(self) -> Option<Error> {
        (!self.0.is_empty()).then_some(Error::Invalid(self.0))
    }

    /// `value` if nothing is wrong.
    pub(super) fn into_result<T>(self, value: Option<T>) -> Result<T, Error> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(Error::Invalid(self.0)),
        }
    }
}

/// Parses a stored value of `kind` as a JSON object.
pub(super) fn object(kind: &'static str, value: &[u8]) -> Result<Map<String, Value>, Error> {
    match serde_json::from_slice(value) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(Error::NotAnObject { kind, found: type_name(&other) }),
        Err(cause) => Err(Error::NotJson { kind, cause }),
    }
}

/// The name of a JSON value's type, for messages.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// What a field with a number in it must be.
const WHOLE_NUMBER: &str = "a whole number";

/// What a number is that [`is_out_of_range`].
pub(super) const OUT_OF_RANGE: &str = "one that is out of range";

/// Whether it is a whole number that has no room in the 64 bits of a field.
pub(super) fn is_out_of_range(value: &Value) -> bool {
    let is_whole = |number: f64| number.fract() == 0.0 && number.abs() >= 2f64.powi(63);
    value.is_u64() && !value.is_i64() || (value.is_f64() && value.as_f64().is_some_and(is_whole))
}

/// A value for a message: text as it is, anything else as JSON.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The fields of one object, with the name under which messages speak of it.
///
/// A field that is null counts as absent, as in Calico. A field of the wrong
/// type is reported and counts as absent.
pub(super) struct Fields<'a> {
    object: Option<&'a Map<String, Value>>,
    path: String,
}

impl<'a> Fields<'a> {
    /// The fields of `object`, spoken of as `path` (`IPPool.Spec`).
    pub(super) fn new(object: &'a Map<String, Value>, path: &str) -> Self {
        Self { object: Some(object), path: path.to_owned() }
    }

    /// How messages call the field `display` of this object.
    pub(super) fn path(&self, display: &str) -> String {
        if self.path.is_empty() { display.to_owned() } else { format!("{}.{display}", self.path) }
    }

    /// How messages call this object.
    pub(super) fn own_path(&self) -> &str {
        &self.path
    }

    /// The object in field `key`; one without fields when it is absent.
    pub(super) fn object(&self, key: &str, display: &str, problems: &mut Problems) -> Self {
        let object = self.typed(key, display, problems, "an object", Value::as_object);
        Self { object, path: self.path(display) }
    }

    /// The objects in the list in field `key`; none when it is absent.
    pub(super) fn objects(&self, key: &str, display: &str, problems: &mut Problems) -> Vec<Self> {
        let all_objects = |value: &'a Value| -> Option<Vec<&'a Map<String, Value>>> {
            value.as_array()?.iter().map(Value::as_object).collect()
        };
        let objects = self.typed(key, display, problems, "a list of objects", all_objects);
        let path = |index: usize| format!("{}[{index}]", self.path(display));
        let objects = objects.unwrap_or_default().into_iter().enumerate();
        objects.map(|(index, object)| Self { object: Some(object), path: path(index) }).collect()
    }

    /// Whether there is something in field `key`: empty text and an empty list are nothing.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.any(key).is_some_and(|value| match value {
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            _ => true,
        })
    }

    /// The text in field `key`, which has to be one of these words.
    pub(super) fn word<T: Copy>(
        &self,
        key: &str,
        display: &str,
        words: &[(&str, T)],
        problems: &mut Problems,
    ) -> Option<T> {
        let text = self.text(key, display, problems)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let reason = format!("must be one of {}", known.join(", "));
            problems.add(FieldError::new(self.path(display), reason).value(text));
        }
        found.map(|(_, value)| *value)
    }

    /// The whole number in field `key`, which has to lie in this range.
    pub(super) fn ranged<T: TryFrom<i64>>(
        &self,
        key: &str,
        display: &str,
        range: RangeInclusive<i64>,
        problems: &mut Problems,
    ) -> Option<T> {
        let number = self.integer(key, display, problems)?;
        let fitting = T::try_from(number).ok().filter(|_| range.contains(&number));
        if fitting.is_none() {
            let reason = format!("must be a number from {} to {}", range.start(), range.end());
            problems.add(FieldError::new(self.path(display), reason).value(number));
        }
        fitting
    }

    /// The selector in field `key`. Empty text counts as absent, as in Calico.
    pub(super) fn selector(
        &self,
        key: &str,
        display: &str,
        problems: &mut Problems,
    ) -> Option<Selector> {
        let text = self.text(key, display, problems)?;
        let problem = if text.chars().count() > LONGEST_SELECTOR {
            "a selector has at most 1024 characters".to_owned()
        } else {
            match Selector::parse(text) {
                Ok(selector) => return Some(selector),
                Err(error) => format!("not a selector: {error}"),
            }
        };
        problems.add(
            FieldError::new(self.path(display), problem)
                .value(text)
                .advice("a selector looks like zone == 'a' && !has(retired)"),
        );
        None
    }

    /// The text in field `key`. Empty text counts as absent, as in Calico.
    pub(super) fn text(
        &self,
        key: &str,
        display: &str,
        problems: &mut Problems,
    ) -> Option<&'a str> {
        self.typed(key, display, problems, "text", Value::as_str).filter(|text| !text.is_empty())
    }

    pub(super) fn boolean(
        &self,
        key: &str,
        display: &str,
        problems: &mut Problems,
    ) -> Option<bool> {
        self.typed(key, display, problems, "true or false", Value::as_bool)
    }

    pub(super) fn integer(&self, key: &str, display: &str, problems: &mut Problems) -> Option<i64> {
        self.typed(key, display, problems, WHOLE_NUMBER, Value::as_i64)
    }

    /// The text in field `key`, parsed; text that does not parse is reported
    /// with `reason`.
    pub(super) fn parsed<T: FromStr>(
        &self,
        key: &str,
        display: &str,
        reason: &str,
        problems: &mut Problems,
    ) -> Option<T> {
        let text = self.text(key, display, problems)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            problems.add(FieldError::new(self.path(display), reason).value(text));
        }
        parsed
    }

    /// The list of texts in field `key`, empty when it is absent.
    pub(super) fn texts(&self, key: &str, display: &str, problems: &mut Problems) -> Vec<&'a str> {
        let all_texts = |value: &'a Value| -> Option<Vec<&'a str>> {
            value.as_array()?.iter().map(Value::as_str).collect()
        };
        self.typed(key, display, problems, "a list of texts", all_texts).unwrap_or_default()
    }

    /// The map from texts to texts in field `key`, empty when it is absent.
    pub(super) fn text_map(
        &self,
        key: &str,
        display: &str,
        problems: &mut Problems,
    ) -> BTreeMap<String, String> {
        let all_texts = |value: &'a Value| -> Option<BTreeMap<String, String>> {
            let entries = value.as_object()?.iter();
            entries.map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
        };
        self.typed(key, display, problems, "an object of texts", all_texts).unwrap_or_default()
    }

    /// The value in field `key`, whatever its type.
    pub(super) fn any(&self, key: &str) -> Option<&'a Value> {
        self.object?.get(key).filter(|value| !value.is_null())
    }

    fn typed<T>(
        &self,
        key: &str,
        display: &str,
        problems: &mut Problems,
        wanted: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.any(key)?;
        let converted = convert(value);
        if converted.is_none() {
            let found = if is_out_of_range(value) { OUT_OF_RANGE } else { type_name(value) };
            let reason = format!("must be {wanted}, not {found}");
            problems.add(FieldError::new(self.path(display), reason).value(shown(value)));
        }
        converted
    }
}

/// Reads and checks `metadata.name` of a stored or written resource.
///
/// The rule is Calico's (`libcalico-go/lib/validator/v3`, Kubernetes' DNS-1123
/// subdomain).
pub(super) fn name(resource: &Fields<'_>, problems: &mut Problems) -> Option<String> {
    let metadata = resource.object("metadata", "Metadata", problems);
    let field = "Metadata.Name";
    let Some(name) = metadata.text("name", "Name", problems) else {
        problems.add(FieldError::new(field, "name must be specified"));
        return None;
    };
    if is_subdomain(name) {
        return Some(name.to_owned());
    }
    let reason = if name.len() > LONGEST_NAME {
        "name must be no more than 253 characters"
    } else {
        "name must consist of lower case alphanumeric characters, '-' or '.' \
         (regex: [a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)"
    };
    problems.add(FieldError::new(field, reason).value(name).advice("choose another name"));
    None
}

/// What the name of a node's configuration begins with.
const NODE_PREFIX: &str = "node.";

/// As [`name`], of a configuration of `kind`: `default` is the cluster's, `node.NAME` a node's.
/// Calico takes other names and reads none of them.
pub(super) fn configuration_name(
    resource: &Fields<'_>,
    kind: &str,
    problems: &mut Problems,
) -> Option<String> {
    let name = name(resource, problems)?;
    let of_a_node = name.strip_prefix(NODE_PREFIX).is_some_and(is_subdomain);
    if name != "default" && !of_a_node {
        let reason = format!("a {kind} is called default, or node. and the name of a node");
        problems.add(
            FieldError::new("Metadata.Name", reason)
                .value(&name)
                .advice("write default or node.n1"),
        );
    }
    Some(name)
}

const LONGEST_NAME: usize = 253;

/// Whether this is a name as of RFC 1123: labels in lower case, between dots.
pub(super) fn is_subdomain(name: &str) -> bool {
    name.len() <= LONGEST_NAME && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !label.is_empty()
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_subdomains() {
        for name in ["a", "10-254-0-0-24", "a.b-c.1", &"a".repeat(253)] {
            assert!(is_subdomain(name), "{name}");
        }
        for name in ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a/b", &"a".repeat(254)] {
            assert!(!is_subdomain(name), "{name}");
        }
    }
}
