//! STATUS: would the next ADD get an address?

use ipnet::IpNet;
use jiff::Timestamp;
use weir_common::cni::skeleton::Call;
use weir_common::cni::{Code, Error, IpamConfiguration};
use weir_common::datastore::Datastore;
use weir_common::ipam::collect::Scope;
use weir_common::ipam::explain::explain;
use weir_common::ipam::{Error as IpamError, Memo};
use weir_process::{block_on, boot_id, within_turn};

use crate::sweep::sweep;
use crate::{host, lock};

/// Makes the decision that an ADD on this node would make, and stops before it is
/// carried out.
pub fn status(call: &Call) -> Result<(), Error> {
    let ipam = call.configuration.require_ipam()?;
    let host = host(call)?;
    let datastore = call.configuration.datastore.clone()?;
    let look = async {
        let datastore = weir_datastore::open(&datastore).await?;
        Ok(foresee(call, ipam, &host, datastore.as_ref()).await?)
    };
    block_on(within_turn("looking for a free address", look))
        .map_err(|error| Error { code: Code::NotAvailable, ..error })
}

/// Full of what a reboot left is not full. No ADD may come to give it back while
/// this says that there is no address, so it is done here.
async fn foresee(
    call: &Call,
    ipam: &IpamConfiguration,
    host: &str,
    datastore: &dyn Datastore,
) -> Result<(), IpamError> {
    match would_add(ipam, host, datastore).await {
        Err(IpamError::Exhausted { .. }) => {
            let lock = lock(ipam);
            let mut memo = Memo::read(&lock.memo(), boot_id().as_deref());
            sweep(call, host, datastore, Scope::AllBlocks, (&lock, &mut memo)).await;
            would_add(ipam, host, datastore).await
        }
        outcome => outcome,
    }
}

async fn would_add(
    ipam: &IpamConfiguration,
    host: &str,
    datastore: &dyn Datastore,
) -> Result<(), IpamError> {
    let gateways = ipam.gateways.iter().map(IpNet::addr).collect();
    let now = Timestamp::now();
    let explanation = explain(datastore, host, ipam.wants.clone(), gateways, now).await?;
    explanation.outcome.map(|_| ())
}
