//! DEL: give an attachment's addresses back.

use std::net::IpAddr;

use weir_common::cni::{Error, assignee_of, leaving_of};
use weir_common::ipam::engine;
use weir_process::within_ipam;

use crate::Ipam;

impl Ipam<'_> {
    /// Releases all addresses of the call's attachment, and those that its container has from
    /// Calico 2's time, and answers which; none is not an error.
    ///
    /// # Errors
    /// See [`weir_common::ipam::Error`]; the host's lock cannot be had; time is up.
    pub async fn del(&self) -> Result<Vec<IpAddr>, Error> {
        let assignee = assignee_of(self.call, &self.node.name, self.machine.clone());
        let _lock = self.lock().await?;
        let leaving = leaving_of(self.call, &assignee);
        let datastore = self.datastore.as_ref();
        let releasing = async { Ok(engine::release(datastore, &assignee, &leaving).await?) };
        let released = within_ipam("releasing addresses", self.limit, releasing).await?;
        for released in &released {
            tracing::debug!(address = %released.address, handle = assignee.handle_id, "released");
        }
        Ok(released.into_iter().map(|released| released.address).collect())
    }
}
