//! Affinities: which host a block belongs to.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Where a claim or a release of a block stands
/// (`libcalico-go/lib/backend/model/block_affinity.go`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AffinityState {
    /// The block is the host's.
    #[default]
    #[serde(rename = "confirmed", alias = "")]
    Confirmed,
    /// The host is about to claim the block.
    #[serde(rename = "pending")]
    Pending,
    /// The host is about to give the block back.
    #[serde(rename = "pendingDeletion")]
    PendingDeletion,
}

/// The value of an affinity's key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Affinity {
    /// Where the claim stands; an absent or empty state is a confirmed one.
    #[serde(default)]
    pub state: AffinityState,
    /// Set while Calico removes the key; Weir removes it at once.
    #[serde(default)]
    pub deleted: bool,
    /// Fields Weir does not know, kept as they are.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Affinity {
    /// Reads a stored affinity. An empty value is a confirmed one.
    ///
    /// # Errors
    /// When the value is not an affinity's JSON.
    pub fn from_json(value: &[u8]) -> Result<Self, serde_json::Error> {
        if value.is_empty() { Ok(Self::default()) } else { serde_json::from_slice(value) }
    }

    /// The value to store.
    pub fn to_json(&self) -> Vec<u8> {
        super::to_json(self)
    }

    /// The same affinity, confirmed.
    pub fn confirmed(&self) -> Self {
        Self { state: AffinityState::Confirmed, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form_calico_wrote() {
        for value in ["", "{}", r#"{"state":""}"#, r#"{"state":"confirmed","deleted":false}"#] {
            let affinity = Affinity::from_json(value.as_bytes()).unwrap();
            assert_eq!(affinity.state, AffinityState::Confirmed, "{value:?}");
        }
        assert!(Affinity::from_json(br#"{"state":"maybe"}"#).is_err());
    }

    #[test]
    fn confirming_keeps_unknown_fields() {
        let value = br#"{"state":"pending","deleted":false,"since":7}"#;
        let affinity = Affinity::from_json(value).unwrap().confirmed();
        assert_eq!(
            String::from_utf8(affinity.to_json()).unwrap(),
            r#"{"state":"confirmed","deleted":false,"since":7}"#
        );
    }
}
