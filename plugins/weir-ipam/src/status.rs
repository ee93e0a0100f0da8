//! STATUS: would the next ADD get an address?

use std::net::IpAddr;

use jiff::Timestamp;
use weir_common::cni::skeleton::Call;
use weir_common::cni::{Code, Error};
use weir_common::ipam::assign::Request;
use weir_common::ipam::collect::CollectScope;
use weir_common::ipam::explain::{explain, newcomer};
use weir_common::ipam::{AddressProbe, Clash, Error as IpamError, Reserved, find_clash};
use weir_process::{HintsFile, Limit, within_ipam};

use crate::Ipam;
use crate::probe::NodeNetwork;

impl Ipam<'_> {
    /// Makes the decision that an ADD on this node would make, and stops before it is
    /// carried out.
    ///
    /// # Errors
    /// [`Code::NotAvailable`] when an ADD would fail; [`Code::LimitedConnectivity`] when the
    /// node's name is another machine's.
    pub async fn status(call: &Call, limit: Limit) -> Result<(), Error> {
        let looking = async {
            let ipam = Ipam::open(call, limit).await?;
            ipam.datastore.check_writable().await?;
            ipam.foresee().await?;
            let (datastore, machine) = (ipam.datastore.as_ref(), ipam.machine.as_ref());
            Ok(find_clash(datastore, &ipam.node.name, machine).await?)
        };
        let looking = within_ipam("looking for a free address", limit, looking);
        let clash = looking.await.map_err(|error| Error { code: Code::NotAvailable, ..error })?;
        let limited = |clash: Clash| Error::new(Code::LimitedConnectivity, clash.to_string());
        clash.map_or(Ok(()), |clash| Err(limited(clash)))
    }

    /// Full of what a reboot left is not full. No ADD may come to give it back while
    /// this says that there is no address, so it is done here.
    async fn foresee(&self) -> Result<(), Error> {
        let outcome = match self.would_add().await {
            Err(IpamError::Exhausted { .. }) => {
                let _lock = self.lock().await?;
                let mut file = HintsFile::read(self.lock_file());
                let mut hints = file.hints();
                self.sweep(CollectScope::AllBlocks, &mut hints).await;
                file.leave(&hints);
                self.would_add().await
            }
            outcome => outcome,
        };
        outcome.map_err(|error| self.error(error))
    }

    async fn would_add(&self) -> Result<(), IpamError> {
        let ipam = self.configuration;
        let datastore = self.datastore.as_ref();
        let network = NodeNetwork::of_call(datastore, self.call, &self.node.name)?;
        let foresee = async |reserved: Vec<Reserved>| {
            let gateways = ipam.gateways.clone();
            let request = Request { gateways, ..newcomer(&self.node.name, ipam.wants.clone()) };
            explain(datastore, &request, reserved, Timestamp::now()).await?.outcome
        };
        let next: Vec<IpAddr> = foresee(Vec::new()).await?.iter().map(|it| it.address).collect();
        let reserved = network.reserved_near(&next).await?;
        if !reserved.is_empty() {
            foresee(reserved).await?;
        }
        Ok(())
    }
}
