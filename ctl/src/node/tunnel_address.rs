//! The upkeep of the tunnel device's address in the datastore.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_common::datastore::Datastore;
use weir_common::network::{ClusterPool, Inventory, Peer, Problem, has_settled_tunnel};
use weir_common::node::{self, Settled, settle_tunnel_address};

use crate::session::chain;

/// How long a refusal stands while nothing changes that it may depend on. (A
/// node's labels are among what the agent does not follow.)
const REFUSAL_TIME: Duration = Duration::from_secs(60);

/// What decides on a tunnel address, as far as the agent follows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Grounds {
    own: Peer,
    pools: BTreeMap<String, ClusterPool>,
}

/// A node's tunnel address.
#[derive(Default)]
pub struct TunnelAddress {
    /// The grounds on which the allocation was last found to be right. The
    /// Node's field alone does not say so: anybody can write there.
    settled: Option<Grounds>,
    refused: Option<(Grounds, Instant, Problem)>,
}

impl TunnelAddress {
    /// Takes an address if `node` needs one, and gives it back if not. Asks the
    /// datastore only when something changed. Returns why a node that needs an
    /// address gets none: its containers reach others all the same.
    ///
    /// # Errors
    /// What went wrong, in words. It is tried again.
    pub async fn renew(
        &mut self,
        datastore: &Arc<dyn Datastore>,
        node: &str,
        inventory: &Inventory,
    ) -> Result<Option<Problem>, String> {
        let Some(own) = inventory.nodes.get(node) else {
            return Ok(None);
        };
        let grounds = Grounds { own: own.clone(), pools: inventory.pools.clone() };
        if has_settled_tunnel(node, inventory) && self.settled.as_ref() == Some(&grounds) {
            return Ok(None);
        }
        if let Some((refused, at, problem)) = &self.refused
            && *refused == grounds
            && at.elapsed() < REFUSAL_TIME
        {
            return Ok(Some(problem.clone()));
        }
        self.refused = None;
        let now = jiff::Timestamp::now();
        match settle_tunnel_address(datastore.as_ref(), node, inventory, now).await {
            Ok(Settled::AsItWas) => {}
            Ok(Settled::Taken(address)) => tracing::info!(%address, "has a tunnel address"),
            Ok(Settled::GivenBack) => {
                tracing::info!("gave the tunnel address back: no pool needs it");
            }
            Err(error @ node::Error::NoTunnelPool { .. }) => {
                let reason = error.to_string();
                let problem = Problem::NoTunnelAddress { node: node.to_owned(), reason };
                self.refused = Some((grounds, Instant::now(), problem.clone()));
                return Ok(Some(problem));
            }
            Err(error) => return Err(chain(&error)),
        }
        self.settled = Some(grounds);
        Ok(None)
    }

    /// Whether nothing is on its way: the datastore has what it should have of
    /// `node`, or will not get it.
    pub fn is_settled(&self, inventory: &Inventory, node: &str) -> bool {
        self.refused.is_some() || has_settled_tunnel(node, inventory)
    }
}
