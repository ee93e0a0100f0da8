//! Metrics and health over HTTP, on a local address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use super::metrics::Metrics;
use crate::http::{self, only_reads, refuse_method, respond};

/// The pauses between attempts to listen at an address that cannot be had.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// OpenMetrics' own type; Prometheus tells the formats apart by it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers at `address` for ever, from when it can be had.
pub async fn serve(address: SocketAddr, metrics: Arc<Metrics>) {
    let listener = listen(address).await;
    let answer = move |request| std::future::ready(answer(&request, &metrics));
    http::serve(listener, answer).await;
}

/// Listens at an address, if need be when whoever has it gives it up. Routes matter more than
/// who counts them, so that the agent goes on meanwhile.
async fn listen(address: SocketAddr) -> TcpListener {
    let mut pause = FIRST_PAUSE;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                if pause > FIRST_PAUSE {
                    tracing::info!(%address, "metrics and health are served now");
                }
                return listener;
            }
            Err(error) if pause == FIRST_PAUSE => tracing::error!(
                %address, %error,
                "there are no metrics and no health until this address can be had, which is tried \
                 again; free it, or choose another --metrics-address, or none"
            ),
            Err(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    if !only_reads(request.method()) {
        return refuse_method("text/plain", "only GET and HEAD\n");
    }
    match request.uri().path() {
        "/metrics" => respond(StatusCode::OK, OPEN_METRICS, metrics.text()),
        // The names that Felix has for the two.
        "/health" | "/readiness" => health(&metrics.unhealthy(), &metrics.notes()),
        "/bgp" => {
            // Plain data.
            let status = serde_json::to_string(&metrics.bgp()).unwrap_or_default();
            respond(StatusCode::OK, "application/json", status)
        }
        "/liveness" => health(metrics.standstill(Instant::now()).as_slice(), &[]),
        _ => {
            let paths = "try /health, /readiness, /liveness, /bgp or /metrics\n";
            respond(StatusCode::NOT_FOUND, "text/plain", paths)
        }
    }
}

/// 200 and what else there is to know, or 503 and the reasons.
fn health(reasons: &[String], notes: &[String]) -> Response<Full<Bytes>> {
    if reasons.is_empty() {
        let notes = notes.iter().map(|note| format!("note: {note}\n"));
        let text: String = std::iter::once("ok\n".to_owned()).chain(notes).collect();
        return respond(StatusCode::OK, "text/plain", text);
    }
    respond(StatusCode::SERVICE_UNAVAILABLE, "text/plain", reasons.join("\n") + "\n")
}
