//! What a node writes about itself in the datastore: its Node resource, in
//! Calico's form, and the address of its tunnel device; and when it has another one.
//!
//! Others write to the same resource (people its labels and AS number, Calico
//! fields of its own), so only what differs is changed and everything else kept.
//! `docs/cluster.md` gives the reasons.

mod error;
mod own_address;
mod register;
mod settle;
mod standing;
mod stored;
mod tunnel;
mod tunnel_address;

pub use error::Error;
pub use own_address::{Detection, GRACE_TIME, OwnAddress, Verdict};
pub use register::{NodeAddresses, register};
pub use settle::{Settled, settle_tunnel_address};
pub use standing::{Standing, lacks_tunnel_address};
pub use tunnel::{TUNNEL_HANDLES, forget_tunnel_addresses, is_tunnel_address, tunnel_handle_id};
pub use tunnel_address::{ensure_tunnel_address, release_tunnel_address};
