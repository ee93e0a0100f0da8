//! Looking addresses up on the network around a node.

use std::net::IpAddr;

use async_trait::async_trait;

use super::error::Error;
use super::reserved::Reserved;

/// Tells which addresses are in use on the network around a node.
#[async_trait]
pub trait AddressProbe: Send + Sync {
    /// Everything that is reserved around the node, if any of these addresses may be; nothing
    /// in the usual case, where the node's routes know none of them.
    ///
    /// # Errors
    /// [`Error::Probe`] when the node cannot be asked; [`Error::Datastore`].
    async fn reserved_near(&self, addresses: &[IpAddr]) -> Result<Vec<Reserved>, Error>;
}
