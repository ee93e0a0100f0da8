//! Handles: which blocks hold the addresses of one container.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The value of a handle's key: how many addresses it has in which block
/// (`libcalico-go/lib/backend/model/ipam_handle.go`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Handle {
    /// Addresses by block, the block in CIDR notation.
    #[serde(default)]
    pub block: BTreeMap<String, u64>,
    /// Set while Calico removes the key; Weir removes it at once.
    #[serde(default)]
    pub deleted: bool,
    /// Fields Weir does not know, kept as they are.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Handle {
    /// Reads a stored handle.
    ///
    /// # Errors
    /// When the value is not a handle's JSON, or names a block that is no CIDR, or
    /// is one in another form than [`Handle::set`] writes.
    pub fn from_json(value: &[u8]) -> Result<Self, serde_json::Error> {
        let handle: Self = serde_json::from_slice(value)?;
        let is_cidr = |text: &String| {
            text.parse::<IpNet>().is_ok_and(|cidr| cidr.trunc().to_string() == *text)
        };
        match handle.block.keys().find(|block| !is_cidr(block)) {
            None => Ok(handle),
            Some(block) => Err(serde::de::Error::custom(format!("block {block:?} is not a CIDR"))),
        }
    }

    /// The value to store.
    pub fn to_json(&self) -> Vec<u8> {
        super::to_json(self)
    }

    /// The blocks that hold addresses of this handle.
    pub fn blocks(&self) -> impl Iterator<Item = IpNet> {
        self.block.keys().filter_map(|block| block.parse().ok())
    }

    /// Says that `block` holds `count` addresses of this handle; with none,
    /// the block is forgotten.
    pub fn set(&mut self, block: IpNet, count: u64) {
        if count == 0 {
            self.block.remove(&block.to_string());
        } else {
            self.block.insert(block.to_string(), count);
        }
    }

    /// Whether no block holds an address of this handle.
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_come_and_go() {
        let block: IpNet = "10.0.0.0/26".parse().unwrap();
        let mut handle = Handle::default();
        handle.set(block, 2);
        assert_eq!(
            String::from_utf8(handle.to_json()).unwrap(),
            r#"{"block":{"10.0.0.0/26":2},"deleted":false}"#
        );
        assert_eq!(handle.blocks().collect::<Vec<_>>(), [block]);
        handle.set(block, 0);
        assert!(handle.is_empty());
    }

    #[test]
    fn a_block_that_is_no_cidr_is_refused() {
        for block in ["ten", "10.0.0.1/26", "fd00:0::/122"] {
            let value = format!(r#"{{"block":{{"{block}":1}}}}"#);
            let error = Handle::from_json(value.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(&format!("{block:?}")), "{error}");
        }
    }
}
