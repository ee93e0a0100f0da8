//! Which machine an allocation belongs to.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

/// How many hexadecimal digits a machine's identity has.
const DIGITS: usize = 16;

/// The identity of a machine: 16 hexadecimal digits.
///
/// Two machines may run under one node name: a cloned disk, a reinstalled host, a slip in
/// a configuration. Allocations therefore record the machine beside the node's name, so
/// that neither frees the other's addresses. The digits are a hash: machine-id(5) asks
/// that the id itself is not shown to others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct MachineId(String);

impl MachineId {
    /// The identity that comes from a text which names the machine, such as the content
    /// of `/etc/machine-id`; space around it and the case of letters do not count.
    pub fn from_source(text: &str) -> Self {
        let digest = Sha1::digest(format!("weir:{}", text.trim().to_lowercase()));
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(digits[..DIGITS].to_owned())
    }

    /// Reads an identity as it is recorded; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == DIGITS && text.bytes().all(is_digit)).then(|| Self(text.to_owned()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for MachineId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is not {DIGITS} hexadecimal digits"))
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_back_and_nothing_else_is() {
        let id = MachineId::from_source("6a1f\n");
        assert_eq!(id, MachineId::from_source(" 6A1F"));
        assert_ne!(id, MachineId::from_source("6a1e"));
        assert_eq!(MachineId::parse(id.as_str()), Some(id));
        for text in ["", "6a1f", "0123456789abcdeg", "0123456789ABCDEF", "0123456789abcdef0"] {
            assert_eq!(MachineId::parse(text), None, "{text}");
        }
    }
}
