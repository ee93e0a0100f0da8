//! The network configuration on standard input, for every command.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde_json::{Map, Value};
use weir_common::datastore::keys;

use crate::call::{Answer, call, pools};

/// A password that no answer holds by chance, as a short one can ("10.0.0.9").
const PASSWORD: &str = "q7Zr-vXw2-9KdL-pTj4";

/// Besides what holds of every answer: an ADD that is repeated answers the same,
/// what was added can be deleted, and a password is never printed.
pub fn run(input: &[u8]) {
    if input.windows(PASSWORD.len()).any(|it| it == PASSWORD.as_bytes()) {
        // An answer may hold it for other reasons.
        return;
    }
    let secret = with_password(input);
    let input = secret.as_deref().map_or(input, str::as_bytes);
    let store = pools();
    let empty = store.dump();
    let add = command("ADD", input, &store);
    if add.status == 0 {
        assert!(
            !add.document["ips"].is_null()
                || !add.document["ip4"].is_null()
                || !add.document["ip6"].is_null()
        );
        assert_eq!(command("ADD", input, &store), add, "repeated");
    } else {
        // A plan that is refused after the address was taken leaves it to DEL.
        let taken = store.dump() != empty;
        assert!(!taken || command("DEL", input, &store).status == 0);
    }
    for name in ["CHECK", "STATUS", "VERSION", "GC"] {
        command(name, input, &store);
    }
    let delete = command("DEL", input, &store);
    assert!(add.status != 0 || delete.status == 0, "{delete:?}");
    let left = store.dump();
    let in_use = left.keys().any(|key| key.starts_with(keys::HANDLES));
    assert!(!in_use, "DEL left {left:?}");
}

fn command(name: &str, input: &[u8], store: &weir_datastore::Memory) -> Answer {
    let answer = call(store, &variables(name), input);
    assert!(!answer.document.to_string().contains(PASSWORD), "{answer:?}");
    answer
}

fn variables(command: &str) -> BTreeMap<String, OsString> {
    let variables = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "fuzz-1"),
        ("CNI_NETNS", "/run/netns/fuzz-1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

/// The input with [`PASSWORD`] as its password, if it has one that stands nowhere
/// else in it.
fn with_password(input: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(input).ok()?;
    let password = password_in(text).filter(|it| it.len() >= 8)?;
    let replaced =
        (text.matches(&password).count() == 1).then(|| text.replace(&password, PASSWORD));
    // Where the password is escaped, what was replaced is something else, which answers may hold.
    replaced.filter(|it| password_in(it).as_deref() == Some(PASSWORD))
}

fn password_in(text: &str) -> Option<String> {
    let object: Map<String, Value> = serde_json::from_str(text).ok()?;
    Some(object.get("etcd_password")?.as_str()?.to_owned())
}
