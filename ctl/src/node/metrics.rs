//! What the agent tells of itself, for Prometheus.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use weir_common::tunnel::TunnelKind;

use super::audit::AuditMetrics;
use super::call_metrics::CallMetrics;
use super::pool_metrics::PoolMetrics;
use crate::bgp_status::BgpStatus;

/// The metrics, and everything that makes this node unhealthy.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    datastore_up: Gauge,
    /// How often it was lost.
    pub datastore_losses: Counter,
    /// The nodes that are registered.
    pub nodes: Gauge,
    /// The routes there should be.
    pub routes: Gauge,
    /// The blocks and addresses that are announced by BGP.
    pub announced: Gauge,
    /// When the BGP daemon took its configuration, in seconds since 1970.
    pub bgp_configured: Gauge<f64, AtomicU64>,
    /// What could not be done as the pools ask.
    pub problems: Gauge,
    /// What counts although the datastore has lost it.
    pub retained: Gauge,
    /// Whether the tunnel device of each kind is in service.
    tunnels: Family<Vec<(&'static str, &'static str)>, Gauge>,
    /// The MTU for containers.
    pub pod_mtu: Gauge,
    /// Changes made to the kernel.
    pub changes: Counter,
    /// Changes that the kernel refused.
    pub failures: Counter,
    /// Containers' host ends that were repaired.
    pub host_end_repairs: Counter,
    /// Addresses of lost containers that were given back.
    pub collected: Counter,
    /// Whether the node's BGP daemon runs.
    bgp_up: Gauge,
    /// How often it was started again.
    bgp_restarts: Counter,
    /// BGP sessions by state.
    bgp_sessions: Family<Vec<(&'static str, &'static str)>, Gauge>,
    /// The prefixes that were taken from each BGP peer.
    bgp_received: Family<Vec<(&'static str, String)>, Gauge>,
    /// How full the pools are.
    pub pools: PoolMetrics,
    /// What is damaged in the datastore.
    pub audit: AuditMetrics,
    /// The CNI calls of the node.
    pub calls: CallMetrics,
    /// How long a reconcile took.
    pub reconcile_seconds: Histogram,
    /// The time of the last success, in seconds since 1970.
    pub last_success: Gauge<f64, AtomicU64>,
    unhealthy: Mutex<Vec<String>>,
    /// Problems that do not make it unhealthy.
    notes: Mutex<Vec<String>>,
    datastore: Mutex<DatastoreHealth>,
    turned: Mutex<Instant>,
    /// What the node's BGP is like, and what of it makes the node unhealthy.
    bgp: Mutex<(BgpStatus, Vec<String>)>,
}

/// What is known of the datastore.
#[derive(Debug, Default)]
struct DatastoreHealth {
    /// Whether it was read, and is watched.
    is_read: bool,
    /// Why it gives no sign of life.
    silence: Option<String>,
}

/// How long the agent's loop may stand still: as the unit's `WatchdogSec`.
const LONGEST_STANDSTILL: Duration = Duration::from_secs(60);

impl Metrics {
    /// All of them at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("weir"),
            datastore_up: Gauge::default(),
            datastore_losses: Counter::default(),
            nodes: Gauge::default(),
            routes: Gauge::default(),
            announced: Gauge::default(),
            bgp_configured: Gauge::default(),
            problems: Gauge::default(),
            retained: Gauge::default(),
            tunnels: Family::default(),
            pod_mtu: Gauge::default(),
            changes: Counter::default(),
            failures: Counter::default(),
            host_end_repairs: Counter::default(),
            collected: Counter::default(),
            bgp_up: Gauge::default(),
            bgp_restarts: Counter::default(),
            bgp_sessions: Family::default(),
            bgp_received: Family::default(),
            pools: PoolMetrics::default(),
            audit: AuditMetrics::default(),
            calls: CallMetrics::new(),
            reconcile_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 8)),
            last_success: Gauge::default(),
            unhealthy: Mutex::new(vec!["the datastore has not been read yet".to_owned()]),
            notes: Mutex::default(),
            datastore: Mutex::default(),
            turned: Mutex::new(Instant::now()),
            bgp: Mutex::default(),
        };
        metrics.register();
        metrics.set_tunnels(&BTreeSet::new());
        metrics
    }

    fn register(&mut self) {
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        self.registry.register("build", "The program", version);
        self.pools.register(self.registry.sub_registry_with_prefix("pool"));
        self.audit.register(self.registry.sub_registry_with_prefix("audit"));
        self.calls.register(self.registry.sub_registry_with_prefix("cni"));
        let registry = self.registry.sub_registry_with_prefix("node");
        let mut gauge = |name: &str, help: &str, metric: &Gauge| {
            registry.register(name, help, metric.clone());
        };
        gauge("datastore_up", "Whether the datastore can be reached", &self.datastore_up);
        gauge("nodes", "Nodes that are registered", &self.nodes);
        gauge("routes", "Routes to blocks and addresses that there should be", &self.routes);
        gauge("problems", "What could not be done as the pools ask", &self.problems);
        gauge(
            "held",
            "Nodes, pools and blocks that count although the datastore has lost them",
            &self.retained,
        );
        gauge("bgp_announced", "Blocks and addresses that are announced", &self.announced);
        gauge("bgp_up", "Whether the BGP daemon runs", &self.bgp_up);
        gauge("pod_mtu_bytes", "The MTU for containers", &self.pod_mtu);
        let tunnels = self.tunnels.clone();
        registry.register("tunnel_up", "Whether a tunnel device is in service", tunnels);
        registry.register("bgp_peers", "BGP sessions by state", self.bgp_sessions.clone());
        registry.register(
            "bgp_config_applied_timestamp_seconds",
            "When the BGP daemon took its configuration",
            self.bgp_configured.clone(),
        );
        let received = self.bgp_received.clone();
        registry.register("bgp_received", "Prefixes that were taken from a BGP peer", received);
        let mut counter = |name: &str, help: &str, metric: &Counter| {
            registry.register(name, help, metric.clone());
        };
        counter("datastore_losses", "How often the datastore was lost", &self.datastore_losses);
        counter("changes", "Changes made to the kernel", &self.changes);
        counter(
            "failures",
            "What failed: changes of the kernel, the node's registration",
            &self.failures,
        );
        counter(
            "bgp_restarts",
            "How often a BGP daemon that had died was started again",
            &self.bgp_restarts,
        );
        counter(
            "host_end_repairs",
            "Host ends of containers that had lost something and were repaired",
            &self.host_end_repairs,
        );
        counter(
            "collected_addresses",
            "Addresses of lost containers that were given back",
            &self.collected,
        );
        registry.register(
            "converge_seconds",
            "How long a reconcile took",
            self.reconcile_seconds.clone(),
        );
        registry.register(
            "last_success_timestamp_seconds",
            "When the kernel last was what the plan says",
            self.last_success.clone(),
        );
    }

    /// Records how long a reconcile took.
    pub fn observe(&self, time: Duration) {
        self.reconcile_seconds.observe(time.as_secs_f64());
    }

    /// Sets which kinds of tunnels are in service.
    pub fn set_tunnels(&self, in_service: &BTreeSet<TunnelKind>) {
        for kind in TunnelKind::ALL {
            let label = vec![("kind", kind.row().id)];
            self.tunnels.get_or_create(&label).set(in_service.contains(&kind).into());
        }
    }

    /// Sets what makes the node unhealthy; nothing when all is well.
    pub fn set_unhealthy(&self, reasons: Vec<String>) {
        if let Ok(mut present) = self.unhealthy.lock() {
            *present = reasons;
        }
    }

    /// Sets what else there is to know of a healthy node.
    pub fn set_notes(&self, notes: Vec<String>) {
        if let Ok(mut present) = self.notes.lock() {
            *present = notes;
        }
    }

    /// What else there is to know of a healthy node.
    pub fn notes(&self) -> Vec<String> {
        let notes = self.notes.lock().map(|present| present.clone()).unwrap_or_default();
        let of_bgp = self.bgp.lock().map(|present| present.0.problems.clone()).unwrap_or_default();
        notes.into_iter().chain(of_bgp).collect()
    }

    /// What makes the node unhealthy now.
    pub fn unhealthy(&self) -> Vec<String> {
        let silence = self.datastore.lock().ok().and_then(|it| it.silence.clone());
        let silence = silence.map(|silence| format!("the datastore is away: {silence}"));
        let reasons = self.unhealthy.lock().map(|present| present.clone()).unwrap_or_default();
        let of_bgp = self.bgp.lock().map(|present| present.1.clone()).unwrap_or_default();
        silence.into_iter().chain(reasons).chain(of_bgp).collect()
    }

    /// Sets whether the datastore was read and is watched.
    pub fn set_datastore_read(&self, is_read: bool) {
        if let Ok(mut datastore) = self.datastore.lock() {
            datastore.is_read = is_read;
            self.show(&datastore);
        }
    }

    /// Sets why the datastore gives no sign of life; `None` when it does. Returns whether it
    /// gave none before.
    pub fn set_silence(&self, silence: Option<String>) -> bool {
        let Ok(mut datastore) = self.datastore.lock() else { return false };
        let was_silent = std::mem::replace(&mut datastore.silence, silence).is_some();
        self.show(&datastore);
        was_silent
    }

    fn show(&self, datastore: &DatastoreHealth) {
        self.datastore_up.set((datastore.is_read && datastore.silence.is_none()).into());
    }

    /// Sets what the node's BGP is like, and what of it makes the node unhealthy.
    pub fn set_bgp(&self, status: BgpStatus, unhealthy: Vec<String>) {
        let established = status.sessions.iter().filter(|it| it.is_established()).count();
        let down = status.sessions.len() - established;
        for (state, count) in [("established", established), ("down", down)] {
            let label = vec![("state", state)];
            self.bgp_sessions.get_or_create(&label).set(count as i64);
        }
        self.bgp_up.set(status.daemon.is_some().into());
        self.bgp_restarts.inc_by(status.restarts.saturating_sub(self.bgp_restarts.get()));
        self.bgp_received.clear();
        for session in &status.sessions {
            let label = vec![("peer", session.peer.to_string())];
            self.bgp_received.get_or_create(&label).set(session.received as i64);
        }
        if let Ok(mut present) = self.bgp.lock() {
            *present = (status, unhealthy);
        }
    }

    /// What the node's BGP is like.
    pub fn bgp(&self) -> BgpStatus {
        self.bgp.lock().map(|present| present.0.clone()).unwrap_or_default()
    }

    /// Notes that the agent's loop turns.
    pub fn turn(&self, now: Instant) {
        if let Ok(mut turned) = self.turned.lock() {
            *turned = now;
        }
    }

    /// Why the agent should be restarted; `None` as long as its loop turns. That
    /// the datastore is away is no reason.
    pub fn standstill(&self, now: Instant) -> Option<String> {
        let turned = self.turned.lock().map_or(now, |turned| *turned);
        let still = now.duration_since(turned);
        (still > LONGEST_STANDSTILL)
            .then(|| format!("the agent has stood still for {} s", still.as_secs()))
    }

    /// The metrics in OpenMetrics' text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use weir_common::cni::CniCommand;
    use weir_common::network::PoolUsage;
    use weir_process::CallReport;

    use super::super::audit::AuditScope;
    use super::*;

    #[test]
    fn a_loop_that_stands_still_is_not_alive() {
        let metrics = Metrics::new();
        let mut now = Instant::now();
        for _ in 0..3 {
            now += Duration::from_secs(50);
            assert_eq!(metrics.standstill(now), None);
            metrics.turn(now);
        }
        let said = metrics.standstill(now + Duration::from_secs(61));
        assert_eq!(said.as_deref(), Some("the agent has stood still for 61 s"));
    }

    /// The names in docs/agent.md: in the row of `/metrics`, and in the table below it.
    fn documented() -> BTreeSet<String> {
        let text = file("docs/agent.md");
        let row = text.lines().find(|line| line.starts_with("| `/metrics` |")).unwrap();
        let mut list = row.split_once("`weir_node_` with ").unwrap().1.to_owned();
        // What stands in brackets says what a metric means, or has.
        while let (Some(begin), Some(end)) = (list.find('('), list.find(')')) {
            list.replace_range(begin..=end, "");
        }
        let of_node = list.split('`').skip(1).step_by(2).map(|name| format!("weir_node_{name}"));
        let others = text.lines().filter(|line| line.starts_with("| `weir_"));
        of_node.chain(others.map(|line| line.split('`').nth(1).unwrap().to_owned())).collect()
    }

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let metrics = Metrics::new();
        metrics.routes.set(7);
        metrics.changes.inc_by(3);
        metrics.observe(Duration::from_millis(2));
        metrics.set_tunnels(&[TunnelKind::VxlanV6].into());
        let text = metrics.text();
        for line in [
            "# TYPE weir_node_routes gauge",
            "weir_node_routes 7",
            "weir_node_changes_total 3",
            "weir_node_tunnel_up{kind=\"ipip\"} 0",
            "weir_node_tunnel_up{kind=\"vxlan-v6\"} 1",
            "weir_node_converge_seconds_count 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
    }

    /// The file of the repository.
    fn file(path: &str) -> String {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The labels of each metric that an agent tells of, when each has a value.
    fn exposed() -> BTreeMap<String, BTreeSet<String>> {
        let metrics = Metrics::new();
        metrics.pools.set([("p", PoolUsage::default(), 0.0)].into_iter());
        let (command, time) = (CniCommand::Add, Duration::from_millis(1));
        metrics.calls.count(CallReport { command, code: Some(101), time });
        metrics.set_bgp(BgpStatus::default(), Vec::new());
        metrics.audit.set(AuditScope::Datastore, &[], Timestamp::UNIX_EPOCH);
        metrics.bgp_received.get_or_create(&vec![("peer", "192.0.2.1".to_owned())]).set(1);
        let mut exposed = BTreeMap::new();
        for line in metrics.text().lines().filter(|line| !line.starts_with('#')) {
            let (series, _) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap_or_default().to_owned();
            let labels: &mut BTreeSet<String> = exposed.entry(name).or_default();
            labels.extend(label_names(series));
        }
        exposed
    }

    /// The names in the braces of a text.
    fn label_names(text: &str) -> Vec<String> {
        let inside = text.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
        let matchers = inside.flat_map(|(inside, _)| inside.split(','));
        let name = |it: &str| it.split(['=', '!']).next().unwrap_or_default().trim().to_owned();
        matchers.map(name).collect()
    }

    /// What the alerts and the dashboard ask Prometheus for.
    fn queries() -> Vec<String> {
        let rules: serde_json::Value =
            serde_norway::from_str(&file("conf/prometheus/weir.rules.yaml")).unwrap();
        let dashboard: serde_json::Value =
            serde_json::from_str(&file("conf/grafana/weir.json")).unwrap();
        let list = |value: &serde_json::Value| value.as_array().unwrap().clone();
        let rules = list(&rules["groups"][0]["rules"]);
        let targets = list(&dashboard["panels"]);
        let targets = targets.iter().flat_map(|panel| list(&panel["targets"]));
        let all = rules.into_iter().chain(targets).map(|it| it["expr"].clone());
        let variables = list(&dashboard["templating"]["list"]);
        let variables = variables.iter().map(|variable| variable["query"].clone());
        all.chain(variables).map(|query| query.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn alerts_and_dashboard_ask_for_what_there_is() {
        let (exposed, queries) = (exposed(), queries());
        assert!(queries.len() > 30, "{queries:?}");
        for query in &queries {
            let is_part = |it: char| it.is_alphanumeric() || it == '_';
            let words = query.split(|it| !is_part(it));
            for name in words.filter(|word| word.starts_with("weir_")) {
                let has = exposed.get(name).unwrap_or_else(|| panic!("no {name}: {query}"));
                for grouped in query.split("by (").skip(1).flat_map(|rest| rest.split(')').next()) {
                    assert_has(has, grouped.split(',').map(str::trim), query);
                }
                for selected in query.split(name).skip(1).filter(|rest| rest.starts_with('{')) {
                    let selected = label_names(&selected[..=selected.find('}').unwrap()]);
                    assert_has(has, selected.iter().map(String::as_str), query);
                }
            }
        }
    }

    /// A metric has these labels, or Prometheus gives it them.
    fn assert_has<'a>(has: &BTreeSet<String>, labels: impl Iterator<Item = &'a str>, query: &str) {
        let mut of_agent = labels.filter(|label| !["instance", "job"].contains(label));
        assert!(of_agent.all(|label| has.contains(label)), "{has:?}: {query}");
    }

    #[test]
    fn the_documentation_has_every_metric_and_no_other() {
        let base = |name: &String| {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|it| name.strip_suffix(it));
            base.unwrap_or(name).to_owned()
        };
        let exposed: BTreeSet<String> = exposed().keys().map(base).collect();
        assert_eq!(exposed, documented());
    }
}
