//! BGP as operators configure it: Calico's BGPConfiguration, BGPPeer, BGPFilter and
//! CalicoNodeStatus, validated.
//!
//! What they mean for a node is decided in `network/cluster/bgp`.

mod community;
mod configuration;
mod filter;
mod node_status;
mod peer;
mod read;
mod values;

pub use community::{Community, NoCommunity};
pub(super) use configuration::check_written as check_written_configuration;
pub use configuration::{BGP_DEFAULT_NAME, BgpConfiguration, PrefixAdvertisement};
pub use filter::{
    BgpFilter, FilterAction, FilterOperation, FilterRule, PeerType, PrefixMatch, PrefixOperator,
};
pub use node_status::{CalicoNodeStatus, StatusClass};
pub use peer::{BgpPeer, NextHopMode, PeerNodes, PeerTarget};
pub use values::{Bfd, LogSeverity, SecretReference};
