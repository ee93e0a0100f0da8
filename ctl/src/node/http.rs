//! Metrics and health over HTTP, on a local address.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::metrics::Metrics;

/// How many requests are answered at once; more wait.
const CONNECTIONS: usize = 16;

/// How long somebody may take to send a request.
const PATIENCE: Duration = Duration::from_secs(5);

/// OpenMetrics' own type; Prometheus tells the formats apart by it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Listens at `address`.
///
/// # Errors
/// The address is not this machine's, or in use.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Answers for ever.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, say: others go on, and so will this.
            tokio::time::sleep(PATIENCE).await;
            continue;
        };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&request, &metrics);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
            // Whoever hangs up early has no use for an error.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => respond(StatusCode::OK, OPEN_METRICS, metrics.text()),
        // The names that Felix has for the two.
        (&Method::GET, "/health" | "/readiness") => health(&metrics.unhealthy()),
        (&Method::GET, "/liveness") => health(metrics.standstill(Instant::now()).as_slice()),
        (&Method::GET, _) => {
            let paths = "try /health, /readiness, /liveness or /metrics\n";
            respond(StatusCode::NOT_FOUND, "text/plain", paths.to_owned())
        }
        _ => respond(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned()),
    }
}

fn health(reasons: &[String]) -> Response<Full<Bytes>> {
    if reasons.is_empty() {
        return respond(StatusCode::OK, "text/plain", "ok\n".to_owned());
    }
    respond(StatusCode::SERVICE_UNAVAILABLE, "text/plain", reasons.join("\n") + "\n")
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
