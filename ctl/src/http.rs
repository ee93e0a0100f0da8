//! What the HTTP servers of weirctl have in common.
//!
//! Whoever can connect can hold a connection, so that each has time limits, and the oldest idle
//! one makes room where there are too many: nobody keeps others from being answered.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::sleep;

/// How long the header of a request may take.
pub const HEADER_TIME: Duration = Duration::from_secs(5);

/// How long nothing is accepted when that has failed, as without a free descriptor.
pub const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How many connections of a server there are at once.
const CONNECTIONS: usize = 128;

/// How long a connection may take in all: its request, with a body, and the answer.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

/// How long an answer may take that is [`Lasting`].
const LASTING_TIME: Duration = Duration::from_secs(60 * 60);

/// An extension of an answer that goes on for as long as its receiver is there, but for an hour
/// at most.
#[derive(Clone, Copy, Debug)]
pub struct Lasting;

/// An extension of a request: the address of this machine that it came to.
#[derive(Clone, Copy, Debug)]
pub struct CameTo(pub SocketAddr);

/// Answers requests, one a connection, for ever.
pub async fn serve<A, F, B>(listener: TcpListener, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send,
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connections.begin(stream, answer.clone()),
            // Others go on, and so will this.
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
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
    progress: Arc<ConnectionProgress>,
}

/// How far a connection has come.
#[derive(Debug, Default)]
struct ConnectionProgress {
    /// Its request has come.
    is_busy: AtomicBool,
    /// Its answer is [`Lasting`].
    is_lasting: AtomicBool,
}

impl Connections {
    fn begin<A, F, B>(&mut self, stream: TcpStream, answer: A)
    where
        A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send,
        B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        self.open.retain(|connection| !connection.task.is_finished());
        let is_busy = |it: &OpenConnection| it.progress.is_busy.load(Ordering::Relaxed);
        let busy: Vec<bool> = self.open.iter().map(is_busy).collect();
        if let Some(index) = to_close(&busy, CONNECTIONS) {
            self.open.remove(index).task.abort();
        }
        let progress = Arc::new(ConnectionProgress::default());
        let of_task = Arc::clone(&progress);
        let task = tokio::spawn(async move {
            // Whoever hangs up early, or is too slow, has no use for an error.
            tokio::select! {
                () = answer_all(stream, answer, &of_task) => {}
                () = run_out(&of_task) => {}
            }
        });
        self.open.push(OpenConnection { task: task.abort_handle(), progress });
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

/// Waits until a connection's time is up.
async fn run_out(progress: &ConnectionProgress) {
    sleep(CONNECTION_TIME).await;
    if progress.is_lasting.load(Ordering::Relaxed) {
        sleep(LASTING_TIME).await;
    }
}

async fn answer_all<A, F, B>(stream: TcpStream, answer: A, progress: &ConnectionProgress)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error = Infallible> + 'static,
{
    let came_to = stream.local_addr().ok();
    let service = service_fn(|mut request: Request<Incoming>| {
        progress.is_busy.store(true, Ordering::Relaxed);
        if let Some(came_to) = came_to {
            request.extensions_mut().insert(CameTo(came_to));
        }
        let answer = answer(request);
        async move {
            let response = answer.await;
            let is_lasting = response.extensions().get::<Lasting>().is_some();
            progress.is_lasting.store(is_lasting, Ordering::Relaxed);
            Ok::<_, Infallible>(response)
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).keep_alive(false);
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

/// Whether a method only reads. (To HEAD, hyper leaves the body out.)
pub fn only_reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Refuses a method that does more than read.
pub fn refuse_method(kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, kind, body);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// An answer with a body of this type.
pub fn respond(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
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
