//! What keeps an address from Docker's endpoints.

/// What keeps an address from an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandOverBarrier {
    /// No program has it.
    #[error(
        "it is assigned to no container; it was given by another IPAM driver, or given back \
         since: make the network with --ipam-driver weir, or start the container again"
    )]
    NotAssigned,
    /// Another program has it.
    #[error(
        "it is assigned to {0}, not to a container of Docker's; make the network with \
         --ipam-driver weir"
    )]
    NotDockers(String),
    /// Another node, or another machine of this node's name, has it.
    #[error("it is assigned to {0}, not on this machine; start the container again")]
    OfOtherNode(String),
    /// Another container has it.
    #[error("it is assigned to {0} already; start the container again")]
    OfOtherEndpoint(String),
    /// It is a network's gateway, or kept by `--aux-address`.
    #[error("a network keeps it (gateway or --aux-address); ask for another one")]
    OfNetwork,
}
