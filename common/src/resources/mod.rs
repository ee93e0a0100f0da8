//! Pools, nodes, reservations, IPAM configuration, BGP's resources and Felix's.
//!
//! Every kind exists in two forms: as written (by people or in the datastore)
//! and as validated. [`IpPool`], [`Node`], [`IpReservation`], [`IpamConfig`]
//! and [`ClusterInformation`] are the validated ones; everything else in Weir
//! works with these and asks no further questions.

mod as_number;
pub mod bgp;
mod cidr;
mod cluster_information;
pub mod document;
mod error;
mod felix_configuration;
mod fields;
mod ipam_config;
mod kind;
mod label;
mod metadata;
mod node;
mod patch;
mod pool;
mod reservation;
mod resource;
mod schema;
pub mod selector;
mod special;
mod types;
mod v1;

pub use as_number::{DEFAULT_AS_NUMBER, parse_as_number};
pub use cidr::overlap;
pub use cluster_information::ClusterInformation;
pub use document::DocumentError;
pub use error::{Error, FieldError};
pub use felix_configuration::{FelixConfiguration, LinkPattern};
pub(crate) use fields::type_name;
pub use ipam_config::IpamConfig;
pub use kind::{IPAM_CONFIG_NAME, Kind};
pub use label::{LabelChange, LabelError, LabelOutcome};
pub use node::{Node, NodeForRoutes};
pub use patch::{Patch, PatchError, PatchType};
pub use pool::{
    AllowedUse, AssignmentMode, EncapsulationMode, IpPool, check_blocks, check_overlap,
    check_range, check_update, parse_cidr,
};
pub use reservation::IpReservation;
pub use resource::{API_VERSION, Birth, Resource, escape_as_go, to_go_json};
pub use selector::{Selector, SelectorError};
pub use special::{is_link_local, special_ranges, unusual_ranges};
pub use v1::pool_name;

#[cfg(test)]
mod tests;
