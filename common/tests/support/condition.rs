//! Node selectors at random, and what they mean, told apart from Weir's own
//! code.

use std::collections::BTreeMap;

use proptest::prelude::*;

/// What a selector asks of labels.
#[derive(Clone, Debug)]
pub enum Condition {
    All,
    Has(&'static str),
    Is(&'static str, &'static str),
    IsNot(&'static str, &'static str),
    In(&'static str, Vec<&'static str>),
    NotIn(&'static str, Vec<&'static str>),
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
}

impl Condition {
    /// The selector; each part that is made of others in parentheses.
    pub fn text(&self) -> String {
        let set = |values: &[&str]| {
            let quoted: Vec<_> = values.iter().map(|value| format!("'{value}'")).collect();
            quoted.join(", ")
        };
        match self {
            Self::All => "all()".to_owned(),
            Self::Has(label) => format!("has({label})"),
            Self::Is(label, value) => format!("{label} == '{value}'"),
            Self::IsNot(label, value) => format!("{label} != \"{value}\""),
            Self::In(label, values) => format!("{label} in {{{}}}", set(values)),
            Self::NotIn(label, values) => format!("{label} not in {{{}}}", set(values)),
            Self::Not(one) => format!("!({})", one.text()),
            Self::And(one, other) => format!("({}) && ({})", one.text(), other.text()),
            Self::Or(one, other) => format!("({}) || ({})", one.text(), other.text()),
        }
    }

    /// Whether these labels fulfil it (`libcalico-go/lib/selector`): a label
    /// that is not there is unlike every value.
    pub fn holds(&self, labels: &BTreeMap<&str, String>) -> bool {
        let value = |label: &str| labels.get(label).map(String::as_str);
        let is_among = |label: &str, values: &[&str]| {
            value(label).is_some_and(|value| values.contains(&value))
        };
        match self {
            Self::All => true,
            Self::Has(label) => value(label).is_some(),
            Self::Is(label, wanted) => value(label) == Some(wanted),
            Self::IsNot(label, wanted) => value(label) != Some(wanted),
            Self::In(label, values) => is_among(label, values),
            Self::NotIn(label, values) => !is_among(label, values),
            Self::Not(one) => !one.holds(labels),
            Self::And(one, other) => one.holds(labels) && other.holds(labels),
            Self::Or(one, other) => one.holds(labels) || other.holds(labels),
        }
    }
}

/// Any condition about the labels `zone` (z1, z2) and `rack` (r1, r2).
pub fn condition() -> impl Strategy<Value = Condition> {
    const ZONES: [&str; 3] = ["z1", "z2", "z9"];
    const RACKS: [&str; 2] = ["r1", "r2"];
    let pair = || {
        prop_oneof![
            prop::sample::select(&ZONES[..]).prop_map(|value| ("zone", value)),
            prop::sample::select(&RACKS[..]).prop_map(|value| ("rack", value)),
        ]
    };
    let set = || {
        prop_oneof![
            prop::sample::subsequence(ZONES.to_vec(), 1..3).prop_map(|values| ("zone", values)),
            prop::sample::subsequence(RACKS.to_vec(), 1..3).prop_map(|values| ("rack", values)),
        ]
    };
    let leaf = prop_oneof![
        4 => Just(Condition::All),
        1 => prop::sample::select(&["zone", "rack"][..]).prop_map(Condition::Has),
        1 => pair().prop_map(|(label, value)| Condition::Is(label, value)),
        1 => pair().prop_map(|(label, value)| Condition::IsNot(label, value)),
        1 => set().prop_map(|(label, values)| Condition::In(label, values)),
        1 => set().prop_map(|(label, values)| Condition::NotIn(label, values)),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        let two = || (inner.clone(), inner.clone());
        prop_oneof![
            inner.clone().prop_map(|one| Condition::Not(Box::new(one))),
            two().prop_map(|(one, other)| Condition::And(Box::new(one), Box::new(other))),
            two().prop_map(|(one, other)| Condition::Or(Box::new(one), Box::new(other))),
        ]
    })
}
