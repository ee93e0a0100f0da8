//! What the node's plugins tell of their calls, for Prometheus.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::net::UnixDatagram;
use weir_process::{CallReport, MAX_REPORT, files};

/// The codes of the specification and of Weir are below this one. A plugin that Weir calls may
/// have any.
const CODES: u32 = 200;

/// Counters of calls. A clone counts in the same ones.
#[derive(Clone, Debug)]
pub struct CallMetrics {
    seconds: Family<[(&'static str, &'static str); 1], Histogram>,
    failures: Family<[(&'static str, String); 2], Counter>,
}

impl CallMetrics {
    /// None was made.
    pub fn new() -> Self {
        // 2 ms to 8 s, twofold: an ADD takes some 10 ms, and a runtime waits for seconds.
        let histogram = || Histogram::new(exponential_buckets(0.002, 2.0, 13));
        Self { seconds: Family::new_with_constructor(histogram), failures: Family::default() }
    }

    /// Those that this registry shows.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("call_seconds", "How long CNI calls took", self.seconds.clone());
        registry.register("call_failures", "CNI calls that failed", self.failures.clone());
    }

    /// Counts a call.
    pub fn count(&self, report: CallReport) {
        let verb = report.command.as_str();
        self.seconds.get_or_create(&[("verb", verb)]).observe(report.time.as_secs_f64());
        if let Some(code) = report.code {
            let is_known = code < CODES;
            let code = if is_known { code.to_string() } else { "other".to_owned() };
            self.failures.get_or_create(&[("verb", verb.to_owned()), ("code", code)]).inc();
        }
    }
}

/// Counts the calls of which plugins tell at `path`, for ever. A socket that an earlier agent
/// has left is replaced.
pub async fn count_calls(path: &Path, metrics: CallMetrics) {
    let socket = match listen(path) {
        Ok(socket) => socket,
        Err(error) => {
            let path = path.display();
            tracing::warn!(%path, %error, "CNI calls are not counted: the agent cannot listen here");
            return;
        }
    };
    // One byte more than any report has: what is cut off is none.
    let mut report = [0; MAX_REPORT + 1];
    loop {
        match socket.recv(&mut report).await {
            Ok(length) => {
                if let Some(report) = CallReport::parse(&report[..length]) {
                    metrics.count(report);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "CNI calls are not counted any more");
                return;
            }
        }
    }
}

fn listen(path: &Path) -> io::Result<UnixDatagram> {
    files::remove(path)?;
    let socket = UnixDatagram::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(socket)
}
