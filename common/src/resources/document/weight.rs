//! How much a YAML document becomes.
//!
//! An alias repeats what its anchor holds, however large: a few kilobytes can ask
//! for gigabytes. So documents are weighed before they are built.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess};
use serde::de::{VariantAccess, Visitor};

use super::plain_values::visit_plain_values;

/// How many times heavier than its text all documents may be, and how heavy they
/// may be in any case. Without aliases each value and each byte of text comes of a
/// byte or two.
const TIMES_THE_TEXT: usize = 4;
const ANY: usize = 100_000;

/// Reads all documents in a text through.
///
/// # Errors
/// Those of the syntax, and when aliases make them many times larger than the text.
pub(super) fn check(text: &str) -> Result<(), serde_norway::Error> {
    let left = Cell::new(TIMES_THE_TEXT * text.len() + ANY);
    serde_norway::Deserializer::from_str(text)
        .try_for_each(|document| Weigh(&left).deserialize(document))
}

/// Only numbers come as 128 bits that have no room in 64.
fn out_of_range<E: Error>(number: impl fmt::Display) -> E {
    E::custom(format!("the number {number} is out of range; write a smaller one"))
}

/// Takes one from what is left for each value, and for each byte of text.
#[derive(Clone, Copy)]
struct Weigh<'a>(&'a Cell<usize>);

impl Weigh<'_> {
    fn take<E: Error>(self, weight: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(weight).ok_or_else(|| {
            E::custom("its aliases (*name) repeat too much; write the values out, or split it")
        })?;
        self.0.set(left);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Weigh<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Weigh<'_> {
    type Value = ();

    visit_plain_values!(self => self.take(1));

    fn visit_i128<E: Error>(self, number: i128) -> Result<(), E> {
        Err(out_of_range(number))
    }

    fn visit_u128<E: Error>(self, number: u128) -> Result<(), E> {
        Err(out_of_range(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.take(1 + text.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.take(1)?;
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        self.take(1)?;
        while entries.next_entry_seed(self, self)?.is_some() {}
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        let (tag, value) = tagged.variant::<String>()?;
        self.take(1 + tag.len())?;
        value.newtype_variant_seed(self)
    }
}
