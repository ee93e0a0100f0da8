//! Why a call of dockerd's fails: what a user reads behind `Error response from daemon:`.

use weir_common::error_chain;
use weir_common::link::InvalidMac;
use weir_common::network::{InvalidAttachment, InvalidIdentity};
use weir_ipam::WiringError;
use weir_kernel::ApplyError;
use weir_process::LockError;

/// A call that fails: what failed, on what value, what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DriverError(String);

impl DriverError {
    /// A failure in words.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// A failure caused by this error, with all its causes.
    pub fn caused_by(error: &dyn std::error::Error) -> Self {
        Self(error_chain(error))
    }
}

macro_rules! caused_by {
    ($($error:ty),*) => {$(
        impl From<$error> for DriverError {
            fn from(error: $error) -> Self {
                Self::caused_by(&error)
            }
        }
    )*};
}

caused_by!(
    weir_kernel::Error,
    WiringError,
    LockError,
    InvalidAttachment,
    InvalidIdentity,
    InvalidMac
);

impl From<Box<ApplyError>> for DriverError {
    fn from(error: Box<ApplyError>) -> Self {
        Self(format!("{error} (failed at: {})", error.step))
    }
}

impl From<weir_common::cni::Error> for DriverError {
    fn from(error: weir_common::cni::Error) -> Self {
        let details = Some(error.details).filter(|details| !details.is_empty());
        Self(error.message + &details.map(|it| format!("; {it}")).unwrap_or_default())
    }
}
