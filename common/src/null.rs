//! JSON's `null` as Go reads it.

use serde::{Deserialize, Deserializer};

/// Takes `null` for the default: Go leaves a value that it reads `null` into as it is,
/// and writes an empty list that was never made as `null` (`encoding/json`).
///
/// # Errors
/// As the value's own.
pub fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
