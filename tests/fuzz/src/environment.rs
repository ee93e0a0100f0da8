//! The variables of a call: lines of `NAME=VALUE`, in whatever bytes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use weir_common::datastore::keys;

use crate::call::{call, pools};

const INPUT: &[u8] = br#"{"cniVersion":"1.1.0","name":"net","type":"weir",
    "ipam":{"type":"weir-ipam","assign_ipv6":true}}"#;

/// Besides what holds of every answer: a variable that is not a text is refused, not
/// passed over, and an ADD under names that work can be undone.
pub fn run(input: &[u8]) {
    let mut variables = BTreeMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        let Some(end) = line.iter().position(|byte| *byte == b'=') else { continue };
        let name = String::from_utf8_lossy(&line[..end]).into_owned();
        variables.insert(name, OsString::from_vec(line[end + 1..].to_vec()));
    }
    let store = pools();
    let answer = call(&store, &variables, INPUT);
    let is_text = |name: &str| variables.get(name).is_none_or(|value| value.to_str().is_some());
    let asked = variables.get("CNI_COMMAND").is_some_and(|command| !command.is_empty());
    if asked
        && !["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"].into_iter().all(is_text)
    {
        assert_eq!(answer.status, 1, "{variables:?}");
    }
    let is = |name: &str, wanted: &str| variables.get(name).is_some_and(|value| value == wanted);
    if is("CNI_COMMAND", "ADD") && answer.status == 0 {
        assert_eq!(call(&store, &variables, INPUT), answer, "repeated");
        variables.insert("CNI_COMMAND".to_owned(), "DEL".into());
        assert_eq!(call(&store, &variables, INPUT).status, 0);
        let left = store.dump();
        assert!(!left.keys().any(|key| key.starts_with(keys::HANDLES)), "{left:?}");
    }
}
