//! Reading resources from text: YAML or JSON, one or many, v1 or v3.

mod depth;
mod plain_values;
mod quoted;
mod unique;
mod weight;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::kind::Kind;
use super::resource::{API_VERSION, Resource};
use super::{schema, types, v1};

/// What some editors put in front of a text (RFC 3629, section 6).
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Why a text holds no resources.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The text is neither YAML nor JSON.
    #[error("error parsing document: {0}")]
    Syntax(#[source] serde_norway::Error),
    /// So many lists and objects are in one another that it is not a resource.
    #[error(
        "error parsing document: more than 1000 brackets are open at once; a resource has \
         a few: close those that are open"
    )]
    TooDeep,
    /// Something else stands where a resource should.
    #[error(
        "error parsing document: found {0} where a resource should be; \
         a resource begins with apiVersion, kind and metadata"
    )]
    NotAResource(&'static str),
    /// An object has two fields of one name.
    #[error("error parsing document: {0}; leave one of them out")]
    DuplicateKey(#[source] serde_json::Error),
    /// A mapping has a key that is not a text.
    #[error("error parsing document: the key {0} is not text; put it in quotes")]
    KeyIsNoText(String),
    /// A boolean is written as text.
    #[error(
        "error parsing document: {field} must be true or false, not the text '{word}'; leave out \
         the quotes"
    )]
    QuotedFlag {
        /// Its field.
        field: String,
        /// The text.
        word: String,
    },
    /// A resource has a field that no resource of its kind has.
    #[error(
        "error parsing document: field in document is not recognized or is in the wrong \
         location: {field}{}",
        similar.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
    )]
    UnknownField {
        /// The field's name.
        field: String,
        /// A field of that place with almost the same name.
        similar: Option<&'static str>,
    },
    /// A resource of the v1 form has a field of the v3 form.
    #[error(
        "error parsing document: field in document is not recognized or is in the wrong \
         location: {field}; it belongs to the present form, for which write apiVersion: \
         projectcalico.org/v3 and kind: {kind}"
    )]
    FieldOfThePresentForm {
        /// The field's name.
        field: String,
        /// The kind of the resource.
        kind: Kind,
    },
    /// No such kind, or not in that version.
    #[error(
        "unknown resource type ({kind}) and/or version ({version}); known are: \
         {} of projectcalico.org/v3, ipPool and bgpPeer of v1",
        Kind::ALL.map(Kind::name).join(", ")
    )]
    UnknownKind {
        /// The kind as written.
        kind: String,
        /// The `apiVersion` as written.
        version: String,
    },
}

/// Reads all resources in a text: documents separated by `---`, lists of
/// resources, and `List` kinds, in the order in which they stand. Text without
/// any resource gives an empty list.
///
/// # Errors
/// [`DocumentError`] for the first thing that is wrong with the text. Values
/// are not checked: that is [`Resource::check`].
pub fn read(text: &str) -> Result<Vec<Resource>, DocumentError> {
    let mut resources = Vec::new();
    for document in values(text)? {
        collect(document, &mut resources)?;
    }
    Ok(resources)
}

/// The documents in a text. JSON is read as such first: not all of it is
/// YAML, whose indentation cannot be made of tabs.
pub(super) fn values(text: &str) -> Result<Vec<Value>, DocumentError> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if let Ok(value) = serde_json::from_str(text) {
        unique::check(text).map_err(DocumentError::DuplicateKey)?;
        quoted::check_json(text)?;
        return Ok(vec![value]);
    }
    if depth::is_too_deep(text) {
        return Err(DocumentError::TooDeep);
    }
    weight::check(text).map_err(DocumentError::Syntax)?;
    quoted::check_yaml(text)?;
    serde_norway::Deserializer::from_str(text)
        .map(|document| {
            let mut value =
                serde_norway::Value::deserialize(document).map_err(DocumentError::Syntax)?;
            value.apply_merge().map_err(DocumentError::Syntax)?;
            to_json(value)
        })
        .collect()
}

fn to_json(value: serde_norway::Value) -> Result<Value, DocumentError> {
    use serde_norway::Value as Yaml;
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(flag) => flag.into(),
        Yaml::String(text) => text.into(),
        Yaml::Number(number) => number_to_json(&number),
        Yaml::Sequence(items) => {
            Value::Array(items.into_iter().map(to_json).collect::<Result<_, _>>()?)
        }
        Yaml::Mapping(mapping) => {
            let mut object = Map::new();
            for (key, value) in mapping {
                object.insert(key_to_text(key)?, to_json(value)?);
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) => to_json(tagged.value)?,
    })
}

fn number_to_json(number: &serde_norway::Number) -> Value {
    let whole = number.as_i64().map(Value::from).or_else(|| number.as_u64().map(Value::from));
    // What JSON has no number for (infinity) is left as the text it was.
    whole
        .or_else(|| number.as_f64().and_then(serde_json::Number::from_f64).map(Value::Number))
        .unwrap_or_else(|| Value::String(number.to_string()))
}

fn key_to_text(key: serde_norway::Value) -> Result<String, DocumentError> {
    match key {
        serde_norway::Value::String(text) => Ok(text),
        serde_norway::Value::Number(number) => Ok(number.to_string()),
        serde_norway::Value::Bool(flag) => Ok(flag.to_string()),
        other => {
            let shown = serde_norway::to_string(&other).unwrap_or_default();
            Err(DocumentError::KeyIsNoText(shown.trim().to_owned()))
        }
    }
}

/// Adds the resources in a document, however they are wrapped.
fn collect(document: Value, resources: &mut Vec<Resource>) -> Result<(), DocumentError> {
    match document {
        Value::Null => Ok(()),
        Value::Array(items) => items.into_iter().try_for_each(|item| collect(item, resources)),
        Value::Object(object) => match item_type(&object) {
            Some(defaults) => collect_items(object, &defaults, resources),
            None => {
                resources.push(resource(object)?);
                Ok(())
            }
        },
        other => Err(DocumentError::NotAResource(super::fields::type_name(&other))),
    }
}

/// What the items of a list have when they do not say it themselves.
struct ItemType {
    kind: Option<String>,
    version: String,
}

/// For a `List`, `IPPoolList` and the like: what its items are.
fn item_type(object: &Map<String, Value>) -> Option<ItemType> {
    let kind = text_of(object, "kind").strip_suffix("List")?;
    let kind = (!kind.is_empty()).then(|| kind.to_owned());
    Some(ItemType { kind, version: text_of(object, "apiVersion").to_owned() })
}

fn collect_items(
    mut list: Map<String, Value>,
    defaults: &ItemType,
    resources: &mut Vec<Resource>,
) -> Result<(), DocumentError> {
    let known = ["kind", "apiVersion", "metadata", "items"];
    if let Some(field) = list.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(DocumentError::UnknownField { field: field.clone(), similar: None });
    }
    let items = match list.shift_remove("items") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(DocumentError::NotAResource(super::fields::type_name(&other))),
    };
    for mut item in items {
        if let (Value::Object(object), Some(kind)) = (&mut item, &defaults.kind) {
            object.entry("kind").or_insert_with(|| kind.as_str().into());
            object.entry("apiVersion").or_insert_with(|| defaults.version.as_str().into());
        }
        collect(item, resources)?;
    }
    Ok(())
}

/// The old form of a kind: its fields, and how it becomes the present one.
type V1Form = (Kind, &'static [schema::Field], fn(&Map<String, Value>) -> Resource);

const V1_FORMS: [V1Form; 2] = [
    (Kind::IpPool, schema::V1_IP_POOL, v1::convert_pool),
    (Kind::BgpPeer, schema::V1_BGP_PEER, v1::convert_peer),
];

fn resource(object: Map<String, Value>) -> Result<Resource, DocumentError> {
    let (kind, version) = (text_of(&object, "kind"), text_of(&object, "apiVersion"));
    let old_form = V1_FORMS.iter().find(|form| kind.eq_ignore_ascii_case(form.0.name()));
    if let Some((kind, fields, convert)) = old_form.filter(|_| version == "v1") {
        check_fields(&object, fields).map_err(|error| of_the_present_form(*kind, error))?;
        return Ok(convert(&types::converted(object, fields)));
    }
    match Kind::from_name(kind).filter(|_| version == API_VERSION) {
        Some(kind) => {
            check_fields(&object, schema::fields(kind))?;
            Ok(Resource::new(kind, types::converted(object, schema::fields(kind))))
        }
        None => {
            Err(DocumentError::UnknownKind { kind: kind.to_owned(), version: version.to_owned() })
        }
    }
}

/// Checks that a changed resource has no unknown field that it did not have
/// `before`.
pub(super) fn check_added_fields(
    object: &Map<String, Value>,
    before: &Resource,
) -> Result<(), DocumentError> {
    let fields = schema::fields(before.kind);
    refuse(schema::find_added(object, &before.object, fields))
}

/// Of an unknown field of the v1 form, whether it is one of the v3 form.
fn of_the_present_form(kind: Kind, error: DocumentError) -> DocumentError {
    match error {
        DocumentError::UnknownField { field, .. } if schema::has(kind, &field) => {
            DocumentError::FieldOfThePresentForm { field, kind }
        }
        error => error,
    }
}

fn check_fields(
    object: &Map<String, Value>,
    fields: &[schema::Field],
) -> Result<(), DocumentError> {
    refuse(schema::find_unknown(object, fields))
}

fn refuse(unknown: Option<schema::Unknown>) -> Result<(), DocumentError> {
    unknown.map_or(Ok(()), |unknown| {
        Err(DocumentError::UnknownField { field: unknown.name, similar: unknown.similar })
    })
}

fn text_of<'a>(object: &'a Map<String, Value>, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
