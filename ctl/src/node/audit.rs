//! What is damaged in the datastore, counted for Prometheus.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, interval_at, sleep, timeout};
use weir_common::audit::engine::{SETTLING_TIME, confirm, seen_twice};
use weir_common::audit::{AuditContext, DamageKind, Finding, audit};
use weir_common::ipam::IpamSnapshot;
use weir_common::network::ClusterState;

use super::agent_node::AgentNode;
use super::log::{self, MessageKind};
use crate::session::chain;
use crate::this_node;

/// How many agents look at the whole datastore: more than one, since any may be away.
const AUDITORS: usize = 3;

/// How long one look may take.
const LONGEST: Duration = Duration::from_secs(120);

/// With more addresses in use than this the agent would need too much memory.
const MOST_ADDRESSES: usize = 250_000;

/// Whether this node's agent looks at the whole datastore: the first ones by name do.
pub fn is_auditor(node: &str, state: &ClusterState) -> bool {
    let addresses: usize = state.used.values().map(|used| used.count()).sum();
    addresses <= MOST_ADDRESSES && state.nodes.keys().take(AUDITORS).any(|name| name == node)
}

/// The gauges. A clone has the same ones.
#[derive(Clone, Debug, Default)]
pub struct AuditMetrics {
    findings: Family<[(&'static str, &'static str); 1], Gauge>,
    looked: Family<[(&'static str, &'static str); 1], Gauge<f64, AtomicU64>>,
}

impl AuditMetrics {
    /// Those that this registry shows.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("findings", "Damage in the datastore by kind", self.findings.clone());
        let help = "When damage was last looked for";
        registry.register("last_timestamp_seconds", help, self.looked.clone());
    }

    /// Sets what was found of the kinds that were looked for; the others are not known.
    pub fn set(&self, scope: AuditScope, findings: &[Finding], now: Timestamp) {
        for kind in DamageKind::ALL {
            let label = [("kind", kind.name())];
            if scope == AuditScope::Datastore || kind.rests_on_kernel() {
                let count = findings.iter().filter(|finding| finding.kind == *kind).count();
                self.findings.get_or_create(&label).set(count as i64);
            } else {
                self.findings.remove(&label);
            }
        }
        let looked = |scope: AuditScope| self.looked.get_or_create(&[("scope", scope.name())]);
        looked(AuditScope::Node).set(now.as_millisecond() as f64 / 1e3);
        if scope == AuditScope::Datastore {
            looked(scope).set(now.as_millisecond() as f64 / 1e3);
        }
    }
}

/// How much an agent looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditScope {
    /// What only this node can judge, by its kernel.
    Node,
    /// Everything.
    Datastore,
}

impl AuditScope {
    /// The value of the label.
    fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Datastore => "datastore",
        }
    }
}

/// Looks for damage, `every` so often, and tells of it. The first time comes within a tenth
/// of that, by the node's name: agents that were started together do not look together.
///
/// It works in a thread of its own, so that the agent's other work goes on.
pub async fn run(node: Arc<AgentNode>, every: Duration, metrics: &AuditMetrics) {
    let mut due = interval_at(Instant::now() + delay(&node.name, every / 10), every);
    loop {
        due.tick().await;
        let looking = Arc::clone(&node);
        match spawn_blocking(move || look_in_own_runtime(&looking)).await {
            Ok(Ok((scope, findings))) => {
                findings.iter().for_each(tell);
                metrics.set(scope, &findings, Timestamp::now());
            }
            Ok(Err(error)) => log::tell(MessageKind::NotAudited, &error),
            Err(error) => log::tell(MessageKind::NotAudited, &error.to_string()),
        }
    }
}

/// In a runtime of its own, whose timer does not end with the agent's.
fn look_in_own_runtime(node: &AgentNode) -> Result<(AuditScope, Vec<Finding>), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the audit does not start: {error}"))?;
    let looking = async { timeout(LONGEST, look_twice(node)).await };
    let late = |_| format!("looking for damage took longer than {} s", LONGEST.as_secs());
    runtime.block_on(looking).map_err(late)?
}

/// What is damaged. What others change step by step looks so for a moment: only what is found
/// twice counts.
async fn look_twice(node: &AgentNode) -> Result<(AuditScope, Vec<Finding>), String> {
    let scope = if *node.is_auditor.borrow() { AuditScope::Datastore } else { AuditScope::Node };
    let first = look(node, scope).await?;
    if first.is_empty() {
        return Ok((scope, first));
    }
    sleep(SETTLING_TIME).await;
    let second = look(node, scope).await?;
    Ok((scope, seen_twice(&first, &second)))
}

async fn look(node: &AgentNode, scope: AuditScope) -> Result<Vec<Finding>, String> {
    let failed = |error: weir_common::ipam::Error| {
        format!("what is damaged in the datastore is not known: {}", chain(&error))
    };
    let datastore = node.datastore.as_ref();
    let others = node.borrowed_from.borrow().clone();
    let snapshot = match scope {
        AuditScope::Datastore => IpamSnapshot::list(datastore).await,
        AuditScope::Node => IpamSnapshot::read_host(datastore, &node.name, &others).await,
    };
    let snapshot = snapshot.map_err(failed)?;
    // Before the kernel is read: what comes into it later is younger.
    let now = Timestamp::now();
    let here = this_node::read(&node.networks().await).await.map_err(|failure| failure.message)?;
    let context = AuditContext::new(here.as_ref(), now);
    let mut findings = audit(&snapshot, &context);
    findings.retain(|it| scope == AuditScope::Datastore || it.rests_on_kernel());
    confirm(datastore, &snapshot, findings, &context).await.map_err(failed)
}

/// A time up to `most`, by the name of the node.
fn delay(node: &str, most: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    node.hash(&mut hasher);
    most.mul_f64((hasher.finish() % 1000) as f64 / 1e3)
}

fn tell(finding: &Finding) {
    let Finding { kind, problem, .. } = finding;
    let message = format!("damage: [{kind}] {problem}; look with: weirctl ipam check");
    log::tell(MessageKind::Damage(*kind), &message);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn three_registered_nodes_look_at_everything_and_agents_do_not_start_at_once() {
        let mut state = ClusterState::default();
        let names = ["n1", "n2", "n3", "n4"];
        for name in names {
            state.nodes.insert(name.to_owned(), Default::default());
        }
        assert_eq!(names.map(|name| is_auditor(name, &state)), [true, true, true, false]);
        assert!(!is_auditor("n0", &state), "it is not registered");
        let hour = Duration::from_secs(3600);
        let delays: BTreeSet<Duration> = names.iter().map(|name| delay(name, hour)).collect();
        assert_eq!(delays.len(), names.len());
        assert!(delays.iter().all(|delay| *delay < hour));
    }
}
