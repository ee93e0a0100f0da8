//! How to find a node's address: the text that says so.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use regex_lite::Regex;

/// A way to find a node's address, as Calico's `IP_AUTODETECTION_METHOD` has
/// them (`node/pkg/lifecycle/startup/autodetection/autodetection_methods.go`),
/// or the address itself.
#[derive(Clone, Debug)]
pub enum AutodetectionMethod {
    /// `first-found`: of any interface but those that are known to be internal.
    FirstFound,
    /// `can-reach=ADDRESS`: that which the kernel sends from to this address.
    CanReach(IpAddr),
    /// `interface=REGEX,…`: of an interface whose name one of these matches.
    Interface(NamePatterns),
    /// `skip-interface=REGEX,…`: as `first-found`, but of no interface whose
    /// name one of these matches.
    SkipInterface(NamePatterns),
    /// `cidr=CIDR,…`: one in one of these ranges.
    Cidr(Vec<IpNet>),
    /// This very address; without a prefix length it gets that of the interface
    /// which has it.
    Address(IpAddr, Option<u8>),
}

/// Regular expressions for names of interfaces. They match anywhere in a name
/// unless anchored (`^eth0$`).
#[derive(Clone, Debug)]
pub struct NamePatterns(Vec<Regex>);

impl NamePatterns {
    /// Whether one of them matches.
    pub fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.is_match(name))
    }
}

/// A text that is not a method.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} does not say how to find the node's address: {reason}")]
pub struct InvalidMethod {
    /// The text.
    pub text: String,
    /// What is wrong with it, and what to write.
    pub reason: String,
}

/// What may be written.
const FORMS: &str = "write first-found, can-reach=ADDRESS, interface=REGEX, \
                     skip-interface=REGEX, cidr=CIDR, or an address as 172.16.1.11/24";

impl FromStr for AutodetectionMethod {
    type Err = InvalidMethod;

    fn from_str(text: &str) -> Result<Self, InvalidMethod> {
        let text = text.trim();
        let parsed = match text.split_once('=') {
            None if text == "first-found" => Ok(Self::FirstFound),
            None if text.starts_with("kubernetes-internal-ip") => {
                Err(format!("Weir does not ask Kubernetes; {FORMS}"))
            }
            None => parse_address(text),
            Some(("can-reach", address)) => parse_destination(address),
            Some(("interface", patterns)) => parse_patterns(patterns).map(Self::Interface),
            Some(("skip-interface", patterns)) => parse_patterns(patterns).map(Self::SkipInterface),
            Some(("cidr", ranges)) => parse_ranges(ranges).map(Self::Cidr),
            Some((other, _)) => Err(format!("there is no method {other}; {FORMS}")),
        };
        parsed.map_err(|reason| InvalidMethod { text: text.to_owned(), reason })
    }
}

fn parse_address(text: &str) -> Result<AutodetectionMethod, String> {
    let (address, length) = match text.parse::<IpNet>() {
        Ok(address) => (address.addr(), Some(address.prefix_len())),
        Err(_) => (text.parse().map_err(|_| FORMS.to_owned())?, None),
    };
    if super::is_global_unicast(address) {
        Ok(AutodetectionMethod::Address(address, length))
    } else {
        Err(format!("other nodes cannot reach {address}; give one of this node's own addresses"))
    }
}

/// A name is refused: which address a node has must not depend on what a name
/// server answers when the node starts.
fn parse_destination(text: &str) -> Result<AutodetectionMethod, String> {
    let address = text.trim().parse();
    address.map(AutodetectionMethod::CanReach).map_err(|_| {
        format!("{text:?} is not an IP address; names are not looked up, write can-reach=192.0.2.1")
    })
}

fn parse_patterns(text: &str) -> Result<NamePatterns, String> {
    let compiled = items(text).map(|pattern| match pattern {
        "" => Err("a name is missing; write for example interface=eth0,ens.*".to_owned()),
        pattern => Regex::new(pattern).map_err(|error| {
            format!("{pattern:?} is not a regular expression ({error}); write for example eth.*")
        }),
    });
    compiled.collect::<Result<_, _>>().map(NamePatterns)
}

fn parse_ranges(text: &str) -> Result<Vec<IpNet>, String> {
    let parsed = items(text).map(|range| {
        let range: Result<IpNet, _> = range.parse();
        range.map_err(|_| format!("{text:?} is not a list of ranges; write cidr=172.16.0.0/16"))
    });
    parsed.collect()
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

impl fmt::Display for AutodetectionMethod {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstFound => formatter.write_str("first-found"),
            Self::CanReach(address) => write!(formatter, "can-reach={address}"),
            Self::Interface(patterns) => write!(formatter, "interface={patterns}"),
            Self::SkipInterface(patterns) => write!(formatter, "skip-interface={patterns}"),
            Self::Cidr(ranges) => {
                let ranges: Vec<String> = ranges.iter().map(IpNet::to_string).collect();
                write!(formatter, "cidr={}", ranges.join(","))
            }
            Self::Address(address, None) => address.fmt(formatter),
            Self::Address(address, Some(length)) => write!(formatter, "{address}/{length}"),
        }
    }
}

impl fmt::Display for NamePatterns {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns: Vec<&str> = self.0.iter().map(Regex::as_str).collect();
        formatter.write_str(&patterns.join(","))
    }
}
