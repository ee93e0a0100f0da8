//! Taking secrets out of what is read.
//!
//! In documents, every value under a key that names a secret. In all texts, besides: values behind
//! such a word and `:` or `=`, private keys, the user part of URLs, and every secret that this node
//! is known to have, wherever it stands.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::{Deserializer, Value};

/// What stands in the place of a secret.
pub const REMOVED: &str = "[removed]";

/// A key with one of these in it names a secret. Written without what separates words.
const WORDS: [&str; 13] = [
    "apikey",
    "authorization",
    "clientkeydata",
    "credential",
    "etcdkey",
    "kubeconfiginline",
    "passphrase",
    "passwd",
    "password",
    "presharedkey",
    "privatekey",
    "secret",
    "token",
];

/// A key that ends with one of these names where a secret is.
const REFERENCES: [&str; 4] = ["file", "name", "path", "ref"];

/// The shortest secret that is looked for without its key, in bytes: shorter ones are parts of
/// other words.
const SHORTEST: usize = 4;

/// What a section consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Lines.
    Text,
    /// Values of JSON, one after the other.
    Json,
    /// One document.
    Yaml,
}

/// The secrets that this node is known to have.
#[derive(Debug, Default)]
pub struct Secrets(BTreeSet<String>);

impl Secrets {
    /// Takes in a secret.
    pub fn add(&mut self, secret: &str) {
        let secret = secret.trim().trim_matches(['"', '\'', ',']);
        if secret.len() >= SHORTEST && !["true", "false", "null"].contains(&secret) {
            self.0.insert(secret.to_owned());
        }
    }

    /// Takes in the secrets of a document, or of lines.
    pub fn add_those_of(&mut self, text: &str, form: Form) {
        for value in values(text, form).unwrap_or_default() {
            self.add_those_in(&value, false);
        }
        for line in text.lines() {
            scan_line(line, |secret| self.add(secret));
        }
    }

    fn add_those_in(&mut self, value: &Value, is_secret: bool) {
        match value {
            Value::Object(object) => object
                .iter()
                .for_each(|(key, value)| self.add_those_in(value, is_inside(is_secret, key))),
            Value::Array(list) => list.iter().for_each(|it| self.add_those_in(it, is_secret)),
            Value::String(text) if is_secret => self.add(text),
            _ => {}
        }
    }

    /// A document without secrets.
    ///
    /// # Errors
    /// Why its secrets cannot be found, without any of its values.
    pub fn out_of_document(&self, text: &str, form: Form) -> Result<String, String> {
        let mut clean = String::new();
        for mut value in values(text, form)? {
            remove(&mut value, false);
            let printed = match form {
                Form::Yaml => serde_norway::to_string(&value).unwrap_or_default(),
                _ => serde_json::to_string_pretty(&value).unwrap_or_default() + "\n",
            };
            clean.push_str(&printed);
        }
        Ok(self.out_of(&clean))
    }

    /// A text without secrets.
    pub fn out_of(&self, text: &str) -> String {
        let text = without_private_keys(text);
        let mut clean = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            clean.push_str(&without_users(&scan_line(line, |_| ())));
        }
        // Longer ones first: another one may be a part of it.
        let mut secrets: Vec<_> = self.0.iter().filter(|it| clean.contains(it.as_str())).collect();
        secrets.sort_by_key(|it| std::cmp::Reverse(it.len()));
        for secret in secrets {
            clean = clean.replace(secret.as_str(), REMOVED);
        }
        clean
    }
}

fn values(text: &str, form: Form) -> Result<Vec<Value>, String> {
    let not_read = |what: &str, at: Option<usize>| {
        let at = at.map(|line| format!(" (line {line})")).unwrap_or_default();
        format!("left out: it is not {what}{at}, so its secrets cannot be found")
    };
    match form {
        Form::Text => Ok(Vec::new()),
        Form::Json => Deserializer::from_str(text)
            .into_iter()
            .collect::<Result<_, _>>()
            .map_err(|error| not_read("JSON", Some(error.line()))),
        Form::Yaml => serde_norway::from_str(text)
            .map(|value| vec![value])
            .map_err(|error| not_read("YAML", error.location().map(|it| it.line()))),
    }
}

fn is_secret(key: &str) -> bool {
    let plain: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
    let plain = plain.to_ascii_lowercase();
    WORDS.iter().any(|word| plain.contains(word))
        && !REFERENCES.iter().any(|end| plain.ends_with(end))
}

/// Whether a value is secret by its key, or by that of what it stands in: a reference is not.
fn is_inside(is_secret_around: bool, key: &str) -> bool {
    let key = if key == "secretKeyRef" { return false } else { key };
    is_secret_around || is_secret(key)
}

fn remove(value: &mut Value, is_secret: bool) {
    match value {
        Value::Object(object) => {
            for (key, value) in object.iter_mut() {
                remove(value, is_inside(is_secret, key));
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|it| remove(it, is_secret)),
        Value::Null => {}
        value if is_secret => *value = Value::from(REMOVED),
        _ => {}
    }
}

/// The line without the values behind words that name secrets, each of which is shown to `found`.
fn scan_line(line: &str, mut found: impl FnMut(&str)) -> Cow<'_, str> {
    // Most lines have no such word.
    if !is_secret_somewhere(line) {
        return Cow::Borrowed(line);
    }
    let is_of_word = |it: char| it.is_ascii_alphanumeric() || ['_', '-', '.'].contains(&it);
    let (mut clean, mut rest) = (String::new(), line);
    while let Some(begin) = rest.find(is_of_word) {
        let end = rest[begin..].find(|it| !is_of_word(it)).map_or(rest.len(), |it| begin + it);
        let word = &rest[begin..end];
        clean.push_str(&rest[..end]);
        rest = &rest[end..];
        if is_secret(word)
            && let Some((before, value)) = value_behind(rest)
        {
            found(value);
            clean.push_str(before);
            clean.push_str(REMOVED);
            rest = &rest[before.len() + value.len()..];
        }
    }
    clean.push_str(rest);
    Cow::Owned(clean)
}

fn is_secret_somewhere(line: &str) -> bool {
    let plain = line.bytes().filter(u8::is_ascii_alphanumeric).map(|it| it.to_ascii_lowercase());
    let plain = String::from_utf8(plain.collect()).unwrap_or_default();
    WORDS.iter().any(|word| plain.contains(word))
}

/// What separates a word from its value, and the value: a text in quotation marks, or the rest of
/// the line. BIRD writes `password "…"`.
fn value_behind(text: &str) -> Option<(&str, &str)> {
    let trimmed = |text: &str| text.len() - text.trim_start_matches([' ', '\t']).len();
    let mut at =
        ["\\\"", "\"", "'"].iter().find(|it| text.starts_with(**it)).map_or(0, |it| it.len());
    at += trimmed(&text[at..]);
    let separated = text[at..].starts_with([':', '=']);
    at += usize::from(separated);
    at += trimmed(&text[at..]);
    let (before, value) = text.split_at(at);
    let value = value.trim_end_matches(['\n', '\r']);
    let quote = value.chars().next().filter(|it| ['"', '\''].contains(it));
    match quote {
        Some(quote) => {
            let mut is_escaped = false;
            let is_end = |it: char| {
                let is_end = it == quote && !is_escaped;
                is_escaped = it == '\\' && !is_escaped;
                is_end
            };
            let end = value[1..].find(is_end).map_or(value.len(), |it| it + 2);
            (separated || at > 0).then_some((before, &value[..end]))
        }
        // What stands in an object has keys of its own.
        None => {
            (separated && !value.is_empty() && !value.starts_with('{')).then_some((before, value))
        }
    }
}

/// A text without private keys in PEM. One without its end reaches to the end of the text, and
/// one without its beginning, as in the rest of a log, from the beginning of the text.
fn without_private_keys(text: &str) -> String {
    const KEY: &str = "PRIVATE KEY-----";
    let (mut clean, mut from, mut is_inside) = (String::new(), 0, false);
    for (at, _) in text.match_indices(KEY) {
        let (begin, end) = (text[..at].rfind("-----BEGIN "), text[..at].rfind("-----END "));
        match begin.filter(|begin| end.is_none_or(|end| end < *begin)) {
            Some(begin) if !is_inside => {
                clean.push_str(&text[from..begin]);
                clean.push_str(REMOVED);
                is_inside = true;
            }
            Some(_) => {}
            None => {
                if !is_inside {
                    clean = REMOVED.to_owned();
                }
                (from, is_inside) = (at + KEY.len(), false);
            }
        }
    }
    if !is_inside {
        clean.push_str(&text[from..]);
    }
    clean
}

/// A line whose URLs have no user and no password.
fn without_users(line: &str) -> String {
    let mut clean = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at + 3);
        clean.push_str(before);
        let end = url.find([' ', '\t', '"', '\'', ',', '\n', '<', '>']).unwrap_or(url.len());
        rest = match url[..end].rfind('@') {
            Some(user) => {
                clean.push_str(REMOVED);
                &url[user..]
            }
            None => url,
        };
    }
    clean.push_str(rest);
    clean
}
