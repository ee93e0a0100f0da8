//! What all kinds have in common: labels, annotations and no namespace
//! (`libcalico-go/lib/validator/v3`, validateObjectMeta).

use serde_json::{Map, Value};

use super::error::FieldError;
use super::fields::is_subdomain;
use super::kind::Kind;

/// The longest label value, and the longest name in a key without its prefix
/// (Kubernetes' `apimachinery/pkg/util/validation`), in bytes.
const LONGEST_LABEL: usize = 63;

/// How much all annotations of a resource may hold, in bytes.
const LARGEST_ANNOTATIONS: usize = 256 * 1024;

/// Adds what is wrong with the metadata of a resource of this kind. Values of
/// a wrong type are passed over.
pub(super) fn check(object: &Map<String, Value>, kind: Kind, problems: &mut Vec<FieldError>) {
    let Some(Value::Object(metadata)) = object.get("metadata") else { return };
    if let Some(namespace) = metadata.get("namespace").and_then(Value::as_str)
        && !namespace.is_empty()
    {
        let reason = format!(
            "namespace should not be specified for a non-namespaced resource. \
             {kind} is not a namespaced resource"
        );
        problems.push(
            FieldError::new("Metadata.Namespace", reason).value(namespace).advice("leave it out"),
        );
    }
    if kind == Kind::IpamConfig {
        let stored_without = ["labels", "annotations"].into_iter();
        problems.extend(stored_without.filter(|key| texts(metadata, key).next().is_some()).map(
            |key| {
                let reason = format!("{kind} is stored without {key}");
                FieldError::new(format!("metadata.{key}"), reason).advice("leave them out")
            },
        ));
    }
    for (key, value) in texts(metadata, "labels") {
        problems.extend(problem_of_label(key, value));
    }
    let mut size = 0;
    for (key, value) in texts(metadata, "annotations") {
        size += key.len() + value.len();
        if let Err(reason) = check_key(&key.to_lowercase()) {
            problems.push(FieldError::new("Metadata.Annotations (key)", reason).value(key));
        }
    }
    if size > LARGEST_ANNOTATIONS {
        let reason = format!(
            "total size of annotations is too large by {} bytes",
            size - LARGEST_ANNOTATIONS
        );
        problems.push(FieldError::new("Metadata.Annotations (key)", reason));
    }
}

/// What is wrong with a label.
pub(super) fn problem_of_label(key: &str, value: &str) -> Option<FieldError> {
    let of_key = check_key(key).err().map(|reason| ("Metadata.Labels (label)", key, reason));
    let of_value =
        || check_value(value).err().map(|reason| ("Metadata.Labels (value)", value, reason));
    let (field, shown, reason) = of_key.or_else(of_value)?;
    Some(FieldError::new(field, reason).value(shown))
}

/// Checks the key of a label or annotation: Kubernetes' qualified name.
fn check_key(key: &str) -> Result<(), &'static str> {
    let name = match key.split_once('/') {
        Some((prefix, _)) if !is_subdomain(prefix) => {
            return Err("the part before '/' must be a DNS name in lower case, as example.com");
        }
        Some((_, name)) => name,
        None => key,
    };
    if name.is_empty() || !is_word(name) {
        return Err("the name must consist of alphanumeric characters, '-', '_' or '.', and must \
                    start and end with an alphanumeric character");
    }
    if name.len() > LONGEST_LABEL {
        return Err("the name must be no more than 63 characters");
    }
    Ok(())
}

fn check_value(value: &str) -> Result<(), &'static str> {
    if value.len() > LONGEST_LABEL {
        return Err("must be no more than 63 characters");
    }
    if !is_word(value) {
        return Err(
            "a label's value must be empty or consist of alphanumeric characters, '-', '_' \
                    or '.', and must start and end with an alphanumeric character",
        );
    }
    Ok(())
}

/// Empty, or letters and digits with '-', '_' and '.' between them.
fn is_word(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let outer = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.iter().all(|byte| inner(*byte)) && outer(bytes.first()) && outer(bytes.last())
}

/// The texts in the object in field `key`.
fn texts<'a>(
    metadata: &'a Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = (&'a String, &'a str)> {
    let entries = metadata.get(key).and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key, value.as_str()?)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(metadata: &Value) -> Vec<String> {
        let object = json!({ "metadata": metadata });
        let mut problems = Vec::new();
        check(object.as_object().unwrap(), Kind::IpPool, &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn labels_follow_kubernetes() {
        let long = "a".repeat(63);
        for (key, value) in [
            ("a", ""),
            ("a", long.as_str()),
            (long.as_str(), "A.b_c-9"),
            ("example.com/zone", "a"),
            ("X_y.z", "1"),
        ] {
            assert_eq!(problem_of_label(key, value), None, "{key}={value}");
        }
        let longer = "a".repeat(64);
        for (key, value) in [
            ("", "a"),
            ("a/", "a"),
            ("/a", "a"),
            ("a/b/c", "a"),
            ("Example.com/a", "a"),
            ("-a", "a"),
            ("a b", "a"),
            (longer.as_str(), "a"),
            ("a", longer.as_str()),
            ("a", "b c"),
            ("a", "b."),
            ("a", "ä"),
        ] {
            assert!(problem_of_label(key, value).is_some(), "{key}={value}");
        }
    }

    #[test]
    fn annotations_and_namespace_are_checked() {
        let huge = "x".repeat(LARGEST_ANNOTATIONS);
        let cases = [
            (json!({"annotations": {"a": huge}}), "too large by 1 bytes"),
            (json!({"annotations": {"a b": "c"}}), "Metadata.Annotations (key) = 'a b'"),
            (
                json!({"namespace": "x"}),
                "namespace should not be specified for a non-namespaced resource. IPPool is not \
                 a namespaced resource",
            ),
        ];
        for (metadata, problem) in cases {
            let found = problems(&metadata);
            assert!(found.len() == 1 && found[0].contains(problem), "{found:?}");
        }
        let good = json!({"annotations": {"Example.com/A": "any text"}, "namespace": ""});
        assert_eq!(problems(&good), Vec::<String>::new());
    }
}
