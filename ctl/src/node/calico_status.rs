//! What CalicoNodeStatus resources say of this node: whoever makes one gets the node's BGP from
//! any machine.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, sleep_until};
use weir_common::datastore::{Datastore, Error, Outcome, Transaction, Watch, keys};
use weir_common::resources::bgp::StatusClass;
use weir_kernel::{BgpRoutes, Kernel};

use super::metrics::Metrics;
use super::status_schedule::{AskedStatus, StatusSchedule, retry_pause};
use crate::bgp_status::{BgpStatus, SessionKind, SessionStatus};
use crate::session::chain;

/// How long a silent watch is trusted.
const SILENCE: Duration = Duration::from_secs(30);

/// How many of them are read.
const MOST: usize = 1000;

/// How many routes of a family one of them has: a request to etcd has 1.5 MB.
const MOST_ROUTES: usize = 2000;

/// Fills in the resources that are about `node`, each at its own period, for ever. They are listed
/// and watched; whatever breaks the watch off, they are listed again.
pub async fn keep(datastore: Arc<dyn Datastore>, node: String, metrics: Arc<Metrics>) {
    let kernel = match Kernel::open() {
        Ok(kernel) => kernel,
        Err(error) => {
            tracing::warn!(error = chain(&error), "no CalicoNodeStatus is filled in");
            return;
        }
    };
    let mut filling = Filling { datastore, metrics, kernel, schedule: StatusSchedule::new(node) };
    let mut failures = 0;
    loop {
        // The agent's loop tells where the datastore is away.
        let Ok(watch) = filling.list().await else {
            failures += 1;
            sleep(retry_pause(failures)).await;
            continue;
        };
        failures = 0;
        if filling.follow(watch).await.is_err() {
            sleep(retry_pause(1)).await;
        }
    }
}

struct Filling {
    datastore: Arc<dyn Datastore>,
    metrics: Arc<Metrics>,
    kernel: Kernel,
    schedule: StatusSchedule,
}

impl Filling {
    /// Reads the resources, and watches them from there.
    async fn list(&mut self) -> Result<Box<dyn Watch>, Error> {
        let page = self.datastore.list(keys::NODE_STATUSES, None, MOST).await?;
        self.schedule.replace(&page.entries, Instant::now());
        self.datastore.watch(&[keys::NODE_STATUSES.to_owned()], page.revision).await
    }

    /// Fills in what is due, until the watch breaks off or has been silent for long.
    async fn follow(&mut self, mut watch: Box<dyn Watch>) -> Result<(), Error> {
        let mut heard = Instant::now();
        while heard.elapsed() < SILENCE {
            let due = self.schedule.due().map_or(heard + SILENCE, |due| due.min(heard + SILENCE));
            tokio::select! {
                events = watch.next() => {
                    heard = Instant::now();
                    self.schedule.apply(&events?, heard);
                }
                () = sleep_until(due) => self.fill_in_next().await,
            }
        }
        Ok(())
    }

    /// Fills in one that is due.
    async fn fill_in_next(&mut self) {
        let Some(asked) = self.schedule.next(Instant::now()) else { return };
        let (key, outcome) = (asked.key.clone(), self.fill_in(asked).await);
        match outcome {
            Ok(true) => self.schedule.written(&key, Instant::now()),
            Ok(false) => self.schedule.failed(&key, Instant::now()),
            Err(error) => {
                tracing::debug!(key, error, "a CalicoNodeStatus is filled in later");
                self.schedule.failed(&key, Instant::now());
            }
        }
    }

    /// Returns whether it was written: not where it was changed meanwhile.
    async fn fill_in(&self, asked: &AskedStatus) -> Result<bool, String> {
        let routes = self.kernel.bgp_routes().await.map_err(|error| chain(&error))?;
        let status = status(&asked.classes, &self.metrics.bgp(), &routes, Timestamp::now());
        let mut transaction = Transaction::default();
        transaction.update(asked.key.clone(), asked.revision, asked.filled_in(status));
        let outcome = self.datastore.commit(transaction).await.map_err(|error| chain(&error))?;
        Ok(matches!(outcome, Outcome::Committed(_)))
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
}
