//! BGP as operators configure it: Calico's BGPConfiguration, BGPPeer and BGPFilter, validated.
//!
//! What they mean for a node is decided in `network/cluster/bgp`.

mod community;
mod configuration;
mod filter;
mod peer;
mod values;

pub use community::{Community, NoCommunity};
pub use configuration::{BgpConfiguration, PrefixAdvertisement};
pub use filter::{
    BgpFilter, FilterAction, FilterOperation, FilterRule, PeerType, PrefixMatch, PrefixOperator,
};
pub use peer::{BgpPeer, NextHopMode, PeerNodes, PeerTarget};
pub use values::{Bfd, LogSeverity, SecretReference};
