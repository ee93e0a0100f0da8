//! Where the addresses of a call come from.

use std::net::IpAddr;

use weir_common::cni::skeleton::Call;
use weir_common::cni::{AddResult, Error, assigned};
use weir_common::resources::IpPool;
use weir_ipam::Ipam;
use weir_process::Limit;

use crate::delegate::{Delegate, Running};
use crate::node::{ClusterReading, LocalNode};

/// The IPAM plugin whose work is done in this process.
const OWN_IPAM: &str = "weir-ipam";

/// Whether the addresses come from Weir's own IPAM.
pub fn is_own_ipam(call: &Call) -> bool {
    call.configuration.ipam.as_ref().is_some_and(|ipam| ipam.plugin == OWN_IPAM)
}

/// Where the addresses of a call come from.
pub enum IpamSource<'a> {
    /// Weir's own IPAM, in this process.
    Own,
    /// Another IPAM plugin, which is executed.
    Plugin(Delegate<'a>),
}

/// The addresses of an ADD, and what came with them.
pub struct Given<'a> {
    /// The IPAM's result.
    pub result: AddResult,
    /// All pools as they were at that moment; `None` under another IPAM plugin.
    pub pools: Option<Vec<IpPool>>,
    /// What there is in the cluster, where the node is to be brought up to date.
    pub cluster: Option<ClusterReading>,
    /// The other plugin, which may not have ended yet. Only then does its answer count.
    pub running: Option<Running<'a>>,
}

impl<'a> IpamSource<'a> {
    /// Finds it.
    ///
    /// # Errors
    /// There is no `ipam` section, or its plugin is not installed.
    pub fn find(call: &'a Call) -> Result<Self, Error> {
        let ipam = call.configuration.require_ipam()?;
        match is_own_ipam(call) {
            true => Ok(Self::Own),
            false => Delegate::find(call, ipam).map(Self::Plugin),
        }
    }

    /// Has addresses assigned; `node` says whether the cluster is to be looked at too.
    ///
    /// # Errors
    /// Those of the IPAM; there is no address in its result.
    pub async fn assign(
        &'a self,
        call: &Call,
        node: &LocalNode,
        limit: Limit,
    ) -> Result<Given<'a>, Error> {
        match self {
            Self::Own => assign(call, node, limit).await,
            Self::Plugin(delegate) => {
                let mut running = delegate.start("ADD", limit)?;
                let result = running.result(call).await?;
                Ok(Given { result, pools: None, cluster: None, running: Some(running) })
            }
        }
    }

    /// Has the addresses of the attachment released, and answers which: of another IPAM plugin
    /// those of the attachment's result, if the runtime knows it.
    ///
    /// # Errors
    /// Those of the IPAM.
    pub async fn release(&self, call: &Call, limit: Limit) -> Result<Vec<IpAddr>, Error> {
        match self {
            Self::Own => Ipam::open(call, limit).await?.del().await,
            Self::Plugin(delegate) => {
                delegate.run("DEL", limit).await?;
                let ips = call.configuration.prev_result.iter().flat_map(|result| &result.ips);
                Ok(ips.map(|ip| ip.address.addr()).collect())
            }
        }
    }

    /// Has the addresses of ADD's result checked.
    ///
    /// # Errors
    /// Those of the IPAM.
    pub async fn check(&self, call: &Call, limit: Limit) -> Result<(), Error> {
        match self {
            Self::Own => Ipam::open(call, limit).await?.check().await,
            Self::Plugin(delegate) => delegate.run("CHECK", limit).await,
        }
    }

    /// Asks whether the next ADD would get an address.
    ///
    /// # Errors
    /// Those of the IPAM.
    pub async fn status(&self, call: &Call, node: &LocalNode, limit: Limit) -> Result<(), Error> {
        match self {
            Self::Own => {
                node.require_agents_cluster_of(call, limit).await?;
                Ipam::status(call, limit).await
            }
            Self::Plugin(delegate) => delegate.run("STATUS", limit).await,
        }
    }
}

/// By Weir's own IPAM. Whether anything changed in the cluster is asked at the same time; a block
/// that this ADD has claimed may not have been seen by that.
async fn assign<'a>(call: &Call, node: &LocalNode, limit: Limit) -> Result<Given<'a>, Error> {
    let ipam = Ipam::open(call, limit).await?;
    node.require_agents_name(&ipam.node)?;
    let datastore = ipam.datastore.as_ref();
    node.require_agents_cluster(datastore).await?;
    let (added, outdated) = tokio::join!(ipam.add(), node.is_outdated(datastore));
    let added = added?;
    let is_due = outdated || added.from_other_block && node.is_outdated(datastore).await;
    let cluster = if is_due { node.read_cluster(&ipam, limit).await } else { None };
    let result = assigned(call.configuration.require_ipam()?, &added.assignment);
    // The process ends soon: the kernel then closes the datastore in less time than SQLite.
    std::mem::forget(ipam);
    Ok(Given { result, pools: Some(added.assignment.pools), cluster, running: None })
}
