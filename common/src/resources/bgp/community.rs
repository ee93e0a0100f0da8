//! BGP communities.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A BGP community.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Community {
    /// `aa:nn`, 16 bits each (RFC 1997).
    Standard(u16, u16),
    /// `aa:nn:mm`, 32 bits each (RFC 8092).
    Large(u32, u32, u32),
}

/// A text that is not a community.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a community; write aa:nn (16 bits each) or aa:nn:mm (32 bits each)")]
pub struct NoCommunity(String);

impl FromStr for Community {
    type Err = NoCommunity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split(':').collect();
        let has_digits_only = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
        let read = || match parts[..] {
            [high, low] => Some(Self::Standard(high.parse().ok()?, low.parse().ok()?)),
            [one, two, three] => {
                Some(Self::Large(one.parse().ok()?, two.parse().ok()?, three.parse().ok()?))
            }
            _ => None,
        };
        let is_plain = parts.iter().all(has_digits_only);
        is_plain.then(read).flatten().ok_or_else(|| NoCommunity(text.to_owned()))
    }
}

impl fmt::Display for Community {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(high, low) => write!(formatter, "{high}:{low}"),
            Self::Large(one, two, three) => write!(formatter, "{one}:{two}:{three}"),
        }
    }
}

impl TryFrom<String> for Community {
    type Error = NoCommunity;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Community> for String {
    fn from(community: Community) -> Self {
        community.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_nothing_else() {
        for text in ["64512:120", "0:0", "4294967295:1:2"] {
            assert_eq!(text.parse::<Community>().unwrap().to_string(), text);
        }
        for text in ["", "1", "65536:1", "1:2:3:4", "+1:2", "a:b", "1: 2", "4294967296:1:1"] {
            assert!(text.parse::<Community>().is_err(), "{text}");
        }
    }
}
