//! dockerd's calls over HTTP on unix sockets.
//!
//! Whoever can open a socket can send anything: bodies are bounded, each call has a time limit,
//! and what is not a call is answered with what is wrong with it.

use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method as HttpMethod, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use weir_process::DEADLINE;

use super::driver::Driver;
use super::error::DriverError;
use super::front::Front;
use super::protocol::{Method, Refusal};
use crate::http::{self, ACCEPT_PAUSE, HEADER_TIME};

/// The largest body of a call, in bytes: a thousand published ports take less.
const MAX_BODY: usize = 1 << 20;

/// How long the body of a call may take.
const BODY_TIME: Duration = Duration::from_secs(5);

/// The type of answers (docker's plugin API).
const CONTENT: &str = "application/vnd.docker.plugins.v1.1+json";

/// Whether the driver is about to end. Each connection and each call holds one, so that the
/// sender knows when the last of them has come to its end.
pub type Ending = watch::Receiver<bool>;

/// Answers on a socket until the driver ends.
pub async fn serve(listener: UnixListener, front: Front, driver: Rc<Driver>, mut ending: Ending) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ending.wait_for(|ending| *ending) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = answer_all(stream, front, Rc::clone(&driver), ending.clone());
                tokio::task::spawn_local(connection);
            }
            // Others go on, and so will this.
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Answers the calls of a connection. When the driver ends, the one that is at work is answered.
async fn answer_all(stream: UnixStream, front: Front, driver: Rc<Driver>, mut ending: Ending) {
    let held = ending.clone();
    let service = service_fn(|request| {
        let (driver, held) = (Rc::clone(&driver), held.clone());
        async move { Ok::<_, Infallible>(answer(request, front, &driver, held).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    // Whoever hangs up early has no use for an error.
    tokio::select! {
        _ = connection.as_mut() => {}
        _ = ending.wait_for(|ending| *ending) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    front: Front,
    driver: &Rc<Driver>,
    held: Ending,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let method = Method::of_path(&path).filter(|(_, interface)| {
        interface.is_none_or(|interface| front.interfaces().contains(&interface))
    });
    let Some((method, _)) = method else {
        let told = format!("driver {} has no call {path}", front.name());
        return refuse(StatusCode::NOT_FOUND, told);
    };
    if *request.method() != HttpMethod::POST {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, format!("{path} is called by POST"));
    }
    let body = match timeout(BODY_TIME, Limited::new(request.into_body(), MAX_BODY).collect()).await
    {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) => {
            let told = format!("the body of {path} cannot be read: {error}");
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, told);
        }
        Err(_) => {
            let told = format!("the body of {path} took longer than {} s", BODY_TIME.as_secs());
            return refuse(StatusCode::REQUEST_TIMEOUT, told);
        }
    };
    // A task of its own: a call that has begun comes to its end also where dockerd hangs up.
    let driver = Rc::clone(driver);
    let began = Instant::now();
    let called = tokio::task::spawn_local(async move {
        let _held = held;
        driver.answer(method, front, &body).await
    });
    let answer = within(DEADLINE, called).await;
    let (call, took) = (path.trim_start_matches('/'), began.elapsed());
    match answer {
        Ok(answer) => {
            tracing::debug!(call, ?took, driver = front.name(), "answered");
            respond(StatusCode::OK, &answer)
        }
        Err(error) => {
            tracing::warn!(call, ?took, driver = front.name(), %error, "refused");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
    }
}

/// What a call is answered. One that is still at work when its time is up is cut off, as if the
/// driver were killed: what it holds is free for others.
async fn within<T>(
    limit: Duration,
    mut called: JoinHandle<Result<T, DriverError>>,
) -> Result<T, DriverError> {
    match timeout(limit, &mut called).await {
        Ok(answer) => answer.unwrap_or_else(|error| Err(DriverError::caused_by(&error))),
        Err(_) => {
            called.abort();
            Err(DriverError::new(format!(
                "it took longer than {} s and is cut off; try again, and see the driver's log \
                 (journalctl -u weir-docker)",
                limit.as_secs()
            )))
        }
    }
}

fn refuse(status: StatusCode, err: String) -> Response<Full<Bytes>> {
    respond(status, &Refusal { err })
}

fn respond(status: StatusCode, answer: &impl Serialize) -> Response<Full<Bytes>> {
    // Plain data.
    http::respond(status, CONTENT, serde_json::to_vec(answer).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_call_that_takes_too_long_is_cut_off_and_holds_nothing() {
        let quick = tokio::spawn(async { Ok(7) });
        assert_eq!(within(DEADLINE, quick).await.unwrap(), 7);
        let (held, free) = oneshot::channel::<()>();
        let endless = tokio::spawn(async move {
            let _held = held;
            std::future::pending().await
        });
        let error = within::<()>(Duration::from_millis(1), endless).await.unwrap_err();
        assert!(error.to_string().contains("cut off"), "{error}");
        assert!(free.await.is_err(), "dropped");
    }
}
