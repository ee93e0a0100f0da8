//! Reading CIDRs as Calico does.

use std::net::IpAddr;

use ipnet::IpNet;

/// Why a text is not a CIDR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoCidr {
    /// It is none in any reading.
    Malformed,
    /// Its numbers have leading zeros; this is what was likely meant.
    LeadingZeros(IpNet),
    /// It is an IPv4 range written as IPv6.
    Ipv4InIpv6(IpNet),
}

impl NoCidr {
    /// What to do about it; `example` is what to write instead of what is none at all.
    pub(super) fn advice(&self, example: &str) -> String {
        match self {
            Self::Malformed => example.to_owned(),
            Self::LeadingZeros(meant) => {
                format!("write its numbers without leading zeros, for example {meant}")
            }
            Self::Ipv4InIpv6(meant) => format!("write it as IPv4, for example {meant}"),
        }
    }
}

/// Reads a CIDR, whose host bits stay as they are written.
///
/// Go's `net.ParseCIDR`, which Calico reads with, refuses leading zeros since 1.17: other
/// programs take such numbers as octal. An IPv4 address in IPv6 would be of neither family.
///
/// # Errors
/// [`NoCidr`].
pub(super) fn parse(text: &str) -> Result<IpNet, NoCidr> {
    let (address, _) = text.split_once('/').ok_or(NoCidr::Malformed)?;
    let cidr: IpNet = text.parse().map_err(|_| NoCidr::Malformed)?;
    // The library takes leading zeros, the standard one does not.
    if address.parse::<IpAddr>().is_err() {
        return Err(NoCidr::LeadingZeros(cidr));
    }
    match as_ipv4(cidr) {
        Some(meant) => Err(NoCidr::Ipv4InIpv6(meant)),
        None => Ok(cidr),
    }
}

/// Reads a CIDR, or an address as the range of it alone. Host bits are dropped, as Calico
/// does when it uses a range.
///
/// # Errors
/// [`NoCidr`].
pub(super) fn parse_range(text: &str) -> Result<IpNet, NoCidr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    parse(text).map(|cidr| cidr.trunc())
}

/// The IPv4 range that stands in `::ffff:0:0/96` (RFC 4291, 2.5.5.2).
fn as_ipv4(cidr: IpNet) -> Option<IpNet> {
    let IpNet::V6(cidr) = cidr else { return None };
    let address = cidr.addr().to_ipv4_mapped()?;
    let length = cidr.prefix_len().checked_sub(96)?;
    IpNet::new(address.into(), length).ok()
}

/// Whether two networks have an address in common.
pub fn overlap(left: IpNet, right: IpNet) -> bool {
    left.contains(&right) || right.contains(&left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cidrs_are_read_as_go_reads_them() {
        for text in ["10.33.0.0/16", "10.0.0.1/8", "fd00:0010::/64", "0.0.0.0/0", "::/0"] {
            assert_eq!(parse(text), Ok(text.parse().unwrap()), "{text}");
        }
        let zeros = NoCidr::LeadingZeros("10.33.0.0/16".parse().unwrap());
        assert_eq!(parse("010.33.0.0/16"), Err(zeros));
        let mapped = NoCidr::Ipv4InIpv6("10.3.0.0/16".parse().unwrap());
        assert_eq!(parse("::ffff:10.3.0.0/112"), Err(mapped));
        for text in ["", "10.0.0.0", "10.0.0/8", "10.0.0.0/33", "x/8"] {
            assert_eq!(parse(text), Err(NoCidr::Malformed), "{text}");
        }
    }
}
