//! What etcd's answers mean: try elsewhere, or give up, and why.

use std::error::Error as StdError;
use std::io::ErrorKind;
use std::time::Duration;

use etcd_client::Error as EtcdError;
use weir_common::datastore::Error;

use super::diagnose::Disagreement;

/// Numbers of gRPC's status codes (gRPC, "Status codes and their use").
const INVALID_ARGUMENT: i32 = 3;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const OUT_OF_RANGE: i32 = 11;
const UNAUTHENTICATED: i32 = 16;

/// Why one endpoint did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum EtcdFailure {
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("{}", describe(.0))]
    Answered(EtcdError),
    #[error(transparent)]
    Disagreement(Disagreement),
}

impl From<EtcdError> for EtcdFailure {
    fn from(error: EtcdError) -> Self {
        Self::Answered(error)
    }
}

impl EtcdFailure {
    /// Whether a connection was made, and ended in the middle: what it ended with says
    /// little.
    pub(super) fn is_of_connection(&self) -> bool {
        let mut cause = match self {
            Self::Answered(EtcdError::GRpcStatus(status)) => status.source(),
            Self::Answered(EtcdError::TransportError(error)) => error.source(),
            _ => None,
        };
        let is_one = cause.is_some();
        while let Some(error) = cause {
            let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            if matches!(kind, Some(ErrorKind::ConnectionRefused | ErrorKind::TimedOut)) {
                return false;
            }
            cause = error.source();
        }
        is_one
    }
}

/// Why etcd refused credentials.
#[derive(Debug, thiserror::Error)]
enum Denial {
    #[error("etcd wants a user and none is configured; set etcd_username and etcd_password")]
    NoUser(#[source] EtcdFailure),
    #[error("etcd knows no user {0:?} with this password; correct etcd_username or etcd_password")]
    WrongPassword(String, #[source] EtcdFailure),
}

/// The error for what etcd answered that it will not do, nor any other endpoint. Who asked,
/// and whether it was to write, decide what is missing.
pub(super) fn refused(
    failure: EtcdFailure,
    location: String,
    user: Option<&str>,
    writes: bool,
) -> Error {
    let text = failure.to_string();
    let says = |words: &str| text.contains(words);
    match user {
        _ if says("database space exceeded") => {
            Error::Unwritable { location, reason: no_space(&text) }
        }
        _ if says("permission denied") => {
            Error::NotPermitted { location, reason: no_permission(&text, user, writes) }
        }
        None if says("user name is empty") => {
            Error::Denied { location, cause: Box::new(Denial::NoUser(failure)) }
        }
        Some(user) if says("authentication failed") => {
            let denial = Denial::WrongPassword(user.to_owned(), failure);
            Error::Denied { location, cause: Box::new(denial) }
        }
        _ if judge(&failure) == RequestFate::Refused => {
            Error::Failed { location, cause: Box::new(failure) }
        }
        _ => Error::Denied { location, cause: Box::new(failure) },
    }
}

fn no_space(of_etcd: &str) -> String {
    format!(
        "it is full ({of_etcd}); see etcdctl alarm list, make room (etcdctl compact, then \
         etcdctl defrag on each member), and clear the alarm: etcdctl alarm disarm"
    )
}

fn no_permission(of_etcd: &str, user: Option<&str>, writes: bool) -> String {
    let user = user
        .map_or("the user of the client certificate".to_owned(), |user| format!("user {user:?}"));
    let (verb, permission) = if writes { ("write", "readwrite") } else { ("read", "read") };
    format!(
        "{user} may not {verb} these keys ({of_etcd}); grant it to a role of that user: etcdctl \
         role grant-permission ROLE --prefix=true {permission} /calico/"
    )
}

/// Why none of the endpoints did.
#[derive(Debug, thiserror::Error)]
#[error("{}", list(.0))]
pub(super) struct AllFailed(pub(super) Vec<(String, EtcdFailure)>);

/// What a failure means for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestFate {
    /// This endpoint is of no use now; another one may be.
    TryNext,
    /// The token has expired or the users have changed: log in again.
    LogInAgain,
    /// The credentials are wrong, or do not suffice.
    Denied,
    /// Every endpoint would refuse this request.
    Refused,
}

/// Judges by the codes and texts of etcd (`api/v3rpc/rpctypes/error.go`; 3.4
/// to 3.6 agree in those used here).
pub(super) fn judge(failure: &EtcdFailure) -> RequestFate {
    match failure {
        EtcdFailure::TimedOut(_) | EtcdFailure::Disagreement(_) => RequestFate::TryNext,
        EtcdFailure::Answered(error) => judge_answer(error),
    }
}

/// The same for what etcd or the connection to it said.
pub(super) fn judge_answer(error: &EtcdError) -> RequestFate {
    let (code, message) = match error {
        EtcdError::GRpcStatus(status) => (i32::from(status.code()), status.message()),
        // The reason of a cancelled watch comes without its code.
        EtcdError::WatchError(reason) => (0, reason.as_str()),
        EtcdError::Utf8Error(_) | EtcdError::Internal(_) => return RequestFate::Refused,
        _ => return RequestFate::TryNext,
    };
    let says = |text: &str| message.contains(text);
    if code == UNAUTHENTICATED || says("invalid auth token") || says("auth store is old") {
        return RequestFate::LogInAgain;
    }
    if code == PERMISSION_DENIED
        || says("permission denied")
        || says("authentication failed")
        || says("user name is empty")
    {
        return RequestFate::Denied;
    }
    match code {
        RESOURCE_EXHAUSTED if says("too many requests") => RequestFate::TryNext,
        INVALID_ARGUMENT | RESOURCE_EXHAUSTED | FAILED_PRECONDITION | OUT_OF_RANGE => {
            RequestFate::Refused
        }
        _ => RequestFate::TryNext,
    }
}

/// Whether a read went back behind what etcd remembers.
pub(super) fn is_compacted(error: &EtcdError) -> bool {
    says(error, OUT_OF_RANGE, "has been compacted")
}

/// Whether a read asked for a revision that etcd has forgotten or not come to.
pub(super) fn is_outside_history(error: &EtcdError) -> bool {
    is_compacted(error) || says(error, OUT_OF_RANGE, "is a future revision")
}

/// Whether a log-in failed only because this etcd has no users.
pub(super) fn needs_no_log_in(error: &EtcdError) -> bool {
    says(error, FAILED_PRECONDITION, "authentication is not enabled")
}

fn says(error: &EtcdError, code: i32, text: &str) -> bool {
    matches!(error, EtcdError::GRpcStatus(status)
        if i32::from(status.code()) == code && status.message().contains(text))
}

/// The error with its causes, which etcd-client's type does not hand out.
pub(super) fn describe(error: &EtcdError) -> String {
    let (mut text, mut cause) = match error {
        EtcdError::GRpcStatus(status) => (status.message().to_owned(), status.source()),
        EtcdError::TransportError(error) => (error.to_string(), error.source()),
        other => (other.to_string(), None),
    };
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

fn list(failures: &[(String, EtcdFailure)]) -> String {
    let each: Vec<_> =
        failures.iter().map(|(endpoint, failure)| format!("{endpoint}: {failure}")).collect();
    each.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cancelled(reason: &str) -> EtcdFailure {
        EtcdFailure::Answered(EtcdError::WatchError(reason.to_owned()))
    }

    #[test]
    fn a_cancelled_watch_is_judged_by_its_reason() {
        let cases = [
            ("etcdserver: permission denied", RequestFate::Denied),
            ("etcdserver: invalid auth token", RequestFate::LogInAgain),
            ("etcdserver: no leader", RequestFate::TryNext),
        ];
        for (reason, verdict) in cases {
            assert_eq!(judge(&cancelled(reason)), verdict, "{reason}");
        }
    }

    #[test]
    fn every_endpoint_is_named_with_its_cause() {
        let failures = AllFailed(vec![
            ("http://a:1".to_owned(), EtcdFailure::TimedOut(Duration::from_secs(5))),
            ("http://b:2".to_owned(), cancelled("no leader")),
        ]);
        let text = failures.to_string();
        assert!(text.contains("http://a:1: no answer within 5s; http://b:2: "), "{text}");
        assert!(text.contains("no leader"), "{text}");
    }
}
