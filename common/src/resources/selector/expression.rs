//! What a selector says, as a tree.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter, Result};

/// A condition on labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Always holds: `all()`.
    All,
    /// Always holds for labels: `global()`. Calico tells it from `all()` only
    /// where namespaces are selected.
    Global,
    /// The label is there, whatever its value: `has(key)`.
    Has(String),
    /// The label compared with one value.
    Compare {
        /// The label's key.
        key: String,
        /// How it is compared.
        operator: Operator,
        /// With what.
        value: String,
    },
    /// The label's value is one of these: `key in {…}`.
    In {
        /// The label's key.
        key: String,
        /// The values, in the order written.
        values: Vec<String>,
    },
    /// The label is missing or its value is none of these: `key not in {…}`.
    NotIn {
        /// The label's key.
        key: String,
        /// The values, in the order written.
        values: Vec<String>,
    },
    /// The condition does not hold.
    Not(Box<Expression>),
    /// All of them hold.
    And(Vec<Expression>),
    /// At least one of them holds.
    Or(Vec<Expression>),
}

/// A comparison of a label's value with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `==`
    Equal,
    /// `!=`, which holds as well when the label is missing.
    NotEqual,
    /// `contains`
    Contains,
    /// `starts with`
    StartsWith,
    /// `ends with`
    EndsWith,
}

impl Operator {
    fn holds(self, label: Option<&str>, value: &str) -> bool {
        match self {
            Self::NotEqual => label != Some(value),
            Self::Equal => label == Some(value),
            Self::Contains => label.is_some_and(|label| label.contains(value)),
            Self::StartsWith => label.is_some_and(|label| label.starts_with(value)),
            Self::EndsWith => label.is_some_and(|label| label.ends_with(value)),
        }
    }
}

impl Expression {
    /// Whether the condition holds for these labels.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let label = |key: &str| labels.get(key).map(String::as_str);
        match self {
            Self::All | Self::Global => true,
            Self::Has(key) => labels.contains_key(key),
            Self::Compare { key, operator, value } => operator.holds(label(key), value),
            Self::In { key, values } => labels.get(key).is_some_and(|label| values.contains(label)),
            Self::NotIn { key, values } => {
                !labels.get(key).is_some_and(|label| values.contains(label))
            }
            Self::Not(inner) => !inner.matches(labels),
            Self::And(parts) => parts.iter().all(|part| part.matches(labels)),
            Self::Or(parts) => parts.iter().any(|part| part.matches(labels)),
        }
    }
}

impl Display for Operator {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter.write_str(match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Contains => "contains",
            Self::StartsWith => "starts with",
            Self::EndsWith => "ends with",
        })
    }
}

impl Display for Expression {
    /// The condition in one canonical spelling, which reads back as the same
    /// condition.
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        match self {
            Self::All => formatter.write_str("all()"),
            Self::Global => formatter.write_str("global()"),
            Self::Has(key) => write!(formatter, "has({key})"),
            Self::Compare { key, operator, value } => {
                write!(formatter, "{key} {operator} {}", quoted(value))
            }
            Self::In { key, values } => write!(formatter, "{key} in {}", set(values)),
            Self::NotIn { key, values } => write!(formatter, "{key} not in {}", set(values)),
            Self::Not(inner) => write!(formatter, "!({inner})"),
            Self::And(parts) => write!(formatter, "{}", joined(parts, " && ")),
            Self::Or(parts) => write!(formatter, "{}", joined(parts, " || ")),
        }
    }
}

/// The language has no escapes: a value written in quotes of one kind can
/// hold only quotes of the other.
fn quoted(value: &str) -> String {
    let quote = if value.contains('\'') { '"' } else { '\'' };
    format!("{quote}{value}{quote}")
}

fn set(values: &[String]) -> String {
    let values: Vec<_> = values.iter().map(|value| quoted(value)).collect();
    format!("{{{}}}", values.join(", "))
}

fn joined(parts: &[Expression], separator: &str) -> String {
    let parts: Vec<_> = parts.iter().map(|part| format!("({part})")).collect();
    parts.join(separator)
}
