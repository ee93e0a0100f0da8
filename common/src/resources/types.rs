//! The types of fields: what is converted where calicoctl does so, and what
//! Calico could not read again.
//!
//! calicoctl reads every document as YAML for Go's structures: a number or a
//! flag where text belongs becomes its text (`projectcalico/go-yaml-wrapper`),
//! and any other value of a wrong type is refused (`encoding/json`).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde_json::{Map, Value};

use super::as_number;
use super::error::FieldError;
use super::fields::{self, shown, type_name};
use super::kind::Kind;
use super::schema::{self, Field, Shape};

/// The words that YAML 1.1, which calicoctl reads, has for true and false
/// besides these two.
const FLAG_WORDS: [(&str, bool); 6] =
    [("yes", true), ("y", true), ("on", true), ("no", false), ("n", false), ("off", false)];

/// The object with its values converted to the types of their fields, where
/// calicoctl does that.
pub(super) fn converted(mut object: Map<String, Value>, fields: &[Field]) -> Map<String, Value> {
    for field in fields {
        if let Some(value) = object.get_mut(field.name) {
            *value = converted_value(value.take(), &field.shape);
        }
    }
    object
}

fn converted_value(value: Value, shape: &Shape) -> Value {
    match (shape, value) {
        (Shape::Text | Shape::Ipv4Address | Shape::Ipv6Address, value) => to_text(value),
        (Shape::Flag, Value::String(word)) => to_flag(word),
        (Shape::Integer, Value::Number(number)) => to_whole(number),
        // Calico keeps numbers only.
        (Shape::AsNumber, value) => as_number::from_value(&value).map_or(value, Value::from),
        (Shape::AsNumbers, Value::Array(items)) => {
            items.into_iter().map(|item| converted_value(item, &Shape::AsNumber)).collect()
        }
        (Shape::Texts, Value::Array(items)) => items.into_iter().map(to_text).collect(),
        (Shape::TextMap, Value::Object(object)) => {
            let entries = object.into_iter().map(|(key, value)| match value {
                Value::Null => (key, Value::String(String::new())),
                value => (key, to_text(value)),
            });
            Value::Object(entries.collect())
        }
        (Shape::Object(fields), Value::Object(object)) => Value::Object(converted(object, fields)),
        (Shape::List(fields), Value::Array(items)) => {
            items.into_iter().map(|item| converted_value(item, &Shape::Object(fields))).collect()
        }
        (_, value) => value,
    }
}

fn to_text(value: Value) -> Value {
    match value {
        Value::Number(_) | Value::Bool(_) => Value::String(value.to_string()),
        value => value,
    }
}

fn to_flag(word: String) -> Value {
    flag_of(&word).map_or(Value::String(word), Value::Bool)
}

fn flag_of(word: &str) -> Option<bool> {
    let known = FLAG_WORDS.iter().find(|(known, _)| word.eq_ignore_ascii_case(known));
    known.map(|(_, flag)| *flag)
}

/// Whether this is true or false in YAML 1.1, in any case of letters.
pub(super) fn is_flag_word(word: &str) -> bool {
    flag_of(word).is_some()
}

/// `26.0` is a whole number, too. What is none stays as it is.
#[expect(clippy::cast_possible_truncation, reason = "compared afterwards")]
#[expect(clippy::cast_precision_loss, clippy::float_cmp, reason = "compared exactly")]
fn to_whole(number: serde_json::Number) -> Value {
    let float = number.as_f64().filter(|_| number.is_f64());
    match float.map(|float| (float, float as i64)) {
        Some((float, whole)) if whole as f64 == float => whole.into(),
        _ => Value::Number(number),
    }
}

/// Adds the fields whose values Calico could not read, but for those that are
/// among the `problems` already.
pub(super) fn check(object: &Map<String, Value>, kind: Kind, problems: &mut Vec<FieldError>) {
    let mut found = Vec::new();
    for field in schema::fields(kind) {
        let path = match field.name {
            "spec" | "status" => format!("{kind}.{}", display(field.name)),
            name => display(name),
        };
        check_value(object.get(field.name), &field.shape, &path, &mut found);
    }
    let is_known = |new: &FieldError| {
        problems.iter().any(|known| known.field.eq_ignore_ascii_case(&new.field))
    };
    found.retain(|new| !is_known(new));
    problems.extend(found);
}

fn check_object(
    object: &Map<String, Value>,
    fields: &[Field],
    path: &str,
    found: &mut Vec<FieldError>,
) {
    for field in fields {
        let path = format!("{path}.{}", display(field.name));
        check_value(object.get(field.name), &field.shape, &path, found);
    }
}

/// Null counts as absent, as in Go.
fn check_value(value: Option<&Value>, shape: &Shape, path: &str, found: &mut Vec<FieldError>) {
    let Some(value) = value.filter(|value| !value.is_null()) else { return };
    match (shape, value) {
        (Shape::Object(fields), Value::Object(object)) => {
            check_object(object, fields, path, found);
        }
        (Shape::List(fields), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                check_value(Some(item), &Shape::Object(fields), &format!("{path}[{index}]"), found);
            }
        }
        _ if fits(shape, value) => {}
        _ => {
            let is_no_address =
                value.is_string() && matches!(shape, Shape::Ipv4Address | Shape::Ipv6Address);
            let instead = if is_no_address { "other text" } else { found_type(value) };
            let reason = format!("must be {}, not {instead}", wanted(shape));
            found.push(FieldError::new(path, reason).value(shown(value)));
        }
    }
}

fn fits(shape: &Shape, value: &Value) -> bool {
    match shape {
        Shape::Any => true,
        Shape::Text => value.is_string(),
        Shape::Ipv4Address => is_address::<Ipv4Addr>(value),
        Shape::Ipv6Address => is_address::<Ipv6Addr>(value),
        Shape::Flag => value.is_boolean(),
        Shape::Integer => value.is_i64(),
        Shape::AsNumber => value.is_number() || value.is_string(),
        Shape::Texts => value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
        Shape::AsNumbers => value
            .as_array()
            .is_some_and(|items| items.iter().all(|item| fits(&Shape::AsNumber, item))),
        Shape::TextMap => {
            value.as_object().is_some_and(|object| object.values().all(Value::is_string))
        }
        Shape::Object(_) => value.is_object(),
        Shape::List(_) => value.is_array(),
    }
}

fn is_address<T: FromStr>(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.is_empty() || text.parse::<T>().is_ok())
}

fn wanted(shape: &Shape) -> &'static str {
    match shape {
        Shape::Any => "any value",
        Shape::Text => "text",
        Shape::Ipv4Address => "an IPv4 address",
        Shape::Ipv6Address => "an IPv6 address",
        Shape::Flag => "true or false",
        Shape::Integer => "a whole number",
        Shape::AsNumber => "a number",
        Shape::Texts => "a list of texts",
        Shape::AsNumbers => "a list of numbers",
        Shape::TextMap => "an object of texts",
        Shape::Object(_) => "an object",
        Shape::List(_) => "a list of objects",
    }
}

/// What was found, told apart from what was wanted.
fn found_type(value: &Value) -> &'static str {
    match value {
        value if fields::is_out_of_range(value) => fields::OUT_OF_RANGE,
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Array(_) => "such a list",
        Value::Object(_) => "such an object",
        value => type_name(value),
    }
}

/// How Calico's messages call a field: as Go does, its first word in capitals
/// if it is an abbreviation.
pub(super) fn display(name: &str) -> String {
    const ABBREVIATIONS: [(&str, &str); 10] = [
        ("ipv", "IPv"),
        ("vxlan", "VXLAN"),
        ("bgp", "BGP"),
        ("nat", "NAT"),
        ("cidr", "CIDR"),
        ("uid", "UID"),
        ("ipip", "IPIP"),
        ("mtu", "MTU"),
        ("bpf", "BPF"),
        ("xdp", "XDP"),
    ];
    for (small, large) in ABBREVIATIONS {
        if let Some(rest) = name.strip_prefix(small) {
            return format!("{large}{rest}");
        }
    }
    let mut letters = name.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::{Resource, document};

    fn node(value: &Value) -> Vec<String> {
        let object = value.as_object().unwrap();
        let mut problems = Vec::new();
        check(object, Kind::Node, &mut problems);
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_calico_cannot_read_is_named() {
        let cases = [
            (json!({"metadata": {"labels": {"rack": [7]}}}), "Metadata.Labels = '{\"rack\":[7]}'"),
            (json!({"metadata": {"annotations": 5}}), "Metadata.Annotations = '5'"),
            (json!({"metadata": {"finalizers": "x"}}), "Metadata.Finalizers = 'x'"),
            (json!({"metadata": {"ownerReferences": ["x"]}}), "Metadata.OwnerReferences[0] = 'x'"),
            (json!({"metadata": {"generation": 1.5}}), "Metadata.Generation = '1.5'"),
            (json!({"spec": {"orchRefs": 5}}), "Node.Spec.OrchRefs = '5'"),
            (json!({"spec": {"orchRefs": [{"nodeName": {}}]}}), "Node.Spec.OrchRefs[0].NodeName"),
            (json!({"spec": {"addresses": "x"}}), "Node.Spec.Addresses = 'x'"),
            (json!({"spec": {"wireguard": "x"}}), "Node.Spec.Wireguard = 'x'"),
            (json!({"spec": {"ipv4VXLANTunnelAddr": []}}), "Node.Spec.IPv4VXLANTunnelAddr = '[]'"),
            (
                json!({"spec": {"bgp": {"routeReflectorClusterID": "x"}}}),
                "Node.Spec.BGP.RouteReflectorClusterID = 'x' (must be an IPv4 address",
            ),
            (json!({"status": {"podCIDRs": {}}}), "Node.Status.PodCIDRs = '{}'"),
            (json!({"status": 5}), "Node.Status = '5' (must be an object, not a number)"),
        ];
        for (value, problem) in cases {
            let found = node(&value);
            assert!(found.len() == 1 && found[0].starts_with(problem), "{value}: {found:?}");
        }
        let good = json!({"metadata": {"labels": {"a": "b"}, "later": 5}, "spec": {"later": 5},
            "status": null, "later": 5});
        assert_eq!(node(&good), Vec::<String>::new());
    }

    #[test]
    fn as_numbers_become_numbers() {
        let text = "
apiVersion: projectcalico.org/v3
kind: BGPFilter
metadata: {name: f}
spec: {exportV4: [{action: Accept, asPathPrefix: ['1.10', '7', 8, x]}]}
";
        let resource: Resource = document::read(text).unwrap().remove(0);
        let rule = json!({"action": "Accept", "asPathPrefix": [65546, 7, 8, "x"]});
        assert_eq!(resource.spec("exportV4"), Some(&json!([rule])));
    }

    #[test]
    fn numbers_become_text_where_text_belongs() {
        let text = "
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: 123, resourceVersion: 999, labels: {rack: 7, half: 0.5, on: true, none: }}
spec: {cidr: 10.1.0.0/16, natOutgoing: yes, disabled: OFF, blockSize: 26.0}
";
        let resource: Resource = document::read(text).unwrap().remove(0);
        assert_eq!((resource.name(), resource.resource_version()), ("123", Some("999")));
        let labels = json!({"rack": "7", "half": "0.5", "on": "true", "none": ""});
        assert_eq!(Value::Object(resource.labels()), labels);
        resource.check().unwrap();
        let pool = resource.pool().unwrap();
        assert!(pool.nat_outgoing && !pool.disabled);
    }
}
