//! The upkeep of the tunnel device's address in the datastore.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;
use weir_common::datastore::{Datastore, keys};
use weir_common::network::{ClusterPool, ClusterState, Peer, Problem, has_settled_tunnel};
use weir_common::node::{self, Settled, Standing, settle_tunnel_address};

use crate::session::chain;

/// How long a refusal stands while nothing changes that it may depend on. (A
/// node's labels, and the addresses that others release, are among what the agent
/// does not follow.)
const REFUSAL_TIME: Duration = Duration::from_secs(60);

/// How long a failure stands. Looking for an address may take many requests, and
/// routes wait for it.
const FAILURE_TIME: Duration = Duration::from_secs(5);

/// What decides on a tunnel address, as far as the agent follows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Grounds {
    own: Peer,
    /// What cannot be read in the Node: it may be the address.
    flaw: Option<String>,
    pools: BTreeMap<String, ClusterPool>,
    /// Whether anything is held that a restored datastore has forgotten.
    is_holding: bool,
}

/// A node's tunnel address.
#[derive(Default)]
pub struct TunnelAddress {
    /// The grounds on which the allocation was last found to be right. The
    /// Node's field alone does not say so: anybody can write there.
    settled: Option<Grounds>,
    refused: Option<Refusal>,
}

/// Why there is no address, and until when that is taken for granted.
struct Refusal {
    grounds: Grounds,
    /// The node's blocks: of a new one it may get an address.
    blocks: Vec<IpNet>,
    until: Instant,
    why: Result<Problem, String>,
}

impl Refusal {
    fn stands(&self, grounds: &Grounds, node: &str, inventory: &ClusterState) -> bool {
        Instant::now() < self.until
            && self.grounds == *grounds
            && self.blocks == blocks_of(node, inventory)
    }
}

fn blocks_of(node: &str, inventory: &ClusterState) -> Vec<IpNet> {
    let own = inventory.blocks.iter().filter(|(_, hosts)| hosts.contains(node));
    own.map(|(block, _)| *block).collect()
}

impl TunnelAddress {
    /// Takes an address if `node` needs one, and gives it back if not. Asks the
    /// datastore only when something changed. Returns why a node that needs an
    /// address gets none: its containers reach others all the same. `is_holding` says
    /// whether anything is held that a restored datastore has forgotten; `standing` is
    /// asked when the datastore is.
    ///
    /// # Errors
    /// What went wrong, in words. It is tried again.
    pub async fn renew(
        &mut self,
        datastore: &Arc<dyn Datastore>,
        node: &str,
        inventory: &ClusterState,
        is_holding: bool,
        standing: impl AsyncFnOnce() -> Result<Standing, String>,
    ) -> Result<Option<Problem>, String> {
        let Some(own) = inventory.nodes.get(node) else {
            return Ok(None);
        };
        let grounds = Grounds {
            own: own.clone(),
            flaw: inventory.flawed.get(&keys::node(node)).cloned(),
            pools: inventory.pools.clone(),
            is_holding,
        };
        if has_settled_tunnel(node, inventory) && self.settled.as_ref() == Some(&grounds) {
            return Ok(None);
        }
        if let Some(refused) = &self.refused
            && refused.stands(&grounds, node, inventory)
        {
            return refused.why.clone().map(Some);
        }
        self.refused = None;
        let (standing, now) = (standing().await?, jiff::Timestamp::now());
        let datastore = datastore.as_ref();
        match settle_tunnel_address(datastore, node, inventory, &standing, now).await {
            Ok(Settled::AsItWas) => {}
            Ok(Settled::Taken(address)) => tracing::info!(%address, "has a tunnel address"),
            Ok(Settled::GivenBack) => {
                tracing::info!("gave the tunnel address back: no pool needs it");
            }
            Err(error) => {
                let (time, why) = judge(node, &error);
                let (blocks, until) = (blocks_of(node, inventory), Instant::now() + time);
                self.refused = Some(Refusal { grounds, blocks, until, why: why.clone() });
                return why.map(Some);
            }
        }
        self.settled = Some(grounds);
        Ok(None)
    }

    /// Whether nothing is on its way: the datastore has what it should have of
    /// `node`, or will not get it.
    pub fn is_settled(&self, inventory: &ClusterState, node: &str) -> bool {
        self.refused.is_some() || has_settled_tunnel(node, inventory)
    }
}

/// What an error comes to, and how long it is to stand: that there is no address to
/// be had is a problem of the pools, everything else a failure.
fn judge(node: &str, error: &node::Error) -> (Duration, Result<Problem, String>) {
    if !error.means_none_left() {
        return (FAILURE_TIME, Err(chain(error)));
    }
    let problem = Problem::NoTunnelAddress { node: node.to_owned(), reason: error.to_string() };
    (REFUSAL_TIME, Ok(problem))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weir_common::network::ClusterSnapshot;
    use weir_datastore::Memory;

    use super::*;

    fn seed(store: &Memory, key: String, value: serde_json::Value) {
        store.seed([(key, value.to_string().into_bytes())]);
    }

    fn pool(store: &Memory, name: &str, cidr: &str) {
        let spec = json!({"cidr": cidr, "blockSize": 29, "ipipMode": "Always"});
        let pool = json!({"metadata": {"name": name}, "spec": spec});
        seed(store, keys::pool(name), pool);
    }

    /// Two nodes, and a pool of one block that is another host's and full.
    fn exhausted() -> Memory {
        let store = Memory::new();
        for (name, address) in [("n1", "172.16.1.1/24"), ("n2", "172.16.1.2/24")] {
            let spec = json!({"bgp": {"ipv4Address": address}});
            let node = json!({"metadata": {"name": name}, "spec": spec});
            seed(&store, keys::node(name), node);
        }
        pool(&store, "full", "10.0.0.0/29");
        let block: IpNet = "10.0.0.0/29".parse().unwrap();
        let value = json!({
            "cidr": "10.0.0.0/29", "affinity": "host:n2", "allocations": vec![0; 8],
            "unallocated": [], "attributes": [{"handle_id": "h"}], "deleted": false,
        });
        seed(&store, keys::block(block), value);
        seed(&store, keys::affinity("n2", block), json!({"state": "confirmed"}));
        store
    }

    async fn renew(
        tunnel: &mut TunnelAddress,
        store: &Arc<dyn Datastore>,
        inventory: &ClusterState,
    ) -> Result<Option<Problem>, String> {
        tunnel.renew(store, "n1", inventory, false, async || Ok(Standing::default())).await
    }

    async fn inventory(store: &Arc<dyn Datastore>) -> ClusterState {
        ClusterSnapshot::read(store.as_ref(), usize::MAX).await.unwrap().state
    }

    #[tokio::test]
    async fn an_exhausted_pool_is_a_problem_and_not_asked_again_until_something_changes() {
        let store = exhausted();
        let shared: Arc<dyn Datastore> = Arc::new(store.another_process());
        let mut tunnel = TunnelAddress::default();
        let before = inventory(&shared).await;
        let problem = renew(&mut tunnel, &shared, &before).await.unwrap().unwrap();
        assert!(problem.to_string().contains("no IPv4 address is left"), "{problem}");
        assert!(tunnel.is_settled(&before, "n1"), "nothing is on its way");
        // There is an address now, but the inventory does not say so yet.
        pool(&store, "spare", "10.0.1.0/29");
        assert_eq!(renew(&mut tunnel, &shared, &before).await, Ok(Some(problem)));
        let after = inventory(&shared).await;
        assert_eq!(renew(&mut tunnel, &shared, &after).await, Ok(None));
        let address = inventory(&shared).await.nodes["n1"].tunnel;
        assert!(address.is_some_and(|it| it.to_string().starts_with("10.0.1.")), "{address:?}");
    }
}
