//! AS numbers, as Calico writes them (`api/pkg/lib/numorstring/asnumber.go`).

use serde_json::Value;

use super::error::FieldError;
use super::fields::{Fields, Problems, shown};

/// The AS number of a cluster that does not say its own.
pub const DEFAULT_AS_NUMBER: u32 = 64512;

/// Reads an AS number from text: digits, or the two halves of the number (`1.10`).
pub fn parse_as_number(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    match text.split_once('.') {
        None => text.parse().ok(),
        Some((high, low)) => {
            let (high, low): (u16, u16) = (high.parse().ok()?, low.parse().ok()?);
            Some(u32::from(high) << 16 | u32::from(low))
        }
    }
}

/// An AS number in JSON: a number, or text.
pub(super) fn from_value(value: &Value) -> Option<u32> {
    match value {
        Value::Number(number) => number.as_u64().and_then(|number| u32::try_from(number).ok()),
        Value::String(text) => parse_as_number(text),
        _ => None,
    }
}

/// Reads the AS number in field `key`.
pub(super) fn read(
    fields: &Fields<'_>,
    key: &str,
    display: &str,
    problems: &mut Problems,
) -> Option<u32> {
    let value = fields.any(key)?;
    let number = from_value(value);
    if number.is_none() {
        problems.add(
            FieldError::new(fields.path(display), "must be an AS number, 0 to 4294967295")
                .value(shown(value)),
        );
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_read_in_each_form() {
        for (value, number) in [
            (json!(64512), 64512),
            (json!("64512"), 64512),
            (json!("1.10"), 65546),
            (json!("65535.65535"), u32::MAX),
            (json!(0), 0),
        ] {
            assert_eq!(from_value(&value), Some(number), "{value}");
        }
        let wrong = [
            json!(-1),
            json!(1.5),
            json!(4_294_967_296_u64),
            json!(""),
            json!("+1"),
            json!("1."),
            json!("65536.0"),
            json!("1.2.3"),
            json!(true),
            json!([1]),
        ];
        for value in wrong {
            assert_eq!(from_value(&value), None, "{value}");
        }
    }
}
