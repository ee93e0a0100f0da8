//! Calico's selectors: conditions on labels
//! (`libcalico-go/lib/selector/{tokenizer,parser}`).
//!
//! ```
//! use std::collections::BTreeMap;
//! use weir_common::resources::Selector;
//!
//! let selector = Selector::parse("zone in {'core', 'edge'} && !has(retired)").unwrap();
//! let labels = BTreeMap::from([("zone".to_owned(), "core".to_owned())]);
//! assert!(selector.matches(&labels));
//! ```

mod expression;
mod parse;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use expression::{Expression, Operator};

/// A condition on labels, with the text it was written as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    text: String,
    expression: Expression,
}

/// Why a text is not a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at character {}: expected {expected}, found {found}", position + 1)]
pub struct SelectorError {
    /// How many characters of the text stand before the trouble.
    pub position: usize,
    /// What could have stood there.
    pub expected: &'static str,
    /// What stands there.
    pub found: String,
}

impl Selector {
    /// Reads a selector. The empty text selects everything.
    ///
    /// # Errors
    /// [`SelectorError`] with the place and what was expected there.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Ok(Self { text: text.to_owned(), expression: parse::parse(text)? })
    }

    /// Whether something with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.expression.matches(labels)
    }

    /// The condition as a tree.
    pub fn expression(&self) -> &Expression {
        &self.expression
    }
}

impl TryFrom<String> for Selector {
    type Error = SelectorError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.text
    }
}

impl Default for Selector {
    /// Selects everything: `all()`.
    fn default() -> Self {
        Self { text: "all()".to_owned(), expression: Expression::All }
    }
}

impl std::fmt::Display for Selector {
    /// The text as it was written.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        Selector::parse(selector).unwrap().matches(&labels)
    }

    #[test]
    fn each_operator_selects_what_calicos_does() {
        let labels = [("zone", "core-1"), ("rack", "")];
        let cases = [
            ("", true),
            ("all()", true),
            ("global()", true),
            ("!all()", false),
            ("zone == 'core-1'", true),
            ("zone == \"core\"", false),
            ("missing == ''", false),
            ("rack == ''", true),
            ("zone != 'core-1'", false),
            ("missing != 'x'", true),
            ("zone in {'a', 'core-1'}", true),
            ("zone in {}", false),
            ("missing in {''}", false),
            ("zone not in {'a', 'core-1',}", false),
            ("missing not in {'a'}", true),
            ("has(rack)", true),
            ("!has(rack)", false),
            ("!!has( rack )", true),
            ("zone contains 're'", true),
            ("missing contains ''", false),
            ("zone starts with 'core'", true),
            ("zone starts  with 'ore'", false),
            ("zone ends with '-1'", true),
            ("zone ends with 'core'", false),
        ];
        for (selector, expected) in cases {
            assert_eq!(matches(selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn and_binds_closer_than_or_and_parentheses_closest() {
        assert!(matches("has(a) || has(b) && has(c)", &[("a", "")]));
        assert!(!matches("(has(a) || has(b)) && has(c)", &[("a", "")]));
        assert!(!matches("!(has(a) || has(b))", &[("b", "")]));
        assert!(matches("!has(b) && has(a)", &[("a", "")]));
    }

    #[test]
    fn a_label_may_be_called_like_an_operator() {
        assert!(matches("in in{'in'}", &[("in", "in")]));
        assert!(matches("has == 'x' && all == 'y'", &[("has", "x"), ("all", "y")]));
        assert!(matches("not not  in {'x'}", &[]));
    }

    #[test]
    fn errors_name_the_place_and_what_belongs_there() {
        let cases = [
            ("zone = 'a'", "at character 6: expected \"==\", found \"= 'a'\""),
            ("zone == a", "at character 9: expected a value in quotes, found \"a\""),
            ("zone == 'a", "at character 9: expected a value in quotes, found \"'a\""),
            ("zone is 'a'", "at character 6: expected an operator"),
            ("zone", "at character 5: expected an operator"),
            ("has(zone", "at character 9: expected \")\", found the end"),
            ("has()", "at character 5: expected a label name"),
            ("(all()", "at character 7: expected \")\", found the end"),
            ("all() all()", "at character 7: expected \"&&\", \"||\" or the end"),
            ("all() &&", "at character 9: expected a condition"),
            ("all() & all()", "at character 7: expected \"&&\""),
            ("a in {b}", "at character 7: expected a value in quotes or \"}\""),
            ("a in 'b'", "at character 6: expected \"{\""),
            ("a not 'b'", "at character 7: expected \"in\""),
            ("ä == 'b'", "at character 1: expected a condition"),
        ];
        for (selector, message) in cases {
            let error = Selector::parse(selector).unwrap_err().to_string();
            assert!(error.starts_with(message), "{selector}: {error}");
        }
    }

    #[test]
    fn endless_nesting_is_refused_and_not_followed() {
        let error = Selector::parse(&"(".repeat(1_000_000)).unwrap_err();
        assert_eq!(error.expected, "fewer nested parentheses");
        let many_negations = format!("{}all()", "!".repeat(100_000));
        assert!(Selector::parse(&many_negations).unwrap().matches(&BTreeMap::new()));
    }

    #[test]
    fn the_text_is_kept_as_written() {
        let text = "zone  in {\"a\",'b' }";
        assert_eq!(Selector::parse(text).unwrap().to_string(), text);
        assert_eq!(Selector::default().to_string(), "all()");
        assert_eq!(Selector::default(), Selector::parse("all()").unwrap());
    }
}
