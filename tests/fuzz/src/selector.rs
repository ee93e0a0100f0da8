//! Selectors of nodes.

use std::collections::BTreeMap;

use weir_common::resources::Selector;

/// What is read is read again alike, selects the opposite when it is negated, and
/// what is refused says where.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let selector = match Selector::parse(text) {
        Ok(selector) => selector,
        Err(error) => {
            assert!(error.position <= text.chars().count(), "{error}");
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(Selector::parse(&selector.to_string()).as_ref(), Ok(&selector));
    let negated = Selector::parse(&format!("!({text})")).ok();
    for labels in labels() {
        let selected = selector.matches(&labels);
        if let Some(negated) = &negated {
            assert_ne!(negated.matches(&labels), selected, "{text:?} of {labels:?}");
        }
    }
}

fn labels() -> impl Iterator<Item = BTreeMap<String, String>> {
    let sets: [&[(&str, &str)]; 4] = [
        &[],
        &[("a", "b")],
        &[("a", ""), ("zone", "core")],
        &[("kubernetes.io/hostname", "n1"), ("zone", "edge"), ("retired", "true")],
    ];
    sets.into_iter().map(|set| {
        set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    })
}
