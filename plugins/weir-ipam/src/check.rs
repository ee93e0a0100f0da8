//! CHECK: the addresses of ADD's result must still be the attachment's.

use weir_common::cni::{Error, assignee_of, check_held};
use weir_common::ipam::engine;
use weir_process::within_ipam;

use crate::Ipam;

impl Ipam<'_> {
    /// Compares the result of ADD with what is allocated to the attachment.
    ///
    /// # Errors
    /// [`Code::CheckFailed`](weir_common::cni::Code::CheckFailed) when an address is not;
    /// the datastore cannot be asked.
    pub async fn check(&self) -> Result<(), Error> {
        let result = self.call.configuration.require_prev_result()?;
        let assignee = assignee_of(self.call, &self.node.name, self.machine.clone());
        let looking = async { Ok(engine::lookup(self.datastore.as_ref(), &assignee).await?) };
        let held = within_ipam("looking the addresses up", self.limit, looking).await?;
        check_held(self.call, result, &assignee, &held)
    }
}
