//! BIRD 2 as the BGP daemon of a node, kept by Weir's agent.
//!
//! What it is told is decided and printed in `weir_common::network` ([`BirdConfiguration`]).
//! Here are the edges: its control socket ([`Client`], with [`Reply`] and what is read of it), the
//! passwords of sessions in files ([`read_passwords`]), and its process, which [`keep`] starts,
//! adopts, configures and stops. `docs/bgp.md` gives the reasons.
//!
//! [`BirdConfiguration`]: weir_common::network::BirdConfiguration

mod client;
mod decision;
mod passwords;
mod place;
mod process;
mod reply;
mod report;
mod status;
mod supervisor;

pub use client::{Client, ClientError, Confirmation};
pub use passwords::{PASSWORD_FOLDER, PasswordError, read_passwords};
pub use place::Place;
pub use reply::{Reply, ReplyError, ReplyLine};
pub use report::DaemonReport;
pub use status::{BgpState, ChannelStatus, DaemonStatus, ProtocolState, ProtocolStatus, protocols};
pub use supervisor::{BirdSettings, keep};
