//! BIRD 2 as the BGP daemon of a node, kept by Weir's agent.
//!
//! What it is told is decided and printed in `weir_common::network` ([`BirdConfiguration`]).
//! Here are the edges: its control socket ([`Client`], with [`Reply`] and what is read of it), the
//! passwords of sessions in files ([`read_passwords`]).
//!
//! [`BirdConfiguration`]: weir_common::network::BirdConfiguration

mod client;
mod passwords;
mod reply;
mod status;

pub use client::{Client, ClientError, Confirmation};
pub use passwords::{PASSWORD_FOLDER, PasswordError, read_passwords};
pub use reply::{Reply, ReplyError, ReplyLine};
pub use status::{BgpState, ChannelStatus, DaemonStatus, ProtocolState, ProtocolStatus, protocols};
