//! One comparison of the kernel with a plan.

use std::collections::BTreeSet;

use weir_common::network::{Change, ClusterPlan, Problem, TunnelFilter, difference};

use crate::{Error, Kernel};

/// What a comparison came to.
#[derive(Debug, Default)]
pub struct Converged {
    /// What was asked of the kernel.
    pub changes: Vec<Change>,
    /// What it refused.
    pub failures: Vec<Error>,
    /// Where another program is in the way.
    pub problems: BTreeSet<Problem>,
}

impl Kernel {
    /// Makes tunnel device, its filter and the routes what `plan` says; not the
    /// NAT. A part that fails does not keep the others from being done.
    pub async fn converge(&self, plan: &ClusterPlan) -> Converged {
        let mut converged = Converged::default();
        let filter = plan.tunnel.as_ref().map(TunnelFilter::from_plan);
        // Before the tunnel is in service, lest it takes packets from anybody.
        converged.failures.extend(self.ensure_tunnel_filter(filter.as_ref()).err());
        let present = match self.cluster_present().await {
            Ok(present) => present,
            Err(error) => {
                converged.failures.push(error);
                return converged;
            }
        };
        let (changes, in_the_way) = difference(plan, &present);
        let refused = self.change(&changes).await;
        converged.failures.extend(refused.into_iter().map(|(_, error)| error));
        Converged { changes, problems: in_the_way, ..converged }
    }
}
