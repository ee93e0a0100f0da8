//! The page and its data over HTTP.
//!
//! The page has no login. So it is refused to a browser that was led here by another site's name
//! (DNS rebinding), nothing can be changed by it, and everything that it takes is bounded.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HOST, HeaderName, HeaderValue, IF_NONE_MATCH,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Request, Response, StatusCode};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;
use weir_common::datastore::DatastoreConfiguration;
use weir_common::ipam::history::{HistoryQuestion, answer};

use super::follow::{Notice, ShownCluster};
use super::model::{
    BadQuestion, BlockDocument, HistoryAnswer, ReachDocument, SearchDocument, checked, question,
};
use super::page;
use crate::http::{self, CameTo, Lasting, only_reads, refuse_method, respond};
use crate::recorded::RecordedHistory;

/// The most streams of events at once.
const STREAMS: usize = 32;

/// How often a stream on which nothing happens shows that it is there.
const STREAM_PULSE: Duration = Duration::from_secs(15);

/// The longest text after the question mark, in bytes.
const LONGEST_QUERY: usize = 1024;

const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";

type PageAnswer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What answers.
struct DashboardServer {
    subject: Arc<ShownCluster>,
    configuration: DatastoreConfiguration,
    page: Bytes,
    policy: HeaderValue,
    /// Tells the generations of this process from an earlier one's.
    began: i64,
    streams: Arc<Semaphore>,
    /// Held by the search that reads the history: it may be 60 MiB.
    history: Arc<Semaphore>,
}

/// Answers for ever; `configuration` leads to the datastore that is shown.
pub async fn serve(
    listener: TcpListener,
    subject: Arc<ShownCluster>,
    configuration: DatastoreConfiguration,
) {
    let policy = HeaderValue::from_str(&page::policy());
    let server = Arc::new(DashboardServer {
        subject,
        configuration,
        page: page::text().into(),
        // Visible ASCII.
        policy: policy.unwrap_or(HeaderValue::from_static("default-src 'none'")),
        began: Timestamp::now().as_millisecond(),
        streams: Arc::new(Semaphore::new(STREAMS)),
        history: Arc::new(Semaphore::new(1)),
    });
    http::serve(listener, move |request| {
        let server = Arc::clone(&server);
        async move { server.answer(request).await }
    })
    .await;
}

impl DashboardServer {
    async fn answer(&self, request: Request<Incoming>) -> PageAnswer {
        let mut answer = match self.dispatch(&request).await {
            Ok(answer) => answer,
            Err((status, BadQuestion(why))) => refuse(status, &why),
        };
        let headers = answer.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        for (name, value) in [
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
            (CACHE_CONTROL, "no-store"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        answer
    }

    async fn dispatch(
        &self,
        request: &Request<Incoming>,
    ) -> Result<PageAnswer, (StatusCode, BadQuestion)> {
        require_own_host(request)?;
        if !only_reads(request.method()) {
            let body = error_body("the dashboard only shows; ask by GET or HEAD");
            return Ok(refuse_method(JSON, body).map(BodyExt::boxed_unsync));
        }
        require_own_site(request)?;
        let query = request.uri().query().unwrap_or_default();
        if query.len() > LONGEST_QUERY {
            let told =
                format!("the query has {} bytes; write {LONGEST_QUERY} at most", query.len());
            return Err((StatusCode::URI_TOO_LONG, BadQuestion(told)));
        }
        let not_found = |refused| (StatusCode::NOT_FOUND, refused);
        match request.uri().path() {
            "/" => Ok(respond(StatusCode::OK, HTML, self.page.clone()).map(BodyExt::boxed_unsync)),
            "/api/state" => Ok(self.state(request)),
            "/api/events" => self.events(),
            "/api/block" => {
                let cidr = parameter(query, "cidr").unwrap_or_default();
                let block = BlockDocument::of(&cidr, &self.subject.knowledge().view);
                Ok(document(&block.map_err(not_found)?))
            }
            "/api/reach" => {
                let from = parameter(query, "from").filter(|from| !from.is_empty());
                let known = self.subject.knowledge();
                let here = known.around.here.as_deref();
                let reach = ReachDocument::of(from.as_deref(), here, &known.view);
                Ok(document(&reach.map_err(not_found)?))
            }
            "/api/search" => self.search(&parameter(query, "q").unwrap_or_default()).await,
            path => Err(not_found(BadQuestion(format!(
                "there is no {path}; try /, /api/state, /api/events, /api/block, /api/reach or \
                 /api/search"
            )))),
        }
    }

    fn state(&self, request: &Request<Incoming>) -> PageAnswer {
        let (generation, state) = self.subject.state(Timestamp::now());
        let tag = format!("\"{}-{generation}\"", self.began);
        let is_known = request.headers().get(IF_NONE_MATCH).is_some_and(|it| it == tag.as_str());
        let mut answer = match is_known {
            true => respond(StatusCode::NOT_MODIFIED, JSON, Bytes::new()),
            false => respond(StatusCode::OK, JSON, state),
        };
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            answer.headers_mut().insert(ETAG, tag);
        }
        answer.map(BodyExt::boxed_unsync)
    }

    async fn search(&self, query: &str) -> Result<PageAnswer, (StatusCode, BadQuestion)> {
        let refused = |refused| (StatusCode::BAD_REQUEST, refused);
        let asked = question(checked(query).map_err(refused)?);
        // Others wait; it is never closed. Reading goes on where the client hangs up.
        let permit = Arc::clone(&self.history).acquire_owned().await;
        let (configuration, runtime) = (self.configuration.clone(), Handle::current());
        let reading = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            runtime.block_on(history(&configuration, &asked))
        });
        let history = reading.await.unwrap_or_default();
        let known = self.subject.knowledge();
        let here = known.around.here.as_deref();
        let found = SearchDocument::of(query, here, &known.view, &history);
        Ok(document(&found.map_err(refused)?))
    }

    fn events(&self) -> Result<PageAnswer, (StatusCode, BadQuestion)> {
        let permit = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let told = format!("{STREAMS} pages are open already; close one, then load this again");
            (StatusCode::SERVICE_UNAVAILABLE, BadQuestion(told))
        })?;
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(tell(self.subject.notices(), sender, permit));
        let mut answer = respond(StatusCode::OK, "text/event-stream", Bytes::new())
            .map(|_| EventBody(receiver).boxed_unsync());
        answer.extensions_mut().insert(Lasting);
        Ok(answer)
    }
}

/// Tells a client of what changes, until it has gone.
async fn tell(
    mut notices: watch::Receiver<Notice>,
    sender: mpsc::Sender<Bytes>,
    _permit: OwnedSemaphorePermit,
) {
    loop {
        let event = event(&notices.borrow_and_update());
        if sender.send(event).await.is_err() {
            return;
        }
        loop {
            let changed = tokio::select! {
                () = sender.closed() => return,
                changed = timeout(STREAM_PULSE, notices.changed()) => changed,
            };
            match changed {
                Ok(Ok(())) => break,
                Ok(Err(_)) => return,
                Err(_) if sender.send(Bytes::from_static(b":\n\n")).await.is_err() => return,
                Err(_) => {}
            }
        }
    }
}

/// A notice as a stream has it. (JSON is one line.)
fn event(notice: &Notice) -> Bytes {
    let (name, data) = match &notice.offline {
        None => ("changed", json!({"generation": notice.generation})),
        Some(offline) => ("offline", json!({"since": offline.since, "error": offline.error})),
    };
    format!("event: {name}\ndata: {data}\n\n").into()
}

/// The body of a stream of events.
struct EventBody(mpsc::Receiver<Bytes>);

impl Body for EventBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// What is recorded on this node.
async fn history(configuration: &DatastoreConfiguration, asked: &HistoryQuestion) -> HistoryAnswer {
    match RecordedHistory::of(configuration).await {
        Ok(recorded) => {
            let tenures = answer(asked, recorded.records).tenures;
            HistoryAnswer { tenures, failure: None }
        }
        Err(reason) => HistoryAnswer {
            tenures: Vec::new(),
            failure: Some(format!("who had it before is not known: {reason}")),
        },
    }
}

/// Requires that the browser has asked for this machine by an address that it came to, or by
/// `localhost`. The port may be another one, as behind `ssh -L`.
fn require_own_host(request: &Request<Incoming>) -> Result<(), (StatusCode, BadQuestion)> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let came_to = request.extensions().get::<CameTo>().map(|it| it.0.ip());
    match came_to.is_some_and(|own| is_own(host, own)) {
        true => Ok(()),
        false => Err((
            StatusCode::MISDIRECTED_REQUEST,
            BadQuestion(format!(
                "host {host:?} is not the address that this page is served at; open it by that \
                 address, since by a name another site could read it"
            )),
        )),
    }
}

/// Requires that no other site has its reader's browser ask for data: it could not read them, but
/// make this work. Browsers tell so (Fetch Metadata); what else asks does not.
fn require_own_site(request: &Request<Incoming>) -> Result<(), (StatusCode, BadQuestion)> {
    let site = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
    let is_own = matches!(site, None | Some(b"same-origin" | b"none"));
    match is_own || request.uri().path() == "/" {
        true => Ok(()),
        false => {
            let told = "another site asked for this; open the page itself, at /".to_owned();
            Err((StatusCode::FORBIDDEN, BadQuestion(told)))
        }
    }
}

fn is_own(host: &str, own: IpAddr) -> bool {
    let own = own.to_canonical();
    let address = host.parse::<SocketAddr>().ok().map(|it| it.ip());
    let address = address.or_else(|| host.trim_matches(['[', ']']).parse().ok());
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    address == Some(own) || (name.eq_ignore_ascii_case("localhost") && own.is_loopback())
}

/// A parameter of a query, decoded; bytes that are not UTF-8 are replaced.
fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    // A form has spaces so.
    let value = value.replace('+', " ");
    Some(percent_decode_str(&value).decode_utf8_lossy().into_owned())
}

fn document(value: &impl Serialize) -> PageAnswer {
    // Plain data.
    let body = serde_json::to_vec(value).unwrap_or_default();
    respond(StatusCode::OK, JSON, body).map(BodyExt::boxed_unsync)
}

fn refuse(status: StatusCode, why: &str) -> PageAnswer {
    respond(status, JSON, error_body(why)).map(BodyExt::boxed_unsync)
}

fn error_body(why: &str) -> String {
    json!({ "error": why }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_are_listened_at_and_localhost_are_own() {
        let [v4, v6]: [IpAddr; 2] = ["127.0.0.1", "::1"].map(|it| it.parse().unwrap());
        for (host, own, expected) in [
            ("127.0.0.1:9092", v4, true),
            ("127.0.0.1", v4, true),
            ("localhost:8080", v4, true),
            ("LOCALHOST", v6, true),
            ("[::1]:9092", v6, true),
            ("[::1]", v6, true),
            ("127.0.0.2:9092", v4, false),
            ("evil.example:9092", v4, false),
            ("localhost.evil.example", v4, false),
            ("127.0.0.1.evil.example", v4, false),
            ("", v4, false),
            ("localhost", "192.0.2.1".parse().unwrap(), false),
            ("192.0.2.1:9092", "::ffff:192.0.2.1".parse().unwrap(), true),
        ] {
            assert_eq!(is_own(host, own), expected, "{host} at {own}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        for (query, expected) in [
            ("q=a%2Fb+c&x=1", Some("a/b c")),
            ("x=1&q=%E4%BD%A0", Some("你")),
            ("q=%", Some("%")),
            ("q=%zz%4", Some("%zz%4")),
            ("q=%ff", Some("\u{fffd}")),
            ("q", Some("")),
            ("p=q", None),
        ] {
            assert_eq!(parameter(query, "q").as_deref(), expected, "{query}");
        }
    }
}
