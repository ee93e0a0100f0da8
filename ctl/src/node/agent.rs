//! The agent's loop: it receives events of the datastore and the kernel, and reconciles the node
//! soon after.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use ipnet::IpNet;
use tokio::sync::mpsc::Receiver;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use weir_common::network::{
    BgpResources, Change, ClusterCache, ClusterPlan, ClusterState, Problem, StateDiff, Underlay,
    plan_bgp, tunnel_needs,
};
use weir_common::tunnel::TunnelKind;
use weir_kernel::{Keep, Kernel, Reconciled};
use weir_process::AgentLock;

use super::audit::is_auditor;
use super::bgp::LatestPlan;
use super::bgp_hold::{BgpHold, SwitchedOff};
use super::log::{self, MessageKind};
use super::metrics::Metrics;
use super::pace::ReconcileTimer;
use super::pool_metrics::PoolWatch;
use super::registration::Registration;
use super::state_file::StateFile;
use crate::follow::WatchEvent;
use crate::service::Service;
use crate::session::chain;
use crate::signals::EndSignals;

/// A running agent.
pub struct Agent {
    /// What this node is registered with.
    pub registration: Registration,
    /// The kernel.
    pub kernel: Kernel,
    /// What is told to Prometheus.
    pub metrics: Arc<Metrics>,
    /// Keeps other agents from this node, and tells plugins that one runs.
    _lock: AgentLock,
    /// What is told to systemd.
    pub service: Service,
    /// Told when the kernel changed.
    pub kernel_changed: Arc<Notify>,
    /// How often everything is compared although nothing told of a change. What the kernel does
    /// not tell of is repaired by then.
    pub drift_interval: Duration,
    /// Whether BGP is spoken at all.
    pub bgp_mode: BgpMode,
    /// What the BGP daemon should do.
    pub bgp_plan: watch::Sender<LatestPlan>,
    /// What goes on for a while after nothing asks for BGP.
    bgp_hold: BgpHold,
    /// The blocks of others that the node has addresses of.
    pub borrowed_from: watch::Sender<BTreeSet<IpNet>>,
    /// Whether damage is looked for in the whole datastore.
    pub is_auditor: watch::Sender<bool>,
    state_file: StateFile,
    cache: ClusterCache,
    listed: bool,
    /// What has changed since the last reconcile.
    pending: StateDiff,
    /// What the kernel has, if the last reconcile left nothing to do.
    applied: Option<(ClusterPlan, Underlay)>,
    /// Whether the node has been reconciled with the datastore.
    reconciled: bool,
    lost: Option<String>,
    problems: BTreeSet<Problem>,
    failures: Vec<String>,
    timer: ReconcileTimer,
    pools: PoolWatch,
}

/// Whether a node speaks BGP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum BgpMode {
    /// Where a session is wanted.
    #[default]
    Auto,
    /// Likewise, by a BIRD that something else starts and ends, such as a container of its own.
    External,
    /// Never; a daemon that an agent has started is taken down.
    Off,
}

/// When the agent is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// On a signal.
    Ended,
    /// Once the kernel has what the plan says.
    Reconciled,
}

impl Agent {
    /// An agent that knows only what the state file says.
    pub async fn new(
        registration: Registration,
        kernel: Kernel,
        metrics: Arc<Metrics>,
        lock: AgentLock,
        kernel_changed: Arc<Notify>,
        drift_interval: Duration,
        state_file: StateFile,
    ) -> Self {
        Self {
            cache: state_file.take_over().await,
            state_file,
            drift_interval,
            registration,
            kernel,
            metrics,
            _lock: lock,
            service: Service::default(),
            kernel_changed,
            bgp_mode: BgpMode::default(),
            bgp_plan: watch::Sender::default(),
            bgp_hold: BgpHold::default(),
            borrowed_from: watch::Sender::default(),
            is_auditor: watch::Sender::default(),
            listed: false,
            pending: StateDiff::default(),
            applied: None,
            reconciled: false,
            lost: None,
            problems: BTreeSet::new(),
            failures: Vec::new(),
            timer: ReconcileTimer::default(),
            pools: PoolWatch::new(Instant::now()),
        }
    }

    /// Runs until it is ended by SIGTERM or SIGINT, or as `until` says. What is in
    /// the kernel stays: containers go on without the agent. Returns what makes the node
    /// unhealthy in the end.
    ///
    /// # Errors
    /// Signals cannot be had.
    pub async fn run(
        mut self,
        mut events: Receiver<WatchEvent>,
        until: Until,
    ) -> std::io::Result<Vec<String>> {
        let mut end = EndSignals::new()?;
        let mut drift = interval(self.drift_interval);
        drift.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watchdog = interval(self.service.watchdog_interval());
        let kernel_changed = Arc::clone(&self.kernel_changed);
        loop {
            self.metrics.turn(Instant::now());
            let due = self.timer.due();
            let write_due = self.state_file.due(&self.cache);
            let pools_due = self.pools.due();
            tokio::select! {
                event = events.recv() => {
                    let Some(event) = event else { break };
                    let is_lost = matches!(event, WatchEvent::Lost(_));
                    self.handle(event);
                    if is_lost && until == Until::Reconciled {
                        break;
                    }
                }
                () = kernel_changed.notified() => {
                    self.pending.whole = true;
                    self.timer.kernel_changed(Instant::now());
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    // Stopped anywhere, it is finished by the next reconcile.
                    tokio::select! {
                        () = self.reconcile() => {}
                        () = end.wait() => break,
                    }
                    if until == Until::Reconciled && self.is_settled() {
                        break;
                    }
                }
                () = sleep_until(write_due.unwrap_or_else(Instant::now)), if write_due.is_some() => {
                    self.state_file.flush(&self.cache).await;
                }
                () = sleep_until(pools_due.unwrap_or_else(Instant::now)), if pools_due.is_some() => {
                    self.pools.look(&self.cache.state(), &self.metrics.pools, Instant::now());
                }
                _ = drift.tick() => {
                    log::tell_due();
                    self.expect_changes(StateDiff::everything());
                }
                _ = watchdog.tick() => self.service.is_alive(),
                () = end.wait() => break,
            }
        }
        self.service.is_stopping();
        self.state_file.flush(&self.cache).await;
        log::tell_rest();
        tracing::info!("ended; routes, tunnel and NAT stay as they are");
        Ok(self.unhealthy())
    }

    fn handle(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Listed(state, observed, ()) => {
                let was_restored = self.cache.replace(*state, &observed);
                let revision = observed.revision;
                if was_restored {
                    self.registration.datastore_went_back();
                    tracing::warn!(
                        retained = self.cache.retained(),
                        "the datastore has gone back in time (restored from a snapshot?); what it \
                         has lost is kept; run \"weirctl ipam check --repair\" on each node"
                    );
                }
                if self.lost.take().is_some() || !self.listed {
                    let losses = self.metrics.datastore_losses.get();
                    let message = format!(
                        "the datastore was read, revision {revision}, after {losses} losses"
                    );
                    log::tell(MessageKind::DatastoreRead, &message);
                }
                self.listed = true;
                self.pools.expect_changes(Instant::now());
                self.expect_changes(StateDiff::everything());
            }
            WatchEvent::Changed(events) => {
                self.registration.heard_of(&events);
                let diff = self.cache.apply(&events);
                self.pools.expect_changes(Instant::now());
                if !diff.is_empty() {
                    self.expect_changes(diff);
                }
            }
            WatchEvent::Lost(error) => {
                self.metrics.datastore_losses.inc();
                let error = chain(&error);
                if self.lost.as_ref() != Some(&error) {
                    let message =
                        format!("the datastore is away; everything stays as it is: {error}");
                    log::tell(MessageKind::DatastoreLost, &message);
                }
                self.lost = Some(error);
            }
        }
        self.metrics.set_datastore_read(self.listed && self.lost.is_none());
        self.metrics.set_unhealthy(self.unhealthy());
    }

    fn expect_changes(&mut self, diff: StateDiff) {
        self.pending.extend(diff);
        self.timer.expect_changes(Instant::now());
    }

    /// Reconciles what has changed, or everything. Before the datastore was read there is no
    /// plan.
    async fn reconcile(&mut self) {
        self.timer.begin();
        if !self.listed {
            return;
        }
        let started = Instant::now();
        let pending = std::mem::take(&mut self.pending);
        if pending.whole || !self.reconcile_ranges(&pending.ranges).await {
            self.reconcile_everything().await;
        }
        self.metrics.observe(started.elapsed());
    }

    /// Changes the routes to `ranges`, and reads nothing from the kernel. Returns whether that
    /// is all there is to do.
    async fn reconcile_ranges(&mut self, ranges: &BTreeSet<IpNet>) -> bool {
        let Some((mut plan, underlay)) = self.applied.take() else { return false };
        let (node, state) = (self.registration.node(), self.cache.state());
        // Of a block of its own the node may get a tunnel address that it lacks.
        let is_own = |range| state.blocks.get(range).is_some_and(|hosts| hosts.contains(node));
        if !self.registration.lacking_tunnels().is_empty() && ranges.iter().any(is_own) {
            return false;
        }
        let Some(changes) = plan.update(node, &state, &underlay, ranges) else { return false };
        drop(state);
        if !self.kernel.change(&changes).await.is_empty() {
            return false;
        }
        self.report_changes(&changes, &plan);
        self.applied = Some((plan, underlay));
        self.timer.end(Instant::now(), !changes.is_empty(), false);
        self.note_failures(Vec::new());
        true
    }

    /// Compares the kernel with the whole plan, and applies the difference.
    async fn reconcile_everything(&mut self) {
        self.applied = None;
        let state = known(&self.cache, self.bgp_mode);
        let forgotten = self.cache.has_lost(self.registration.node());
        let mut failures = Vec::new();
        // A datastore that is away would be waited for, and nothing else done.
        let clash = self.registration.clash(&state);
        let may_write = self.lost.is_none() && clash.is_none();
        let mut due = None;
        if may_write {
            let renewed = self.registration.renew(&self.kernel, &state, forgotten).await;
            failures.extend(renewed.failures);
            due = renewed.due;
        }
        self.state_file.cluster_guid = self.registration.cluster_guid.clone();
        failures.extend(clash.map(|clash| clash.to_string()));
        if self.registration.is_deleted() {
            failures.push(format!(
                "node {} was deleted from the datastore, so it has no way to other nodes; restart \
                 this agent to register it again, or end it if the node is to leave",
                self.registration.node()
            ));
        }
        let node = self.registration.node();
        let is_own = |users: &BTreeMap<IpAddr, String>| users.values().any(|user| user == node);
        let borrowed = state.borrowed.iter().filter(|(_, users)| is_own(users));
        self.borrowed_from.send_replace(borrowed.map(|(block, _)| *block).collect());
        self.is_auditor.send_replace(is_auditor(node, &state));
        let nodes = state.nodes.len();
        let lacking = self.registration.lacking_tunnels();
        let tunnel_addresses = &BTreeSet::from(TunnelKind::ALL) - &lacking;
        let (now, off) = (Instant::now(), self.bgp_off(&state));
        let bgp_need = self.bgp_hold.need(off, now).cloned();
        let keep = Keep { tunnel_addresses, bgp_need, ..Keep::default() };
        let outcome = self.kernel.reconcile(self.registration.node(), state, keep).await;
        self.metrics.nodes.set(nodes as i64);
        self.metrics.retained.set(self.cache.retained() as i64);
        let has_changed = outcome.as_ref().is_ok_and(|outcome| !outcome.changes.is_empty());
        match outcome {
            Ok(mut outcome) => {
                if self.registration.is_awaited() {
                    let is_it = |it: &Problem| matches!(it, Problem::NotRegistered { .. });
                    outcome.problems.retain(|problem| !is_it(problem));
                }
                if may_write {
                    failures.extend(self.renew_tunnels(&mut outcome).await);
                }
                let has_own_tunnels = self.has_own_tunnels(&outcome.plan);
                if !self.registration.lacking_tunnels().is_subset(&lacking) && !has_own_tunnels {
                    // Only now it is known that another node may have what a device keeps.
                    due = Some(Instant::now());
                }
                let is_whole = !outcome.has_conflicts && has_own_tunnels;
                self.plan_bgp(&outcome.underlay, off, now);
                let (more, applied) = self.note(outcome).await;
                failures.extend(more);
                self.applied = Some(applied).filter(|_| is_whole && failures.is_empty());
            }
            Err(error) => failures.push(chain(&error)),
        }
        self.reconciled = true;
        self.timer.end(Instant::now(), has_changed, !failures.is_empty());
        let due = due.into_iter().chain(self.bgp_hold.due()).min();
        if let Some(due) = due {
            self.timer.look_again(due);
        }
        self.pending.whole |= due.is_some() || !failures.is_empty();
        self.note_failures(failures);
        self.service.is_ready(&format!("{nodes} nodes, {} problems", self.problems.len()));
    }

    /// Takes and gives back tunnel addresses, now that the kernel is what it should be. Returns
    /// what failed.
    async fn renew_tunnels(&mut self, outcome: &mut Reconciled) -> Vec<String> {
        let (state, is_retaining) = (self.cache.state(), self.cache.retained() > 0);
        let renewed =
            self.registration.renew_tunnels(&self.kernel, &state, is_retaining, outcome).await;
        outcome.problems.extend(renewed.problems);
        renewed.failures
    }

    /// Whether a plan's tunnels have the addresses that the node is registered with, and no
    /// others that their devices keep meanwhile.
    fn has_own_tunnels(&self, plan: &ClusterPlan) -> bool {
        plan.has_registered_addresses(self.cache.state().nodes.get(self.registration.node()))
    }

    /// What of BGP is switched off on this node, or ends with its registration.
    fn bgp_off(&self, state: &ClusterState) -> SwitchedOff {
        if self.bgp_mode == BgpMode::Off || self.registration.is_deleted() {
            SwitchedOff::Everything
        } else if state.bgp.is_mesh_off() {
            SwitchedOff::Mesh
        } else {
            SwitchedOff::Nothing
        }
    }

    /// Plans the node's BGP with the links that were read. While the node is not registered (yet)
    /// its daemon is left as it is.
    fn plan_bgp(&mut self, underlay: &Underlay, off: SwitchedOff, now: Instant) {
        let node = self.registration.node();
        let state = known(&self.cache, self.bgp_mode);
        let is_registered =
            state.nodes.get(node).is_some_and(|own| own.addresses().next().is_some());
        if !is_registered && !self.registration.is_deleted() {
            return;
        }
        let was_held = self.bgp_hold.due().is_some();
        let plan = self.bgp_hold.hold(plan_bgp(node, &state, underlay), off, now);
        if self.bgp_hold.due().is_some() && !was_held {
            tracing::info!("BGP: nothing asks for it any more; it goes on for a minute");
        }
        self.bgp_plan.send_if_modified(|present| {
            let is_new = present.as_deref() != Some(&plan);
            if is_new {
                *present = Some(Arc::new(plan));
            }
            is_new
        });
    }

    fn report_changes(&self, changes: &[Change], plan: &ClusterPlan) {
        self.metrics.changes.inc_by(changes.len() as u64);
        self.metrics.routes.set(plan.routes.len() as i64);
        self.metrics.announced.set(plan.announced.len() as i64);
        if !changes.is_empty() {
            let (changes, routes) = (changes.len(), plan.routes.len());
            let message = format!("changed the kernel: {changes} changes; routes: {routes}");
            log::tell(MessageKind::Changes, &message);
        }
        for change in changes {
            tracing::debug!("{change}");
        }
    }

    /// Reports what was done. Returns what failed, and what was applied.
    async fn note(&mut self, outcome: Reconciled) -> (Vec<String>, (ClusterPlan, Underlay)) {
        let Reconciled { plan, underlay, changes, failures, problems, .. } = outcome;
        // First: what is reported may be relied on.
        self.state_file.write(&self.cache, &plan).await;
        self.report_changes(&changes, &plan);
        for problem in problems.difference(&self.problems) {
            log::tell(MessageKind::Problem(discriminant(problem)), &problem.to_string());
        }
        self.problems = problems;
        self.metrics.problems.set(self.problems.len() as i64);
        let notes = self.problems.iter().filter(|it| !self.registration.concerns(it));
        self.metrics.set_notes(notes.map(Problem::to_string).collect());
        self.metrics.set_tunnels(&tunnel_needs(&plan).into_keys().collect());
        self.metrics.pod_mtu.set(plan.pod_mtu.into());
        (failures.iter().map(|error| chain(error.as_ref())).collect(), (plan, underlay))
    }

    fn note_failures(&mut self, failures: Vec<String>) {
        self.metrics.failures.inc_by(failures.len() as u64);
        for failure in failures.iter().filter(|failure| !self.failures.contains(failure)) {
            log::tell(MessageKind::Failure, failure);
        }
        if failures.is_empty() {
            self.metrics.last_success.set(jiff::Timestamp::now().as_millisecond() as f64 / 1e3);
        }
        self.failures = failures;
        self.metrics.set_unhealthy(self.unhealthy());
    }

    /// Everything that makes this node unhealthy. Problems of the pools or of other nodes are
    /// in a metric and the log, not here; those of its own registration are, since others
    /// cannot reach it.
    fn unhealthy(&self) -> Vec<String> {
        let unread = (!self.listed).then(|| "the datastore has not been read yet".to_owned());
        let waits = self.listed && !self.reconciled;
        let waits = waits.then(|| "the kernel has not been compared with it yet".to_owned());
        let unread = unread.into_iter().chain(waits);
        let lost = self.lost.iter().map(|error| format!("the datastore is away: {error}"));
        let unreachable = self.problems.iter().filter(|it| self.registration.concerns(it));
        let unreachable = unreachable.map(Problem::to_string);
        unread.chain(lost).chain(self.failures.iter().cloned()).chain(unreachable).collect()
    }

    /// Whether nothing is on its way: what this node wrote about itself has come
    /// back from the datastore, and the kernel has been made what that asks for.
    fn is_settled(&self) -> bool {
        let is_settled =
            || !self.pending.whole && self.registration.is_settled(&self.cache.state());
        self.listed && (!self.failures.is_empty() || is_settled())
    }
}

/// What is known of the cluster, without BGP where that is off.
fn known(cache: &ClusterCache, bgp: BgpMode) -> Cow<'_, ClusterState> {
    let mut state = cache.state();
    if bgp == BgpMode::Off {
        state.to_mut().bgp = BgpResources::off();
    }
    state
}
