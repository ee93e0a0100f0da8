//! YAML as calicoctl prints it: keys in order of the alphabet, lists not
//! indented, text in quotes only where it would be read as something else.

use serde_json::{Map, Value};
use weir_common::is_unprintable;

/// The value as one document.
pub fn document(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(object) if !object.is_empty() => mapping(object, 0, &mut text),
        Value::Array(items) if !items.is_empty() => sequence(items, 0, &mut text),
        other => text = format!("{}\n", inline(other)),
    }
    text
}

fn mapping(object: &Map<String, Value>, indent: usize, text: &mut String) {
    let mut entries: Vec<_> = object.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    for (position, (key, value)) in entries.into_iter().enumerate() {
        // The first key of a mapping in a list stands behind the dash.
        if position > 0 || !text.ends_with("- ") {
            text.push_str(&" ".repeat(indent));
        }
        text.push_str(&scalar(key));
        text.push(':');
        match value {
            Value::Object(object) if !object.is_empty() => {
                text.push('\n');
                mapping(object, indent + 2, text);
            }
            Value::Array(items) if !items.is_empty() => {
                text.push('\n');
                sequence(items, indent, text);
            }
            other => text.push_str(&format!(" {}\n", inline(other))),
        }
    }
}

fn sequence(items: &[Value], indent: usize, text: &mut String) {
    for item in items {
        text.push_str(&" ".repeat(indent));
        text.push_str("- ");
        match item {
            Value::Object(object) if !object.is_empty() => mapping(object, indent + 2, text),
            // A list in a list in the notation of JSON, which is YAML too.
            other => text.push_str(&format!("{}\n", inline(other))),
        }
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// Text as it is where that reads back as the same text, else in quotes.
fn scalar(text: &str) -> String {
    if is_read_as_something_else(text) || text.chars().any(is_unprintable) {
        escaped(&Value::from(text).to_string())
    } else if needs_quotes(text) {
        format!("'{}'", text.replace('\'', "''"))
    } else {
        text.to_owned()
    }
}

/// JSON, in which those that it leaves as they are have the escape that YAML
/// shares.
fn escaped(json: &str) -> String {
    let escape = |character: char| match character {
        other if is_unprintable(other) && other > '\u{ffff}' => {
            format!("\\U{:08x}", u32::from(other))
        }
        other if is_unprintable(other) => format!("\\u{:04x}", u32::from(other)),
        other => other.to_string(),
    };
    json.chars().map(escape).collect()
}

/// Whether plain text would be a number, a truth value, a date or nothing
/// (YAML 1.1, which readers of such files may use).
fn is_read_as_something_else(text: &str) -> bool {
    const WORDS: [&str; 13] =
        ["", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", "<<", "="];
    let begins_like_a_number =
        text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
    let of_number_letters = text
        .chars()
        .all(|letter| letter.is_ascii_hexdigit() || "+-._:xoTZtzinfINF ".contains(letter));
    WORDS.contains(&text.to_ascii_lowercase().as_str())
        || begins_like_a_number && of_number_letters && !is_address(text) && is_scalar_1_1(text)
}

/// The forms of numbers and dates that occur: integers in all notations with
/// underscores, decimals, sexagesimals, special floats, timestamps.
fn is_scalar_1_1(text: &str) -> bool {
    let unsigned = text.trim_start_matches(['+', '-']).replace('_', "");
    let special = [".inf", ".nan"].contains(&unsigned.to_ascii_lowercase().as_str());
    let radix = [("0x", 16), ("0o", 8), ("0b", 2)].iter().any(|(prefix, radix)| {
        unsigned.strip_prefix(prefix).is_some_and(|digits| {
            !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(*radix))
        })
    });
    let sexagesimal = unsigned.contains(':')
        && unsigned.chars().all(|letter| letter.is_ascii_digit() || ":.".contains(letter));
    special || radix || sexagesimal || unsigned.parse::<f64>().is_ok() || is_date(text)
}

/// `2026-01-02`, perhaps with a time behind it.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let digits = |part: Option<&str>, lengths: std::ops::RangeInclusive<usize>| {
        part.is_some_and(|part| {
            lengths.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    digits(parts.next(), 4..=4)
        && digits(parts.next(), 1..=2)
        && parts.next().is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

fn is_address(text: &str) -> bool {
    text.parse::<std::net::Ipv4Addr>().is_ok() || text.contains("::")
}

/// Whether plain text would be cut or taken for structure.
fn needs_quotes(text: &str) -> bool {
    let indicator = text.starts_with([
        '[', ']', '{', '}', ',', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`',
    ]);
    let dash =
        ["-", "?", ":"].iter().any(|sign| text == *sign || text.starts_with(&format!("{sign} ")));
    let document = text.starts_with("---") || text.starts_with("...");
    indicator
        || dash
        || document
        || text.starts_with(' ')
        || text.ends_with([' ', ':'])
        || text.contains(": ")
        || text.contains(" #")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[test]
    fn keys_are_sorted_and_lists_not_indented() {
        let value = json!({"b": [{"d": 1, "c": {"x": []}}, "s"], "a": {}});
        assert_eq!(document(&value), "a: {}\nb:\n- c:\n    x: []\n  d: 1\n- s\n");
        assert_eq!(document(&json!([{"a": null}])), "- a: null\n");
    }

    #[test]
    fn only_text_that_needs_quotes_gets_them() {
        let plain = [
            "all()",
            "zone == 'edge'",
            "10.1.0.0/16",
            "zone in {'a', 'b'}",
            "fd00::/8",
            "10.1.1.7",
            "a: b".trim_end_matches(": b"),
        ];
        for text in plain {
            assert_eq!(scalar(text), text);
        }
        assert_eq!(scalar("2026-11-23T03:40:19Z"), "\"2026-11-23T03:40:19Z\"");
        assert_eq!(scalar("218"), "\"218\"");
        assert_eq!(scalar("!has(x)"), "'!has(x)'");
        assert_eq!(scalar("'a' # b"), "'''a'' # b'");
        assert_eq!(scalar("no"), "\"no\"");
    }

    #[test]
    fn all_text_reads_back() {
        let texts = [
            "",
            "a",
            "1",
            "1.5",
            "0x1f",
            "x\u{2028}y\u{85}z\u{feff}\u{7f}\u{202e}\u{e0041}",
            "1e3",
            ".inf",
            "true",
            "No",
            "null",
            "~",
            "- a",
            "-",
            "a:",
            "a: b",
            "a #b",
            "#a",
            "[a]",
            "{a}",
            "'",
            "\"",
            "a'b",
            "!a",
            "&a",
            "*a",
            "%a",
            "@a",
            "|",
            ">",
            " a",
            "a ",
            "a\nb",
            "a\tb",
            "12:30:45",
            "2026-01-02",
            "---",
            "...",
            "<<",
            "=",
            "1_000",
            "+1",
            "-1",
            "0o17",
            "ä",
            "x: 'y' #z",
        ];
        for text in texts {
            let written = document(&json!({"key": text, text: "value", "list": [text]}));
            let read =
                serde_norway::Value::deserialize(serde_norway::Deserializer::from_str(&written));
            let read = read.unwrap_or_else(|error| panic!("{text:?}: {error}\n{written}"));
            assert_eq!(read["key"].as_str(), Some(text), "{written}");
            assert_eq!(read["list"][0].as_str(), Some(text), "{written}");
            assert_eq!(read[text].as_str(), Some("value"), "{written}");
        }
    }
}
