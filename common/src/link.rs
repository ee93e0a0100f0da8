//! What an interface can be given: its hardware address, its MTU, and the check of its
//! sources.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The MTU where the node tells nothing, in bytes: Ethernet's.
pub const DEFAULT_MTU: u32 = 1500;

/// What a container may give as the source of its packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceCheck {
    /// Its own addresses only: those that the node routes to it.
    #[default]
    Strict,
    /// Any address.
    Off,
}

/// The group of the host ends whose containers may send from any address
/// ([`SourceCheck::Off`]); "free" in ASCII. `ip link show group` lists them.
pub const UNCHECKED_GROUP: u32 = u32::from_be_bytes(*b"free");

/// The smallest MTU of an interface with IPv4 (RFC 791), in bytes.
pub const MINIMUM_MTU_V4: u32 = 68;
/// The smallest MTU of an interface with IPv6 (RFC 8200, section 5), in bytes:
/// the kernel takes IPv6 off a smaller one.
pub const MINIMUM_MTU_V6: u32 = 1280;
/// The largest MTU of a veth, in bytes (the kernel's `ETH_MAX_MTU`).
pub const MAXIMUM_MTU: u32 = 65535;

/// An Ethernet hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MacAddress(pub [u8; 6]);

/// A text that is not a hardware address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("MAC address {text:?} cannot be used: {reason}")]
pub struct InvalidMac {
    /// The text as it was given.
    pub text: String,
    /// What is wrong with it and what is expected.
    pub reason: &'static str,
}

impl MacAddress {
    /// Whether an interface can carry it: neither a group address nor all
    /// zeroes (the kernel's `is_valid_ether_addr`).
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = InvalidMac;

    /// Reads `02:00:5e:10:00:01`, also with `-` between the bytes; refuses
    /// group addresses and all zeroes.
    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let invalid = |reason| InvalidMac { text: text.to_owned(), reason };
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            *byte = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit()))
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(|| invalid("write six bytes as 02:00:5e:10:00:01"))?;
        }
        if parts.next().is_some() {
            return Err(invalid("write six bytes as 02:00:5e:10:00:01"));
        }
        let address = Self(bytes);
        if !address.is_unicast() {
            return Err(invalid(
                "an interface needs a unicast address: the first byte even, not all bytes zero",
            ));
        }
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let address = MacAddress([0x02, 0, 0x5e, 0x10, 0, 0xff]);
        assert_eq!(address.to_string().parse(), Ok(address));
        assert_eq!("02-00-5E-10-00-FF".parse(), Ok(address));
    }

    #[test]
    fn refuses_what_no_interface_can_carry() {
        for text in ["", "02:00", "02:00:5e:10:00:01:02", "2:0:5e:10:0:1", "zz:00:5e:10:00:01"] {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
        assert!("01:00:5e:00:00:01".parse::<MacAddress>().is_err());
        assert!("00:00:00:00:00:00".parse::<MacAddress>().is_err());
        assert!("+2:00:5e:10:00:01".parse::<MacAddress>().is_err());
    }
}
