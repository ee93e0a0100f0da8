//! The BGP of another node, as a CalicoNodeStatus resource has it.

use serde_json::Value;
use weir_common::datastore::{Datastore, keys};

use crate::bgp_status::{BgpStatus, SessionKind, SessionStatus};
use crate::session::Failure;

/// How many of the resources are read.
const MOST: usize = 1000;

/// What a CalicoNodeStatus says of a node's BGP; a note that tells how to get one where there is
/// none.
///
/// # Errors
/// [`Failure`] when the datastore fails.
pub async fn bgp_of(node: &str, datastore: &dyn Datastore) -> Result<BgpStatus, Failure> {
    let page = datastore.list(keys::NODE_STATUSES, None, MOST).await?;
    let read = |value: &[u8]| serde_json::from_slice::<Value>(value).ok();
    let mut objects = page.entries.iter().filter_map(|entry| read(&entry.value));
    let status = objects.find_map(|object| {
        let is_it = object["spec"]["node"] == node && object["status"]["bgp"].is_object();
        is_it.then(|| status(&object["status"]))
    });
    Ok(status.unwrap_or_else(|| BgpStatus {
        notes: vec![format!(
            "the BGP of {node} cannot be seen from here: create a CalicoNodeStatus with spec.node \
             {node} and spec.classes [Agent, BGP, Routes], which its agent fills in"
        )],
        ..BgpStatus::default()
    }))
}

fn status(status: &Value) -> BgpStatus {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let peers = ["peersV4", "peersV6"].into_iter();
    let peers = peers.flat_map(|list| status["bgp"][list].as_array().into_iter().flatten());
    let session = |peer: &Value| {
        let bgp_state = text(&peer["state"]);
        Some(SessionStatus {
            protocol: String::new(),
            peer: peer["peerIP"].as_str()?.parse().ok()?,
            node: None,
            kind: SessionKind::named(peer["type"].as_str()?)?,
            state: if bgp_state == "Established" { "up" } else { "start" }.to_owned(),
            since: text(&peer["since"]),
            info: bgp_state.clone(),
            bgp_state,
            received: 0,
            announced: 0,
            why: None,
        })
    };
    BgpStatus {
        is_needed: true,
        sessions: peers.filter_map(session).collect(),
        notes: vec![format!("as of {}", text(&status["lastUpdated"]))],
        ..BgpStatus::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sessions_are_read_from_the_resource() {
        let found = status(&json!({
            "lastUpdated": "2026-11-28T02:30:00Z",
            "bgp": {"peersV4": [
                {"peerIP": "10.0.1.12", "type": "NodeMesh", "state": "Established", "since": "x"},
                {"peerIP": "10.0.1.1", "type": "GlobalPeer", "state": "Active", "since": "y"},
                {"peerIP": "10.0.1.2", "type": "NewKind", "state": "Active"},
            ]},
        }));
        let peers: Vec<_> = found.sessions.iter().map(|it| (it.kind, it.state.as_str())).collect();
        assert_eq!(peers, [(SessionKind::Mesh, "up"), (SessionKind::Global, "start")]);
        assert_eq!(found.notes, ["as of 2026-11-28T02:30:00Z"]);
    }
}
