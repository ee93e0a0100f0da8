//! What of a plan BIRD's configuration cannot carry.

use std::net::IpAddr;

use crate::printable;
use crate::resources::bgp::SecretReference;

/// Something that was left out of BIRD's configuration, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum BirdProblem {
    /// A session without its password.
    #[error(
        "{resource}: no session with {peer}: its password {} is not there; put it in a file, see \
         docs/bgp.md", printable(&secret.to_string())
    )]
    NoPassword {
        /// What made the session.
        resource: String,
        /// The peer.
        peer: IpAddr,
        /// Where the password should be.
        secret: SecretReference,
    },
    /// A session with a password that BIRD cannot be told.
    #[error(
        "{resource}: no session with {peer}: BIRD cannot take its password {}; choose one of 1 to \
         80 bytes without control characters and \" on both sides", printable(&secret.to_string())
    )]
    UnusablePassword {
        /// What made the session.
        resource: String,
        /// The peer.
        peer: IpAddr,
        /// Where the password is.
        secret: SecretReference,
    },
    /// A session that BIRD cannot have.
    #[error("{resource}: no session with {peer}: {cause}")]
    UnusableSession {
        /// What made the session.
        resource: String,
        /// The peer.
        peer: IpAddr,
        /// What is wrong.
        cause: &'static str,
    },
    /// A session for which BFD is asked that cannot have it.
    #[error(
        "{resource}: no BFD with {peer}: it needs the address that this node speaks from; set \
         sourceAddress: UseNodeIP"
    )]
    NoBfd {
        /// What made the session.
        resource: String,
        /// The peer.
        peer: IpAddr,
    },
    /// A filter of which a rule cannot be said to BIRD.
    #[error(
        "BGPFilter {}: rule {rule} of {field} is not valid, so {field} rejects everything; mend \
         the rule",
        printable(filter)
    )]
    UnusableFilter {
        /// The filter.
        filter: String,
        /// The list of rules.
        field: &'static str,
        /// The number of the rule, from 1.
        rule: usize,
    },
    /// A pattern that is not one of interfaces.
    #[error(
        "BGPConfiguration: ignoredInterfaces has {}, which is not a pattern of interfaces; only \
         letters, digits and _ . - : @ * are",
        printable(pattern)
    )]
    UnusableInterface {
        /// The pattern.
        pattern: String,
    },
    /// A route to a peer by a router that cannot be one.
    #[error("a BGPPeer is reachableBy {via}, which cannot lead to {peer}; give a router's address")]
    UnusableRoute {
        /// The peer.
        peer: IpAddr,
        /// The router.
        via: IpAddr,
    },
}
