//! The runtime's list of the attachments that live (spec: "GC").

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::error::{Code, Error};
use crate::ipam::collect::AttachmentName;
use crate::strict::Strict;

/// The key with the attachments that live (spec: "GC").
const VALID_ATTACHMENTS: &str = "cni.dev/valid-attachments";

/// What the key was called before the specification was corrected. libcni sends both, with
/// the same list (`libcni/api.go`, GCNetworkList). Alone it is not obeyed: a list that the
/// specification does not know must not make anything be removed. Other IPAM plugins may.
const OLD_NAME: &str = "cni.dev/attachments";

/// An attachment as written.
#[derive(Debug, Deserialize)]
struct WrittenAttachment {
    #[serde(rename = "containerID")]
    container_id: String,
    #[serde(rename = "ifname")]
    interface: String,
}

/// Reads the list; `None` when the runtime did not say. A list that is `null` is
/// what Go makes of an empty one.
///
/// # Errors
/// [`Code::Decode`] for anything but a list of attachments: it is never taken for
/// an empty one.
pub(super) fn valid_attachments(
    json: &Map<String, Value>,
) -> Result<Option<BTreeSet<AttachmentName>>, Error> {
    let key = VALID_ATTACHMENTS;
    let Some(list) = json.get(key) else { return Ok(None) };
    let list: Option<Vec<WrittenAttachment>> = serde_path_to_error::deserialize(Strict(list))
        .map_err(|error| {
            let (place, cause) = (error.path().to_string(), error.inner());
            Error::new(
                Code::Decode,
                format!(
                    "{key} {place} is wrong: {cause}; it is a list of {{\"containerID\", \
                     \"ifname\"}}"
                ),
            )
        })?;
    let name =
        |WrittenAttachment { container_id, interface }| AttachmentName { container_id, interface };
    Ok(Some(list.unwrap_or_default().into_iter().map(name).collect()))
}

/// The same configuration for the IPAM plugin, with these attachments on the runtime's
/// list too: what the main plugin could not remove keeps its addresses. Without a
/// list, which is not an empty one, it stays without.
pub fn with_valid_attachments(
    mut json: Map<String, Value>,
    more: &BTreeSet<AttachmentName>,
) -> Map<String, Value> {
    let more: Vec<Value> = more
        .iter()
        .map(|name| json!({"containerID": name.container_id, "ifname": name.interface}))
        .collect();
    for key in [VALID_ATTACHMENTS, OLD_NAME] {
        if let Some(list) = json.get_mut(key) {
            let mut whole = list.as_array().cloned().unwrap_or_default();
            whole.extend(more.iter().cloned());
            *list = whole.into();
        }
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_list_is_absent_empty_or_full() {
        let read = |json: Value| valid_attachments(json.as_object().unwrap());
        let list = |json: Value| read(json).unwrap();
        assert_eq!(list(json!({})), None);
        assert_eq!(list(json!({"cni.dev/valid-attachments": []})), Some(BTreeSet::new()));
        assert_eq!(list(json!({"cni.dev/valid-attachments": null})), Some(BTreeSet::new()));
        let one = json!([{"containerID": "c1", "ifname": "eth0", "later": true}]);
        let name = || AttachmentName { container_id: "c1".into(), interface: "eth0".into() };
        // Alone, the old name is not a list, whatever it holds.
        for old in [json!([]), json!(null), json!(3), one.clone()] {
            assert_eq!(list(json!({"cni.dev/attachments": old})), None);
        }
        let both = json!({"cni.dev/attachments": [], "cni.dev/valid-attachments": one});
        assert_eq!(list(both), Some([name()].into()));
        for wrong in [
            json!({}),
            json!("c1"),
            json!([{"containerID": "c1"}]),
            json!([null]),
            json!([["c1", "eth0"]]),
        ] {
            let json = json!({"cni.dev/valid-attachments": wrong});
            assert_eq!(read(json).unwrap_err().code, Code::Decode, "{wrong}");
        }
    }

    #[test]
    fn what_is_left_joins_the_list() {
        let name = |id: &str| AttachmentName { container_id: id.into(), interface: "eth0".into() };
        let left = BTreeSet::from([name("c2"), name("c3")]);
        let joined = |json: Value| {
            let json = with_valid_attachments(json.as_object().unwrap().clone(), &left);
            (json.len(), valid_attachments(&json).unwrap())
        };
        let one = json!([{"containerID": "c1", "ifname": "eth0", "later": true}]);
        let all = [name("c1"), name("c2"), name("c3")];
        assert_eq!(joined(json!({"name": "pods"})), (1, None));
        assert_eq!(joined(json!({"cni.dev/valid-attachments": null})), (1, Some(left.clone())));
        let both = json!({"cni.dev/attachments": one, "cni.dev/valid-attachments": one});
        assert_eq!(joined(both), (2, Some(all.into())));
    }
}
