//! The node's BGP daemon: kept as the plan asks, and told of.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use tokio::sync::watch;
use weir_bird::{BirdSettings, DaemonReport};
use weir_common::network::BgpPlan;

use super::metrics::Metrics;
use crate::bgp_status::{BgpDaemon, BgpStatus, sessions};

/// The latest plan; `None` before there is one.
pub type LatestPlan = Option<Arc<BgpPlan>>;

/// Keeps the daemon as the latest plan asks, and tells `metrics` what it is like, until the plans'
/// sender is dropped. The daemon outlives that. One that is `external` is not started or ended
/// here.
pub async fn keep(plans: watch::Receiver<LatestPlan>, metrics: Arc<Metrics>, is_external: bool) {
    let (sender, reports) = watch::channel(DaemonReport::default());
    let mut settings = BirdSettings::default();
    settings.program.take_if(|_| is_external);
    let keeping = weir_bird::keep(settings, plans.clone(), sender);
    tokio::join!(keeping, tell(plans, reports, &metrics));
}

async fn tell(
    mut plans: watch::Receiver<LatestPlan>,
    mut reports: watch::Receiver<DaemonReport>,
    metrics: &Metrics,
) {
    loop {
        let plan = plans.borrow_and_update().clone();
        let report = reports.borrow_and_update().clone();
        if let Some(time) = report.configured_at.and_then(|it| it.duration_since(UNIX_EPOCH).ok()) {
            metrics.bgp_configured.set(time.as_secs_f64());
        }
        metrics.set_bgp(status(plan.as_deref(), &report), unhealthy(&report));
        let changed = tokio::select! {
            changed = plans.changed() => changed,
            changed = reports.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// What the node's BGP is like.
fn status(plan: Option<&BgpPlan>, report: &DaemonReport) -> BgpStatus {
    let needed = plan.filter(|plan| plan.need.is_some());
    // Also where they leave no session to be needed.
    let of_plan = plan.into_iter().flat_map(|plan| &plan.problems).map(ToString::to_string);
    BgpStatus {
        is_needed: needed.is_some(),
        daemon: report.status.as_ref().map(BgpDaemon::from),
        restarts: report.restarts,
        sessions: needed.map(|plan| sessions(plan, &report.sessions)).unwrap_or_default(),
        problems: of_plan.chain(report.problems.iter().cloned()).collect(),
        notes: report.notes.clone(),
    }
}

/// What makes this node unhealthy: its own daemon is down, or refuses its configuration. Peers that
/// are away do not, nor a machine without the program, where everything else goes on.
fn unhealthy(report: &DaemonReport) -> Vec<String> {
    let is_down = report.is_wanted && !report.is_running() && !report.lacks_program;
    if is_down || report.is_refused { report.problems.clone() } else { Vec::new() }
}
