//! Single values.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::Deserialize;

use super::super::error::{Code, Error};
use crate::link::{InvalidMac, MAXIMUM_MTU, MINIMUM_MTU_V4, MacAddress, SourceCheck};
use crate::resources::parse_cidr;

/// A boolean, which Calico writes as text.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "it is neither true or false nor a text of these")]
pub(super) enum Flag {
    Boolean(bool),
    Text(String),
}

pub(super) fn invalid(key: &str, value: &str, advice: &str) -> Error {
    Error::new(Code::InvalidConfiguration, format!("{key} {value:?} is invalid: {advice}"))
}

pub(super) fn unsupported(key: &str, value: &str, advice: &str) -> Error {
    let message = format!("{key} {value:?} is not supported; {advice}");
    Error::new(Code::UnsupportedField, message)
}

pub(super) fn read_flag(key: &str, flag: &Option<Flag>, default: bool) -> Result<bool, Error> {
    match flag {
        None => Ok(default),
        Some(Flag::Boolean(value)) => Ok(*value),
        Some(Flag::Text(text)) => match text.to_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(invalid(key, text, "write \"true\" or \"false\"")),
        },
    }
}

/// Refuses a path that depends on the directory that the runtime is in; an empty one is none.
pub(super) fn absolute(key: &str, path: Option<&Path>) -> Result<Option<PathBuf>, Error> {
    match path.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) if !path.is_absolute() => {
            let path = path.display().to_string();
            Err(invalid(key, &path, "write a path that begins with '/'"))
        }
        path => Ok(path.map(Path::to_owned)),
    }
}

/// An address, with or without a prefix length.
pub(super) fn parse_address(key: &str, text: &str) -> Result<IpAddr, Error> {
    let text = text.trim();
    let address = parse_cidr(text).map(|cidr| cidr.addr());
    address
        .or_else(|_| text.parse())
        .map_err(|_| invalid(key, text, "write an address, for example 10.0.0.7"))
}

/// A range of addresses, or one address.
pub(super) fn parse_prefix(key: &str, text: &str) -> Result<IpNet, Error> {
    let prefix = parse_cidr(text).or_else(|_| text.parse().map(|it: IpAddr| it.into()));
    let advice = "write a range of addresses, for example 10.0.0.0/24, or one address";
    let prefix = prefix.map_err(|_| invalid(key, text, advice))?;
    match prefix.trunc() {
        range if range == prefix => Ok(prefix),
        range => {
            let advice = format!("write the range {range} or the address {}", prefix.addr());
            Err(invalid(key, text, &advice))
        }
    }
}

pub(super) fn parse_mac(key: &str, text: &str) -> Result<MacAddress, Error> {
    text.parse().map_err(|error: InvalidMac| invalid(key, text, error.reason))
}

pub(super) fn source_check(written: Option<&str>) -> Result<SourceCheck, Error> {
    match written {
        None | Some("strict") => Ok(SourceCheck::Strict),
        Some("off") => Ok(SourceCheck::Off),
        Some(other) => Err(invalid("source_check", other, "write \"strict\" or \"off\"")),
    }
}

pub(super) fn check_mtu(mtu: Option<i64>) -> Result<Option<u32>, Error> {
    let allowed = MINIMUM_MTU_V4..=MAXIMUM_MTU;
    match mtu {
        None | Some(0) => Ok(None),
        Some(mtu) => match u32::try_from(mtu) {
            Ok(mtu) if allowed.contains(&mtu) => Ok(Some(mtu)),
            _ => Err(invalid(
                "mtu",
                &mtu.to_string(),
                &format!(
                    "write {MINIMUM_MTU_V4} to {MAXIMUM_MTU}, or leave it out to take the node's"
                ),
            )),
        },
    }
}
