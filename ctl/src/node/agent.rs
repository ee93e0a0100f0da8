//! The agent's loop: it takes in what the datastore and the kernel tell, and
//! compares soon after.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use weir_common::network::{Follower, Problem};
use weir_kernel::{Keep, Kernel, Reconciled};
use weir_process::AgentLock;

use super::feed::News;
use super::metrics::Metrics;
use super::pace::Pace;
use super::registration::Registration;
use super::service::Service;
use super::state_file::StateFile;
use crate::session::chain;

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
    /// How often the kernel is compared although it told of no change. What it does
    /// not tell of is repaired by then.
    pub drift_interval: Duration,
    state_file: StateFile,
    follower: Follower,
    listed: bool,
    /// Whether the kernel has been compared with what was listed.
    compared: bool,
    lost: Option<String>,
    problems: BTreeSet<Problem>,
    failures: Vec<String>,
    pace: Pace,
}

/// When the agent is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When somebody ends it.
    Ended,
    /// When the kernel has been made what the plan says, once.
    Converged,
}

impl Agent {
    /// An agent that knows nothing yet but what was left to it.
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
            follower: state_file.take_over().await,
            state_file,
            drift_interval,
            registration,
            kernel,
            metrics,
            _lock: lock,
            service: Service::default(),
            kernel_changed,
            listed: false,
            compared: false,
            lost: None,
            problems: BTreeSet::new(),
            failures: Vec::new(),
            pace: Pace::default(),
        }
    }

    /// Runs until it is ended by SIGTERM or SIGINT, or as `until` says. What is in
    /// the kernel stays: containers go on without the agent. Returns what is wrong
    /// in the end.
    ///
    /// # Errors
    /// Signals cannot be had.
    pub async fn run(
        mut self,
        mut news: Receiver<News>,
        until: Until,
    ) -> std::io::Result<Vec<String>> {
        let mut end = Ends::new()?;
        let mut drift = interval(self.drift_interval);
        drift.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watchdog = interval(self.service.watchdog_interval());
        let kernel_changed = Arc::clone(&self.kernel_changed);
        loop {
            self.metrics.turn(Instant::now());
            let due = self.pace.due();
            tokio::select! {
                told = news.recv() => {
                    let Some(told) = told else { break };
                    let is_lost = matches!(told, News::Lost(_));
                    self.hear(told);
                    if is_lost && until == Until::Converged {
                        break;
                    }
                }
                () = kernel_changed.notified() => self.pace.kernel_changed(Instant::now()),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    // Left off anywhere, it is finished by the next comparison.
                    tokio::select! {
                        () = self.compare() => {}
                        () = end.wait() => break,
                    }
                    if until == Until::Converged && self.is_settled() {
                        break;
                    }
                }
                _ = drift.tick() => self.expect_changes(),
                _ = watchdog.tick() => self.service.is_alive(),
                () = end.wait() => break,
            }
        }
        self.service.is_stopping();
        tracing::info!("ended; routes, tunnel and NAT stay as they are");
        Ok(self.ailments())
    }

    /// Takes in what the datastore told.
    fn hear(&mut self, news: News) {
        match news {
            News::Listed(inventory, seen) => {
                let went_back = self.follower.relist(*inventory, &seen);
                let revision = seen.revision;
                if went_back {
                    self.registration.datastore_went_back();
                    tracing::warn!(
                        held = self.follower.held(),
                        "the datastore has gone back in time (restored from a snapshot?); what it \
                         has forgotten is kept; run \"weirctl ipam check --repair\" on each node"
                    );
                }
                if self.lost.take().is_some() || !self.listed {
                    tracing::info!(%revision, "the datastore was read");
                }
                self.listed = true;
                self.expect_changes();
            }
            News::Changed(events) => {
                if self.follower.take(&events) {
                    self.expect_changes();
                }
            }
            News::Lost(error) => {
                self.metrics.datastore_losses.inc();
                let error = chain(&error);
                if self.lost.as_ref() != Some(&error) {
                    tracing::warn!(error, "the datastore is away; everything stays as it is");
                }
                self.lost = Some(error);
            }
        }
        self.metrics.datastore_up.set((self.listed && self.lost.is_none()).into());
        self.metrics.set_ailments(self.ailments());
    }

    fn expect_changes(&mut self) {
        self.pace.expect_changes(Instant::now());
    }

    /// Compares the kernel with the plan, and makes it what the plan says. Before
    /// the datastore was read there is no plan.
    async fn compare(&mut self) {
        self.pace.begin();
        if !self.listed {
            return;
        }
        let started = Instant::now();
        let inventory = self.follower.inventory();
        let forgotten = self.follower.has_forgotten(self.registration.node());
        let is_holding = self.follower.held() > 0;
        let (mut failures, mut problems) = (Vec::new(), BTreeSet::new());
        // A datastore that is away would be waited for, and nothing else done.
        let clash = self.registration.clash(&inventory);
        if self.lost.is_none() && clash.is_none() {
            let renewed =
                self.registration.renew(&self.kernel, &inventory, forgotten, is_holding).await;
            problems.extend(renewed.problem);
            failures.extend(renewed.failures);
            renewed.due.into_iter().for_each(|due| self.pace.look_again(due));
        }
        failures.extend(clash.map(|clash| clash.to_string()));
        if self.registration.is_deleted() {
            failures.push(format!(
                "node {} was deleted from the datastore, so it has no way to other nodes; restart \
                 this agent to register it again, or end it if the node is to leave",
                self.registration.node()
            ));
        }
        let nodes = inventory.nodes.len();
        // Where it is told that there is no address, somebody else may have that one.
        let keep = Keep { tunnel_address: problems.is_empty(), borrowed: false };
        let outcome = self.kernel.reconcile(self.registration.node(), inventory, keep).await;
        self.metrics.observe(started.elapsed());
        self.metrics.nodes.set(nodes as i64);
        self.metrics.held.set(self.follower.held() as i64);
        match outcome {
            Ok(mut outcome) => {
                if self.registration.is_awaited() {
                    let is_it = |it: &Problem| matches!(it, Problem::NotRegistered { .. });
                    outcome.problems.retain(|problem| !is_it(problem));
                }
                outcome.problems.append(&mut problems);
                failures.extend(self.note(outcome).await);
            }
            Err(error) => failures.push(chain(&error)),
        }
        self.compared = true;
        self.pace.end(Instant::now(), !failures.is_empty());
        self.note_failures(failures);
        self.service.is_ready(&format!("{nodes} nodes, {} problems", self.problems.len()));
    }

    /// Tells of what was done, and returns what failed.
    async fn note(&mut self, outcome: Reconciled) -> Vec<String> {
        let Reconciled { plan, changes, failures, problems } = outcome;
        self.metrics.changes.inc_by(changes.len() as u64);
        if !changes.is_empty() {
            let (changes, routes) = (changes.len(), plan.routes.len());
            tracing::info!(changes, routes, "changed the kernel");
        }
        for change in &changes {
            tracing::debug!("{change}");
        }
        for problem in problems.difference(&self.problems) {
            tracing::warn!("{problem}");
        }
        self.problems = problems;
        self.metrics.routes.set(plan.routes.len() as i64);
        self.metrics.problems.set(self.problems.len() as i64);
        self.metrics.tunnel.set(plan.tunnel.is_some().into());
        self.metrics.pod_mtu.set(plan.pod_mtu.into());
        self.state_file.write(&self.follower, &plan).await;
        failures.iter().map(|error| chain(error.as_ref())).collect()
    }

    fn note_failures(&mut self, failures: Vec<String>) {
        self.metrics.failures.inc_by(failures.len() as u64);
        for failure in failures.iter().filter(|failure| !self.failures.contains(failure)) {
            tracing::error!("{failure}");
        }
        if failures.is_empty() {
            self.metrics.last_success.set(jiff::Timestamp::now().as_millisecond() as f64 / 1e3);
        }
        self.failures = failures;
        self.metrics.set_ailments(self.ailments());
    }

    /// What keeps this node from what it should be. Problems of the pools or of
    /// other nodes are told by a metric and the log, not here; those of its own
    /// registration are, since others cannot reach it.
    fn ailments(&self) -> Vec<String> {
        let unread = (!self.listed).then(|| "the datastore has not been read yet".to_owned());
        let waits = self.listed && !self.compared;
        let waits = waits.then(|| "the kernel has not been compared with it yet".to_owned());
        let unread = unread.into_iter().chain(waits);
        let lost = self.lost.iter().map(|error| format!("the datastore is away: {error}"));
        let unreachable = self.problems.iter().filter(|it| self.registration.concerns(it));
        let unreachable = unreachable.map(Problem::to_string);
        unread.chain(lost).chain(self.failures.iter().cloned()).chain(unreachable).collect()
    }

    /// Whether nothing is on its way: what this node wrote about itself has come
    /// back from the datastore.
    fn is_settled(&self) -> bool {
        self.listed
            && (!self.failures.is_empty()
                || self.registration.is_settled(&self.follower.inventory()))
    }
}

/// The signals that end the agent.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
