//! How deep a document is nested.
//!
//! The parser of YAML takes a time that grows with the square of how many brackets are
//! open, and that before it says that they are too many.

/// How many brackets may be open. The parser itself takes 128 levels; brackets in texts and
/// comments, which are not told apart here, get room besides.
const MOST_OPEN: usize = 1000;

/// Whether so many brackets are open somewhere in the text that it is not a document of ours.
pub(super) fn is_too_deep(text: &str) -> bool {
    let mut open = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'{' | b'[' => open += 1,
            b'}' | b']' => open = open.saturating_sub(1),
            _ => {}
        }
        open > MOST_OPEN
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_open_counts() {
        assert!(!is_too_deep(&"{a: []}\n".repeat(10_000)));
        assert!(!is_too_deep(&format!("{}{}", "[".repeat(1000), "]".repeat(2000))));
        for open in ["[", "{", "{\"a\":", "- {a: ["] {
            assert!(is_too_deep(&open.repeat(1001)), "{open}");
        }
    }
}
