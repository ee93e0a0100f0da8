//! Words such as `yes` that are true or false in YAML 1.1, unless they are in quotes: then they
//! are text, which Go's structures refuse where a boolean belongs.

use std::cell::RefCell;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess};
use serde::de::{SeqAccess, VariantAccess, Visitor};

use super::DocumentError;
use super::plain_values::visit_plain_values;
use crate::resources::{schema, types};

/// Refuses the first boolean, if any, that is written in quotes in the documents of a YAML text.
///
/// # Errors
/// [`DocumentError::QuotedFlag`]. Flaws of the syntax are found elsewhere.
pub(super) fn check_yaml(text: &str) -> Result<(), DocumentError> {
    check(text, |search| {
        serde_norway::Deserializer::from_str(text)
            .for_each(|document| drop(search.deserialize(document)));
    })
}

/// The same for JSON, not all of which is YAML.
///
/// # Errors
/// As [`check_yaml`].
pub(super) fn check_json(text: &str) -> Result<(), DocumentError> {
    check(text, |search| drop(search.deserialize(&mut serde_json::Deserializer::from_str(text))))
}

fn check(text: &str, read: impl FnOnce(QuoteSearch<'_>)) -> Result<(), DocumentError> {
    let found = RefCell::default();
    read(QuoteSearch { text, found: &found, field: "" });
    found.into_inner().map_or(Ok(()), Err)
}

/// The search in the value of a field.
#[derive(Clone, Copy)]
struct QuoteSearch<'a> {
    text: &'a str,
    found: &'a RefCell<Option<DocumentError>>,
    field: &'a str,
}

impl QuoteSearch<'_> {
    fn note(self, word: &str) {
        if schema::is_flag(self.field) && types::is_flag_word(word) {
            let (field, word) = (self.field.to_owned(), word.to_owned());
            self.found.borrow_mut().get_or_insert(DocumentError::QuotedFlag { field, word });
        }
    }
}

impl<'de> DeserializeSeed<'de> for QuoteSearch<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for QuoteSearch<'_> {
    type Value = ();

    visit_plain_values!(self => Ok(()));

    /// Text that is not in the document as it is: it has escapes, which only quotes can have.
    fn visit_str<E: Error>(self, word: &str) -> Result<(), E> {
        self.note(word);
        Ok(())
    }

    /// Text as it stands in the document.
    fn visit_borrowed_str<E: Error>(self, word: &'de str) -> Result<(), E> {
        let start = (word.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        let before = start.checked_sub(1).and_then(|at| self.text.as_bytes().get(at));
        if before.is_some_and(|byte| b"'\"".contains(byte)) {
            self.note(word);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(key) = entries.next_key::<serde_norway::Value>()? {
            match key.as_str() {
                // Any text is good there.
                Some("labels" | "annotations") => drop(entries.next_value::<IgnoredAny>()?),
                key => entries
                    .next_value_seed(QuoteSearch { field: key.unwrap_or_default(), ..self })?,
            }
        }
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        tagged.variant::<String>()?.1.newtype_variant_seed(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_make_a_word_text() {
        for text in [
            "spec: {natOutgoing: 'yes'}",
            "spec:\n  natOutgoing: \"y\\x65s\"\n",
            "{\"items\": [{\"spec\": {\"natOutgoing\": \"yes\"}}]}",
            "a: b\n---\nspec: {natOutgoing: !x 'yes'}",
        ] {
            let refused = check_yaml(text).unwrap_err().to_string();
            assert!(refused.contains("natOutgoing must be true or false, not the text 'yes'"));
        }
        for text in [
            "natOutgoing: yes",
            "{natOutgoing: yes, 'disabled': no}",
            "metadata: {labels: {disabled: 'yes'}, name: 'yes'}",
            "natOutgoing: 'perhaps'",
        ] {
            check_yaml(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
        assert!(check_json("{\t\"disabled\": \"No\"}").is_err());
        check_json("{\t\"disabled\": false, \"name\": \"no\"}").unwrap();
    }
}
