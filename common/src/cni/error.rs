//! Errors as the runtime gets them. The numbers of the CNI error codes are given
//! here and nowhere else, and so are the codes of what goes wrong in this crate;
//! those of the kernel's errors are in `plugins/weir/src/failure.rs`.

use serde_json::{Value, json};

use crate::{datastore, ipam};

/// The error codes of the specification (spec: "Error"), and Weir's own from 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The configuration's version is not supported, or too old for the command.
    IncompatibleVersion,
    /// A key of the configuration has a value that Weir does not support.
    UnsupportedField,
    /// A variable is missing or invalid.
    InvalidEnvironment,
    /// Something could not be read or written.
    Io,
    /// JSON could not be decoded.
    Decode,
    /// The network configuration is invalid.
    InvalidConfiguration,
    /// The container's network namespace cannot be used; a code of skel, not of the specification.
    InvalidNamespace,
    /// The same call may succeed later.
    TryAgainLater,
    /// STATUS: an ADD would fail.
    NotAvailable,
    /// STATUS: containers that are attached have lost some of their connectivity.
    LimitedConnectivity,
    /// Weir failed in a way that should not happen.
    Internal,
    /// No pool or no address is left for the attachment.
    NoAddress,
    /// An address that was asked for cannot be given.
    AddressRefused,
    /// A stored value cannot be used.
    Malformed,
    /// The container has an interface of this name already.
    InterfaceExists,
    /// The kernel refused a step.
    Kernel,
    /// The delegated plugin failed without saying how.
    Delegate,
    /// CHECK found that the attachment is not as ADD made it.
    CheckFailed,
    /// A code that a delegated plugin gave; it is passed on.
    Delegated(u32),
}

impl Code {
    /// The number.
    pub fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::InvalidConfiguration => 7,
            Self::InvalidNamespace => 8,
            Self::TryAgainLater => 11,
            Self::NotAvailable => 50,
            Self::LimitedConnectivity => 51,
            Self::Internal => 100,
            Self::NoAddress => 101,
            Self::AddressRefused => 102,
            Self::Malformed => 103,
            Self::InterfaceExists => 104,
            Self::Kernel => 105,
            Self::Delegate => 106,
            Self::CheckFailed => 107,
            Self::Delegated(number) => number,
        }
    }
}

/// What the runtime is told when a call fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of failure it is.
    pub code: Code,
    /// What failed, on what value, and what to do next.
    pub message: String,
    /// Causes and particulars.
    pub details: String,
}

impl Error {
    /// An error without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// The same error with details.
    pub fn with_details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// An error with this code, worded by `error`, its causes as details.
    pub fn caused(code: Code, error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source());
        let details: Vec<String> = causes.map(ToString::to_string).collect();
        Self::new(code, error.to_string()).with_details(details.join(": "))
    }

    /// All that went wrong in a call that went on after errors, as one: the first
    /// one's code, and every message; `None` when nothing did.
    pub fn joined(errors: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut errors = errors.into_iter();
        let mut joined = errors.next()?;
        for Self { code: _, message, details } in errors {
            joined.message = format!("{}; and: {message}", joined.message);
            let both = [joined.details, details].into_iter().filter(|text| !text.is_empty());
            joined.details = both.collect::<Vec<_>>().join("; and: ");
        }
        Some(joined)
    }

    /// The error as JSON of this `cniVersion`.
    pub fn to_json(&self, version: &str) -> Value {
        let mut json = json!({
            "cniVersion": version,
            "code": self.code.number(),
            "msg": self.message,
        });
        if !self.details.is_empty() {
            json["details"] = Value::from(self.details.clone());
        }
        json
    }

    /// Understands the error JSON of a delegated plugin; `None` when it is none.
    pub fn parse(json: &Value) -> Option<Self> {
        let code = u32::try_from(json.get("code")?.as_u64()?).ok()?;
        let text = |key| json.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        (code != 0).then(|| Self {
            code: Code::Delegated(code),
            message: text("msg"),
            details: text("details"),
        })
    }
}

impl From<ipam::Error> for Error {
    fn from(error: ipam::Error) -> Self {
        let code = match &error {
            ipam::Error::NoPool(_)
            | ipam::Error::NoPoolForNode { .. }
            | ipam::Error::Exhausted { .. } => Code::NoAddress,
            ipam::Error::UnknownPool { .. } | ipam::Error::UnusablePool { .. } => {
                Code::InvalidConfiguration
            }
            ipam::Error::OutsidePools { .. }
            | ipam::Error::Taken { .. }
            | ipam::Error::Withheld { .. }
            | ipam::Error::OtherHost { .. }
            | ipam::Error::HoldsOther { .. }
            | ipam::Error::NotHandedOver { .. } => Code::AddressRefused,
            ipam::Error::NotReady | ipam::Error::Contended { .. } => Code::TryAgainLater,
            ipam::Error::Malformed { .. } => Code::Malformed,
            ipam::Error::Probe(_) => Code::Kernel,
            ipam::Error::Datastore(error) => code_of_datastore(error),
        };
        Self::caused(code, &error)
    }
}

impl From<datastore::Error> for Error {
    fn from(error: datastore::Error) -> Self {
        Self::caused(code_of_datastore(&error), &error)
    }
}

fn code_of_datastore(error: &datastore::Error) -> Code {
    match error {
        datastore::Error::Unavailable { .. }
        | datastore::Error::Unwritable { .. }
        | datastore::Error::NotPermitted { .. }
        | datastore::Error::Compacted { .. } => Code::TryAgainLater,
        datastore::Error::Denied { .. } | datastore::Error::Misconfigured { .. } => {
            Code::InvalidConfiguration
        }
        datastore::Error::Failed { .. } => Code::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_become_details() {
        let cause = std::io::Error::other("connection refused");
        let error = ipam::Error::Datastore(datastore::Error::Unavailable {
            location: "http://127.0.0.1:1".to_owned(),
            cause: Box::new(cause),
        });
        let json = Error::from(error).to_json("1.0.0");
        assert_eq!(json["code"], 11);
        assert_eq!(json["details"], "connection refused");
        assert!(json["msg"].as_str().unwrap().contains("http://127.0.0.1:1"));
    }

    #[test]
    fn several_errors_become_one() {
        assert_eq!(Error::joined([]), None);
        let first = Error::new(Code::Kernel, "no link").with_details("EPERM");
        assert_eq!(Error::joined([first.clone()]), Some(first.clone()));
        let others =
            [Error::new(Code::Io, "no file"), Error::new(Code::Io, "no disk").with_details("EIO")];
        let joined = Error::joined([first].into_iter().chain(others)).unwrap();
        assert_eq!(joined.code, Code::Kernel);
        assert_eq!(joined.message, "no link; and: no file; and: no disk");
        assert_eq!(joined.details, "EPERM; and: EIO");
    }

    #[test]
    fn a_delegates_code_is_passed_on() {
        let json = json!({"cniVersion": "1.0.0", "code": 11, "msg": "later"});
        let error = Error::parse(&json).unwrap();
        assert_eq!((error.code.number(), error.message.as_str()), (11, "later"));
        assert_eq!(Error::parse(&json!({"ips": []})), None);
        assert_eq!(Error::parse(&json!({"code": 0})), None);
    }
}
