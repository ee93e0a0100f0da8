//! What an address is for.

use super::block::ATTRIBUTE_INTERFACE;
use crate::resources::AllowedUse;
use crate::tunnel::TunnelKind;

/// The key under which an allocation's attributes say what it is, when it is no
/// container's (`libcalico-go/lib/ipam/ipam_types.go`).
pub const ATTRIBUTE_TYPE: &str = "type";

/// What an address is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A container's interface of this name.
    Interface(String),
    /// The node's own tunnel device of this kind.
    Tunnel(TunnelKind),
}

impl Purpose {
    /// The interface within the container; empty when there is none.
    pub fn interface(&self) -> &str {
        match self {
            Self::Interface(name) => name,
            Self::Tunnel(_) => "",
        }
    }

    /// What a pool must allow.
    pub fn allowed_use(&self) -> AllowedUse {
        match self {
            Self::Interface(_) => AllowedUse::Workload,
            Self::Tunnel(_) => AllowedUse::Tunnel,
        }
    }

    /// What an allocation's attributes say of it: key and value.
    pub(super) fn fact(&self) -> (String, String) {
        let (key, value) = match self {
            Self::Interface(name) => (ATTRIBUTE_INTERFACE, name.as_str()),
            Self::Tunnel(kind) => (ATTRIBUTE_TYPE, kind.row().attribute_type),
        };
        (key.to_owned(), value.to_owned())
    }
}
