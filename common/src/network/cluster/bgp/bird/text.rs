//! BIRD's words for values.

use std::net::IpAddr;

use ipnet::IpNet;
use sha1::{Digest, Sha1};

/// The longest symbol that is made of a name; BIRD takes 64 characters.
const LONGEST_NAME: usize = 40;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BirdFamily {
    V4,
    V6,
}

impl BirdFamily {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// What names of this family end with.
    pub fn digit(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

/// Prefixes of a family, and what lies in them, as a set; `None` where there are none, which
/// BIRD has no set for.
pub fn prefix_set<'a>(
    family: BirdFamily,
    prefixes: impl IntoIterator<Item = &'a IpNet>,
) -> Option<String> {
    let of_family = prefixes.into_iter().filter(|it| BirdFamily::of(it.addr()) == family);
    let items: Vec<String> = of_family.map(|prefix| format!("{}+", prefix.trunc())).collect();
    (!items.is_empty()).then(|| format!("[ {} ]", items.join(", ")))
}

/// A name as part of a symbol, different for different names: letters and digits, the rest in
/// hexadecimal digits behind `_`; a long one as its digest.
pub fn symbol(name: &str) -> String {
    let mut symbol = String::new();
    for byte in name.bytes() {
        match byte.is_ascii_alphanumeric() {
            true => symbol.push(byte.into()),
            false => symbol.push_str(&format!("_{byte:02x}")),
        }
    }
    if symbol.len() <= LONGEST_NAME {
        return symbol;
    }
    // One more character than any other symbol has.
    Sha1::digest(name).iter().fold("_".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// Whether a text is a shell pattern of interfaces.
pub fn is_interface_pattern(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-:@*".contains(&byte);
    (1..=32).contains(&text.len()) && text.bytes().all(is_part)
}

/// Whether an address can be one of a peer or router; BIRD wants an interface with those of the
/// link.
pub fn is_unicast(address: IpAddr) -> bool {
    let is_of_no_host = match address {
        IpAddr::V4(it) => it.is_broadcast(),
        IpAddr::V6(it) => it.is_unicast_link_local() || it.to_ipv4_mapped().is_some(),
    };
    !is_of_no_host && !address.is_unspecified() && !address.is_multicast()
}
