//! Why a pool is passed over.

use super::family::Family;
use crate::resources::AllowedUse;

/// Why a pool is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PassedOver {
    /// Something of it cannot be read.
    #[error("cannot be used: {0}")]
    Flawed(String),
    /// New addresses are switched off.
    #[error("is disabled")]
    Disabled,
    /// It has addresses of the other family.
    #[error("is not of family {0}")]
    OtherFamily(Family),
    /// It is meant for something else.
    #[error("is not allowed for {}s (allowedUses)", .0.to_string().to_lowercase())]
    NotFor(AllowedUse),
    /// It is used only when it is asked for.
    #[error("must be asked for by name (assignmentMode is Manual)")]
    Manual,
    /// It is for some namespaces only, whose labels Weir does not know.
    #[error("is for namespaces that match {0}, and must be asked for")]
    ForNamespaces(String),
    /// Its selector leaves this node out.
    #[error("does not select this node ({0})")]
    NotSelected(String),
}
