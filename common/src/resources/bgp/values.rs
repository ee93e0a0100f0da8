//! Values that several of the BGP resources have.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a password is found; never the password itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretReference {
    /// The name of the secret.
    pub name: String,
    /// The key in it.
    pub key: String,
}

impl fmt::Display for SecretReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.name, self.key)
    }
}

/// How quickly a peer that is gone is noticed (RFC 5880): the annotation `weir/bfd`, as
/// `300ms*3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bfd {
    /// The interval between packets in milliseconds, 10 to 60000.
    pub interval: u32,
    /// How many may be missing, 2 to 100.
    pub multiplier: u8,
}

impl FromStr for Bfd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (interval, multiplier) = text.split_once('*')?;
            let interval = interval.strip_suffix("ms")?.parse().ok()?;
            Some(Self { interval, multiplier: multiplier.parse().ok()? })
        };
        let in_range = |bfd: &Self| {
            (10..=60_000).contains(&bfd.interval) && (2..=100).contains(&bfd.multiplier)
        };
        read().filter(in_range).ok_or_else(|| {
            "must be an interval of 10ms to 60000ms and a multiplier of 2 to 100, as 300ms*3"
                .to_owned()
        })
    }
}

impl fmt::Display for Bfd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}ms*{}", self.interval, self.multiplier)
    }
}

/// What BIRD logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogSeverity {
    /// Nothing.
    None,
    /// Everything.
    Debug,
    /// Information and what is worse.
    #[default]
    Info,
    /// Warnings and what is worse.
    Warning,
    /// Errors and what is worse.
    Error,
    /// What ends the daemon.
    Fatal,
}
