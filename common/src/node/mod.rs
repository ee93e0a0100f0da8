//! What a node writes about itself in the datastore: its addresses in its Node resource,
//! in Calico's form, and the address of its tunnel device; and when they change.
//!
//! Others write to the same resource (people its labels and AS number, Calico
//! fields of its own), so only what differs is changed and everything else kept.
//! `docs/registration.md` gives the reasons.

mod error;
mod own_address;
mod register;
mod stored;
mod tunnel_address;
mod tunnel_handle;

pub use error::Error;
pub use own_address::{AddressDecision, Detection, GRACE_TIME, OwnAddress};
pub use register::{NodeAddresses, register};
pub use tunnel_address::{
    LocalFacts, TunnelOutcome, ensure_tunnel_address, lacks_tunnel_address,
    reconcile_tunnel_address, release_tunnel_address,
};
pub use tunnel_handle::{TUNNEL_HANDLES, forget_tunnel_addresses, held_tunnels, is_tunnel_address};
