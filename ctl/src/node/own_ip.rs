//! How the agent finds its node's address, by the settings of calico/node
//! (`node/pkg/lifecycle/startup/startup.go`, configureIPsAndSubnets).

use weir_common::ipam::Family;
use weir_common::network::AutodetectionMethod;
use weir_common::node::Detection;

use crate::session::{Failure, chain};

/// How an address of this family is found; `None` where it is left as it is. `ip` is the
/// address itself, `autodetect` (by the method at every start) or `none`; without it, it is
/// found by `method`, and without that, for IPv4, as [`Detection::keeps_registered`] says.
///
/// # Errors
/// [`Failure`] naming the flag, its value and what to write.
pub fn detection(
    family: Family,
    ip: Option<&str>,
    method: Option<&str>,
) -> Result<Option<Detection>, Failure> {
    let (ip_flag, method_flag) = match family {
        Family::V4 => ("ip", "ip-autodetection-method"),
        Family::V6 => ("ip6", "ip6-autodetection-method"),
    };
    match (ip, method) {
        (Some("none"), _) | (None, Some("none")) => Ok(None),
        (Some("autodetect"), Some("none") | None) => {
            Ok(Some(always(AutodetectionMethod::FirstFound)))
        }
        (None | Some("autodetect"), Some(text)) => parse(method_flag, text).map(always).map(Some),
        (Some(text), _) => match text.parse() {
            Ok(AutodetectionMethod::Address(address, length)) if Family::of(address) == family => {
                Ok(Some(always(AutodetectionMethod::Address(address, length))))
            }
            _ => Err(Failure::new(format!(
                "--{ip_flag} {text} is not an {family} address; write one, with or without its \
                 prefix length, or autodetect, or none; a method goes into --{method_flag}"
            ))),
        },
        (None, None) => Ok((family == Family::V4).then_some(Detection {
            method: AutodetectionMethod::FirstFound,
            keeps_registered: true,
        })),
    }
}

fn always(method: AutodetectionMethod) -> Detection {
    Detection { method, keeps_registered: false }
}

fn parse(flag: &str, text: &str) -> Result<AutodetectionMethod, Failure> {
    text.parse().map_err(|error| Failure::new(format!("--{flag} {text}: {}", chain(&error))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The method, in words, with `kept` where a registered address comes first.
    fn found(family: Family, ip: Option<&str>, method: Option<&str>) -> String {
        match detection(family, ip, method) {
            Ok(Some(it)) if it.keeps_registered => format!("{}, kept", it.method),
            Ok(Some(it)) => it.method.to_string(),
            Ok(None) => "none".to_owned(),
            Err(failure) => failure.message,
        }
    }

    #[test]
    fn calicos_settings_have_calicos_meaning() {
        let (auto, can_reach) = (Some("autodetect"), Some("can-reach=192.0.2.1"));
        let cases = [
            (None, None, "first-found, kept", "none"),
            (None, can_reach, "can-reach=192.0.2.1", "can-reach=192.0.2.1"),
            (None, Some("none"), "none", "none"),
            (auto, None, "first-found", "first-found"),
            (auto, can_reach, "can-reach=192.0.2.1", "can-reach=192.0.2.1"),
            (Some("none"), can_reach, "none", "none"),
        ];
        for (ip, method, ipv4, ipv6) in cases {
            assert_eq!(found(Family::V4, ip, method), ipv4, "{ip:?}, {method:?}");
            assert_eq!(found(Family::V6, ip, method), ipv6, "{ip:?}, {method:?}");
        }
        for address in ["172.16.1.11", "172.16.1.11/24"] {
            assert_eq!(found(Family::V4, Some(address), can_reach), address);
        }
        assert_eq!(found(Family::V6, Some("fd00::1/64"), None), "fd00::1/64");
    }

    #[test]
    fn what_is_not_an_address_of_the_family_is_refused() {
        for (ip, words) in [("fd00::1", "not an IPv4 address"), ("interface=eth0", "goes into")] {
            let told = found(Family::V4, Some(ip), None);
            assert!(told.contains("--ip ") && told.contains(words), "{told}");
        }
        assert!(found(Family::V6, Some("172.16.1.11"), None).contains("not an IPv6 address"));
        assert!(found(Family::V4, Some("auto-detect"), None).contains("--ip auto-detect"));
    }
}
