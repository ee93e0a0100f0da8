//! Metrics and health over HTTP, on a local address.
//!
//! Whoever can connect can hold a connection, so that each has time limits, and the oldest idle
//! one makes room where there are too many: nobody keeps others from being answered.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::metrics::Metrics;

/// How many connections there are at once.
const CONNECTIONS: usize = 128;

/// How long the header of a request may take.
const HEADER_TIME: Duration = Duration::from_secs(5);

/// How long a connection may take in all: its request, with a body, and the answer.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// How long nothing is accepted when that has failed, as without a free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The pauses between attempts to listen at an address that cannot be had.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// OpenMetrics' own type; Prometheus tells the formats apart by it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers at `address` for ever, from when it can be had.
pub async fn serve(address: SocketAddr, metrics: Arc<Metrics>) {
    let listener = listen(address).await;
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connections.begin(stream, Arc::clone(&metrics)),
            // Others go on, and so will this.
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
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

/// The connections that there are, the oldest first.
#[derive(Debug, Default)]
struct Connections {
    open: Vec<OpenConnection>,
}

#[derive(Debug)]
struct OpenConnection {
    task: AbortHandle,
    /// Whether its request has come.
    is_busy: Arc<AtomicBool>,
}

impl Connections {
    fn begin(&mut self, stream: TcpStream, metrics: Arc<Metrics>) {
        self.open.retain(|connection| !connection.task.is_finished());
        let busy: Vec<bool> =
            self.open.iter().map(|it| it.is_busy.load(Ordering::Relaxed)).collect();
        if let Some(index) = to_close(&busy, CONNECTIONS) {
            self.open.remove(index).task.abort();
        }
        let is_busy = Arc::new(AtomicBool::new(false));
        let answering = answer_all(stream, metrics, Arc::clone(&is_busy));
        // Whoever hangs up early, or is too slow, has no use for an error.
        let task = tokio::spawn(async { drop(timeout(CONNECTION_TIME, answering).await) });
        self.open.push(OpenConnection { task: task.abort_handle(), is_busy });
    }
}

/// Which of the connections makes room for another one: the oldest whose request has not come,
/// else the oldest. They are given oldest first.
fn to_close(busy: &[bool], limit: usize) -> Option<usize> {
    if busy.len() < limit {
        return None;
    }
    Some(busy.iter().position(|busy| !busy).unwrap_or(0))
}

async fn answer_all(stream: TcpStream, metrics: Arc<Metrics>, is_busy: Arc<AtomicBool>) {
    let service = service_fn(|request| {
        is_busy.store(true, Ordering::Relaxed);
        let response = answer(&request, &metrics);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).keep_alive(false);
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

/// The answer; to HEAD, hyper leaves the body out.
fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let only = "only GET and HEAD\n".to_owned();
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, "text/plain", only);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
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
            respond(StatusCode::NOT_FOUND, "text/plain", paths.to_owned())
        }
    }
}

/// 200 and what else there is to know, or 503 and the reasons.
fn health(reasons: &[String], notes: &[String]) -> Response<Full<Bytes>> {
    if reasons.is_empty() {
        let notes = notes.iter().map(|note| format!("note: {note}\n"));
        let text = std::iter::once("ok\n".to_owned()).chain(notes).collect();
        return respond(StatusCode::OK, "text/plain", text);
    }
    respond(StatusCode::SERVICE_UNAVAILABLE, "text/plain", reasons.join("\n") + "\n")
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_idle_connection_makes_room() {
        assert_eq!(to_close(&[], 2), None);
        assert_eq!(to_close(&[false], 2), None);
        assert_eq!(to_close(&[false, false], 2), Some(0));
        assert_eq!(to_close(&[true, false, false], 3), Some(1));
        assert_eq!(to_close(&[true, true], 2), Some(0));
    }
}
