//! What comes from a store, for terminals, logs and command lines: it may have been written by
//! anyone.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Whether a terminal does something else with a character than to show it: control characters,
/// also C1, line separators, and those that are invisible or change the order of others.
pub fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text on one line, with what is not printable escaped as in Rust (`\n`, `\u{1b}`).
pub fn printable(text: &str) -> Cow<'_, str> {
    replaced(text, |character, to| to.extend(character.escape_default()))
}

/// The same for text of several lines, whose line ends stay.
pub fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// JSON in which strings have what is not printable escaped; it means the same. Line ends stay:
/// they are between tokens.
pub fn printable_json(json: &str) -> String {
    let escape = |character: char, to: &mut String| match character {
        '\n' => to.push('\n'),
        other => {
            for unit in other.encode_utf16(&mut [0; 2]) {
                to.push_str(&format!("\\u{unit:04x}"));
            }
        }
    };
    replaced(json, escape).into_owned()
}

/// The text as one word of a shell: as it is where it has no meaning to one, else in quotes;
/// with what is not printable in the quotes of bash, zsh and POSIX 2024 (`$'\x1b'`).
pub fn shell_word(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.into();
    }
    if !text.contains(is_unprintable) {
        return format!("'{}'", text.replace('\'', r"'\''")).into();
    }
    let text = text.replace('\\', r"\\").replace('\'', r"\'");
    let escape = |character: char, to: &mut String| {
        for byte in character.encode_utf8(&mut [0; 4]).bytes() {
            to.push_str(&format!("\\x{byte:02x}"));
        }
    };
    format!("$'{}'", replaced(&text, escape)).into()
}

fn replaced(text: &str, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return text.into();
    }
    let mut result = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match is_unprintable(character) {
            true => escape(character, &mut result),
            false => result.push(character),
        }
    }
    result.into()
}

/// Writes what is printed through it as [`printable`] has it.
#[derive(Debug)]
pub struct PrintableWriter<W>(pub W);

impl<W: Write> Write for PrintableWriter<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_str(&printable(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}[2J\u{7}\r\n\t\u{9b}1m\u{7f}\u{202e}\u{2066}\u{feff}\u{e0041}ä";

    #[test]
    fn nothing_is_left_that_a_terminal_obeys() {
        assert_eq!(
            printable(HOSTILE),
            r"a\u{1b}[2J\u{7}\r\n\t\u{9b}1m\u{7f}\u{202e}\u{2066}\u{feff}\u{e0041}ä"
        );
        assert!(matches!(printable("net.c1 ä"), Cow::Borrowed("net.c1 ä")));
        assert_eq!(printable_lines("a\u{1b}\nb\r\n"), "a\\u{1b}\nb\\r\n");
        let json = serde_json::Value::from(HOSTILE).to_string();
        let escaped = printable_json(&json);
        assert!(!escaped.contains(is_unprintable), "{escaped}");
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), HOSTILE);
    }

    #[test]
    fn words_are_quoted_where_a_shell_reads_more_in_them() {
        assert_eq!(shell_word("net.c1_@%+=:,./-"), "net.c1_@%+=:,./-");
        assert_eq!(shell_word("it's $(x)"), r"'it'\''s $(x)'");
        assert_eq!(shell_word(""), "''");
        assert_eq!(shell_word("a\\'\n\u{9b}"), r"$'a\\\'\x0a\xc2\x9b'");
    }
}
