//! One comparison of the kernel with a plan.

use std::borrow::Cow;
use std::collections::BTreeSet;

use weir_common::network::{Change, ClusterPlan, Problem, TunnelFilter, difference};

use crate::{Error, Kernel};

/// What a comparison came to.
#[derive(Debug, Default)]
pub struct Converged {
    /// What was made in the kernel.
    pub changes: Vec<Change>,
    /// What it refused.
    pub failures: Vec<Error>,
    /// Where another program is in the way.
    pub problems: BTreeSet<Problem>,
}

impl Kernel {
    /// Makes tunnel device, its filter and the routes what `plan` says; not the
    /// NAT. A part that fails does not keep the others from being done.
    ///
    /// The filter comes before the tunnel is in service and goes after it, lest the
    /// tunnel takes packets from anybody. Without its filter a tunnel that is not
    /// in service yet stays out of it.
    pub async fn converge(&self, plan: &ClusterPlan) -> Converged {
        let mut converged = Converged::default();
        let present = match self.cluster_present().await {
            Ok(present) => present,
            Err(error) => {
                converged.failures.push(error);
                return converged;
            }
        };
        let filter = plan.tunnel.as_ref().map(TunnelFilter::from_plan);
        let mut plan = Cow::Borrowed(plan);
        if filter.is_some()
            && let Err(error) = self.ensure_tunnel_filter(filter.as_ref())
        {
            converged.failures.push(error);
            if !present.tunnel.as_ref().is_some_and(|tunnel| tunnel.claimed) {
                plan = Cow::Owned(plan.into_owned().without_tunnel());
            }
        }
        let (changes, in_the_way) = difference(&plan, &present);
        let run = self.run(&changes).await;
        let changes = run.made(changes);
        converged.failures.extend(run.failures.into_iter().map(|(_, error)| error));
        if filter.is_none() {
            converged.failures.extend(self.ensure_tunnel_filter(None).err());
        }
        Converged { changes, problems: in_the_way, ..converged }
    }
}
