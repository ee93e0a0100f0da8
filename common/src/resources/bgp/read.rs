//! What the fields of several of the BGP resources have in common.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use jiff::SignedDuration;

use super::community::Community;
use super::values::{Bfd, SecretReference};
use crate::resources::cidr;
use crate::resources::error::FieldError;
use crate::resources::fields::{Fields, Problems, is_subdomain};

/// How long routes of a peer that restarts may be kept: RFC 4724, section 3, has 12 bits.
pub(super) const RESTART_SECONDS: RangeInclusive<i64> = 1..=4095;

/// How often peers may be told that this one is alive: three of these are the hold time, for
/// which RFC 4271, section 4.2, has 16 bits.
pub(super) const KEEPALIVE_SECONDS: RangeInclusive<i64> = 1..=21845;

/// The longest name of an interface, in bytes.
const LONGEST_INTERFACE: usize = 15;

/// Reads a duration as Go writes it (`2m0s`), which has to be whole seconds in this range.
pub(super) fn seconds(
    spec: &Fields<'_>,
    key: &str,
    display: &str,
    range: RangeInclusive<i64>,
    problems: &mut Problems,
) -> Option<u32> {
    let text = spec.text(key, display, problems)?;
    // The library reads other forms as well (`2 minutes`, `PT2M`), which Go does not.
    let is_gos = text.bytes().all(|byte| byte.is_ascii_digit() || b".hmsun".contains(&byte));
    let duration = text.parse::<SignedDuration>().ok().filter(|_| is_gos);
    let seconds = duration.filter(|it| it.subsec_nanos() == 0).map(|it| it.as_secs());
    let fitting = seconds.filter(|it| range.contains(it)).and_then(|it| u32::try_from(it).ok());
    if fitting.is_none() {
        let reason =
            format!("must be a time of whole seconds, {}s to {}s", range.start(), range.end());
        problems.add(
            FieldError::new(spec.path(display), reason)
                .value(text)
                .advice("write it with its units, as 2m0s or 90s"),
        );
    }
    fitting
}

/// Reads where a password is. Name and key become parts of a file's path.
pub(super) fn secret(
    spec: &Fields<'_>,
    key: &str,
    display: &str,
    problems: &mut Problems,
) -> Option<SecretReference> {
    if !spec.is_set(key) {
        return None;
    }
    let password = spec.object(key, display, problems);
    let reference = password.object("secretKeyRef", "SecretKeyRef", problems);
    let mut part = |key: &str, display: &str, is_good: fn(&str) -> bool| {
        let text = reference.text(key, display, problems);
        let good = text.filter(|text| is_good(text));
        if good.is_none() {
            let reason = "must be the name of a secret and of a key in it, of letters, digits, \
                          '-', '_' and '.'";
            let problem = FieldError::new(reference.path(display), reason);
            problems.add(match text {
                Some(text) => problem.value(text),
                None => problem,
            });
        }
        good.map(str::to_owned)
    };
    let name = part("name", "Name", is_subdomain);
    let key = part("key", "Key", is_secret_key);
    Some(SecretReference { name: name?, key: key? })
}

/// Whether a key may stand in a secret (Kubernetes' `IsConfigMapKey`).
fn is_secret_key(key: &str) -> bool {
    key.len() <= 253
        && !key.starts_with("..")
        && key != "."
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Checks a pattern of interfaces, which becomes text of BIRD's configuration.
pub(super) fn interface(pattern: &str, path: String, problems: &mut Problems) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-:@*".contains(&byte);
    let is_good = (1..=LONGEST_INTERFACE).contains(&pattern.len()) && pattern.bytes().all(allowed);
    if !is_good {
        let reason = "must be the name of an interface of at most 15 letters, digits, '_', '.', \
                      '-', ':' and '@', in which '*' stands for any text";
        problems.add(FieldError::new(path, reason).value(pattern).advice("write it as eth*"));
    }
    is_good.then(|| pattern.to_owned())
}

/// Reads a range in field `cidr`; host bits are dropped.
pub(super) fn range(object: &Fields<'_>, problems: &mut Problems) -> Option<IpNet> {
    let text = object.text("cidr", "CIDR", problems)?;
    let range = cidr::parse_range(text);
    range
        .map_err(|why| {
            problems.add(
                FieldError::new(object.path("CIDR"), "must be a CIDR")
                    .value(text)
                    .advice(why.advice("write for example 10.1.0.0/16")),
            );
        })
        .ok()
}

/// Reads an address of one machine in field `key`.
pub(super) fn address(
    spec: &Fields<'_>,
    key: &str,
    display: &str,
    problems: &mut Problems,
) -> Option<IpAddr> {
    let address = spec.parsed(key, display, "must be an IP address", problems)?;
    check_address(address, spec.path(display), problems)
}

/// Refuses what no BGP peer can have for its address.
pub(super) fn check_address(
    address: IpAddr,
    path: String,
    problems: &mut Problems,
) -> Option<IpAddr> {
    let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let is_mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    let reason = if address.is_unspecified() || address.is_multicast() || is_mapped {
        "must be the address of one machine"
    } else if is_link_local {
        "must be an address that is good on every link, not one in fe80::/10"
    } else {
        return Some(address);
    };
    problems.add(FieldError::new(path, reason).value(address));
    None
}

/// Reads a community.
pub(super) fn community(text: &str, path: String, problems: &mut Problems) -> Option<Community> {
    let community = text.parse();
    community
        .map_err(|_| {
            let reason = "must be a community, aa:nn (16 bits each) or aa:nn:mm (32 bits each)";
            problems.add(FieldError::new(path, reason).value(text));
        })
        .ok()
}

/// Annotations of Weir's own.
pub(super) struct Annotations<'a>(Fields<'a>);

impl<'a> Annotations<'a> {
    pub(super) fn of(resource: &Fields<'a>, problems: &mut Problems) -> Self {
        let metadata = resource.object("metadata", "Metadata", problems);
        Self(metadata.object("annotations", "Annotations", problems))
    }

    /// How quickly a lost peer is noticed (`weir/bfd`).
    pub(super) fn bfd(&self, problems: &mut Problems) -> Option<Bfd> {
        let text = self.0.text("weir/bfd", "weir/bfd", problems)?;
        let bfd = text.parse::<Bfd>();
        bfd.map_err(|reason| {
            problems.add(FieldError::new(self.0.path("weir/bfd"), reason).value(text));
        })
        .ok()
    }

    /// Whether the annotation `key` says true.
    pub(super) fn flag(&self, key: &str, problems: &mut Problems) -> bool {
        self.0.word(key, key, &[("true", true), ("false", false)], problems).unwrap_or(false)
    }
}
