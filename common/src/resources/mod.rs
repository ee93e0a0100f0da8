//! Pools, nodes, reservations and IPAM configuration.
//!
//! Every kind exists in two forms: as written (by people or in the datastore)
//! and as validated. [`IpPool`], [`Node`], [`IpReservation`], [`IpamConfig`]
//! and [`ClusterInformation`] are the validated ones; everything else in Weir
//! works with these and asks no further questions.

mod cluster_information;
mod error;
mod fields;
mod ipam_config;
mod node;
mod pool;
mod reservation;
pub mod selector;

pub use cluster_information::ClusterInformation;
pub use error::{Error, FieldError};
pub use ipam_config::IpamConfig;
pub use node::Node;
pub use pool::{
    AllowedUse, AssignmentMode, EncapsulationMode, IpPool, check_blocks, check_overlap,
    check_update,
};
pub use reservation::IpReservation;
pub use selector::{Selector, SelectorError};
