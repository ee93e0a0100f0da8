//! Whether the fields of JSON objects have names of their own. Most readers of
//! JSON take the last of two, and calicoctl refuses them.

use std::collections::HashSet;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::plain_values::visit_plain_values;

/// Reads a JSON document through.
///
/// # Errors
/// The first field that is there twice in its object.
pub(super) fn check(text: &str) -> Result<(), serde_json::Error> {
    Unique.deserialize(&mut serde_json::Deserializer::from_str(text))
}

#[derive(Clone, Copy)]
struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = ();

    visit_plain_values!(self => Ok(()));

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut known = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if known.contains(&key) {
                entries.next_value::<IgnoredAny>()?;
                return Err(A::Error::custom(format_args!("the field {key} is there twice")));
            }
            known.insert(key);
            entries.next_value_seed(self)?;
        }
        Ok(())
    }
}
