//! What CalicoNodeStatus resources say of this node: whoever makes one gets the node's BGP from
//! any machine.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};
use weir_common::datastore::{Datastore, Entry, Outcome, Transaction, keys};
use weir_common::resources::bgp::{CalicoNodeStatus, StatusClass};
use weir_kernel::{BgpRoutes, Kernel};

use super::metrics::Metrics;
use crate::bgp_status::{BgpStatus, SessionKind, SessionStatus};
use crate::session::chain;

/// How often the resources are looked for.
const LOOK: Duration = Duration::from_secs(5);

/// How many of them are read.
const MOST: usize = 1000;

/// How many routes of a family one of them has: a request to etcd has 1.5 MB.
const MOST_ROUTES: usize = 2000;

/// Fills in the resources that are about `node`, each at its own period, for ever.
pub async fn keep(datastore: Arc<dyn Datastore>, node: String, metrics: Arc<Metrics>) {
    let kernel = match Kernel::open() {
        Ok(kernel) => kernel,
        Err(error) => {
            tracing::warn!(error = chain(&error), "no CalicoNodeStatus is filled in");
            return;
        }
    };
    let mut written = BTreeMap::new();
    loop {
        sleep(LOOK).await;
        let page = match datastore.list(keys::NODE_STATUSES, None, MOST).await {
            Ok(page) => page,
            // The agent's loop tells that.
            Err(_) => continue,
        };
        written.retain(|key, _| page.entries.iter().any(|entry| entry.key == *key));
        for entry in page.entries {
            let Some(asked) = AskedStatus::of(&entry, &node) else { continue };
            let is_due = |last: &Instant| last.elapsed() + LOOK / 2 >= asked.period;
            if !written.get(&entry.key).is_none_or(is_due) {
                continue;
            }
            let key = entry.key.clone();
            match fill_in(datastore.as_ref(), entry, asked, &metrics, &kernel).await {
                Ok(true) => drop(written.insert(key, Instant::now())),
                // It was changed meanwhile, and is read again.
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(key, error, "a CalicoNodeStatus is filled in later");
                }
            }
        }
    }
}

/// Returns whether it was written.
async fn fill_in(
    datastore: &dyn Datastore,
    entry: Entry,
    asked: AskedStatus,
    metrics: &Metrics,
    kernel: &Kernel,
) -> Result<bool, String> {
    let routes = kernel.bgp_routes().await.map_err(|error| chain(&error))?;
    let status = status(&asked.classes, &metrics.bgp(), &routes, Timestamp::now());
    let mut transaction = Transaction::default();
    transaction.update(entry.key, entry.revision, asked.filled_in(status));
    let outcome = datastore.commit(transaction).await.map_err(|error| chain(&error))?;
    Ok(matches!(outcome, Outcome::Committed(_)))
}

/// A resource that asks for the status of this node.
struct AskedStatus {
    object: Map<String, Value>,
    classes: Vec<StatusClass>,
    period: Duration,
}

impl AskedStatus {
    /// The one in `entry`, if it is about `node` and asks for anything.
    fn of(entry: &Entry, node: &str) -> Option<Self> {
        let object = serde_json::from_slice(&entry.value).ok()?;
        let asked = CalicoNodeStatus::from_object(&object).ok()?;
        let is_asked = asked.node == node && asked.update_period > 0;
        let period = Duration::from_secs(asked.update_period.into());
        is_asked.then_some(Self { object, classes: asked.classes, period })
    }

    /// The value to store: only the status is another one.
    fn filled_in(mut self, status: Value) -> Vec<u8> {
        self.object.insert("status".to_owned(), status);
        Value::Object(self.object).to_string().into_bytes()
    }
}

/// The `status` of a CalicoNodeStatus with these classes, in Calico's words.
fn status(classes: &[StatusClass], bgp: &BgpStatus, routes: &BgpRoutes, now: Timestamp) -> Value {
    let mut status = Map::new();
    status.insert("lastUpdated".into(), json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
    for class in classes {
        let (key, value) = match class {
            StatusClass::Agent => ("agent", agent(bgp)),
            StatusClass::Bgp => ("bgp", sessions(bgp)),
            StatusClass::Routes => ("routes", learned(bgp, routes)),
        };
        status.insert(key.into(), value);
    }
    Value::Object(status)
}

/// One BIRD speaks both IP versions.
fn agent(bgp: &BgpStatus) -> Value {
    let bird = match &bgp.daemon {
        None => json!({"state": "NotReady"}),
        Some(daemon) => json!({
            "state": "Ready",
            "version": daemon.version,
            "routerID": daemon.router_id,
            "lastBootTime": daemon.last_boot,
            "lastReconfigurationTime": daemon.last_reconfiguration,
        }),
    };
    json!({"birdV4": bird, "birdV6": bird})
}

fn sessions(bgp: &BgpStatus) -> Value {
    let of_family =
        |is_ipv4: bool| bgp.sessions.iter().filter(move |it| it.peer.is_ipv4() == is_ipv4);
    let established = |is_ipv4| of_family(is_ipv4).filter(|it| it.is_established()).count();
    let down = |is_ipv4| of_family(is_ipv4).filter(|it| !it.is_established()).count();
    let peer = |it: &SessionStatus| json!({"peerIP": it.peer, "type": it.kind.name(), "state": it.bgp_state, "since": it.since});
    json!({
        "numberEstablishedV4": established(true),
        "numberNotEstablishedV4": down(true),
        "numberEstablishedV6": established(false),
        "numberNotEstablishedV6": down(false),
        "peersV4": of_family(true).map(peer).collect::<Vec<_>>(),
        "peersV6": of_family(false).map(peer).collect::<Vec<_>>(),
    })
}

/// The routes that the kernel has by BGP. From whom one is can be told where its next hop is a
/// peer.
fn learned(bgp: &BgpStatus, routes: &BgpRoutes) -> Value {
    let route = |prefix: &IpNet, gateway: &IpAddr| {
        let mut route = json!({"type": "FIB", "destination": prefix, "gateway": gateway});
        if let Some(session) = bgp.sessions.iter().find(|session| session.peer == *gateway) {
            let source = match session.kind {
                SessionKind::Mesh => SessionKind::Mesh.name(),
                SessionKind::Global | SessionKind::Node => "BGPPeer",
            };
            route["learnedFrom"] = json!({"sourceType": source, "peerIP": gateway});
        }
        route
    };
    let of_family = |is_ipv4: bool| -> Vec<Value> {
        let routes = routes.learned.iter().filter(|(prefix, _)| prefix.addr().is_ipv4() == is_ipv4);
        let all = routes.flat_map(|(prefix, hops)| hops.iter().map(move |hop| (prefix, hop)));
        all.take(MOST_ROUTES).map(|(prefix, hop)| route(prefix, hop)).collect()
    };
    json!({"routesV4": of_family(true), "routesV6": of_family(false)})
}

#[cfg(test)]
mod tests {
    use weir_common::datastore::Revision;

    use super::*;
    use crate::bgp_status::BgpDaemon;

    fn bgp() -> BgpStatus {
        let session = SessionStatus {
            protocol: "Mesh_10_0_1_12".to_owned(),
            peer: "10.0.1.12".parse().unwrap(),
            node: Some("n2".to_owned()),
            kind: SessionKind::Mesh,
            state: "up".to_owned(),
            since: "2026-11-28 02:00:00".to_owned(),
            info: "Established".to_owned(),
            bgp_state: "Established".to_owned(),
            received: 1,
            announced: 2,
            why: None,
        };
        let daemon = BgpDaemon {
            version: "2.0.12".to_owned(),
            router_id: "10.0.1.11".to_owned(),
            last_boot: "2026-11-28 01:00:00".to_owned(),
            last_reconfiguration: "2026-11-28 01:30:00".to_owned(),
        };
        BgpStatus { daemon: Some(daemon), sessions: vec![session], ..BgpStatus::default() }
    }

    #[test]
    fn a_status_has_what_was_asked_for() {
        let mut routes = BgpRoutes::default();
        let hops = ["10.0.1.12", "10.0.1.1"].map(|hop| hop.parse().unwrap());
        routes.learned.insert("10.244.2.0/26".parse().unwrap(), hops.into());
        let classes = [StatusClass::Agent, StatusClass::Bgp, StatusClass::Routes];
        let status = status(&classes, &bgp(), &routes, Timestamp::UNIX_EPOCH);
        assert_eq!(status["lastUpdated"], "1970-01-01T00:00:00Z");
        assert_eq!(status["agent"]["birdV4"]["state"], "Ready");
        assert_eq!(status["bgp"]["numberEstablishedV4"], 1);
        assert_eq!(status["bgp"]["peersV4"][0]["type"], "NodeMesh");
        let found = &status["routes"]["routesV4"];
        assert_eq!(
            found[0],
            json!({"type": "FIB", "destination": "10.244.2.0/26",
            "gateway": "10.0.1.1"})
        );
        assert_eq!(found[1]["learnedFrom"]["sourceType"], "NodeMesh");
    }

    #[test]
    fn only_resources_about_this_node_are_filled_in() {
        let entry = |spec: Value| Entry {
            key: "key".to_owned(),
            value: json!({
                "kind": "CalicoNodeStatus",
                "metadata": {"name": "asked"},
                "spec": spec,
            })
            .to_string()
            .into_bytes(),
            revision: Revision(1),
        };
        let asked = |spec| AskedStatus::of(&entry(spec), "n1");
        assert!(asked(json!({"node": "n2", "updatePeriodSeconds": 10})).is_none());
        assert!(asked(json!({"node": "n1", "updatePeriodSeconds": 0})).is_none());
        let spec = json!({"node": "n1", "classes": ["BGP"], "updatePeriodSeconds": 10, "other": 5});
        let asked = asked(spec).unwrap();
        assert_eq!(
            (asked.period.as_secs(), asked.classes.as_slice()),
            (10, &[StatusClass::Bgp][..])
        );
        let stored: Value = serde_json::from_slice(&asked.filled_in(json!({"a": 1}))).unwrap();
        assert_eq!((&stored["spec"]["other"], &stored["status"]["a"]), (&json!(5), &json!(1)));
    }
}
