//! When the agent asks the datastore about the tunnel device's address.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;
use weir_common::datastore::{Datastore, keys};
use weir_common::network::{
    ClusterPool, ClusterState, Peer, Problem, has_settled_tunnel, needs_tunnel,
};
use weir_common::node::{LocalFacts, TunnelOutcome, reconcile_tunnel_address};

use crate::session::chain;

/// How long it is taken for granted that there is no address, while nothing changes that
/// it may depend on. (A node's labels, and the addresses that others release, are among
/// what the agent does not follow.)
const UNAVAILABLE_TIME: Duration = Duration::from_secs(60);

/// How long a failure is taken for granted. Looking for an address may take many
/// requests, and routes wait for it.
const FAILURE_TIME: Duration = Duration::from_secs(5);

/// A node's tunnel address, as the datastore was last asked about it. The Node's field
/// alone does not say that it is allocated: any program can write there.
#[derive(Default)]
pub struct TunnelAddress {
    last: Option<CachedOutcome>,
}

/// What the datastore answered, and for how long that is not asked again.
struct CachedOutcome {
    key: CacheKey,
    /// Until when, where there is no address, and the node's blocks: of a new one it may
    /// get an address. Without it as long as the key stays the same.
    until: Option<(Instant, Vec<IpNet>)>,
    result: Result<Option<Problem>, String>,
}

/// What a tunnel address depends on, as far as the agent follows it.
#[derive(PartialEq, Eq)]
struct CacheKey {
    own: Peer,
    /// What cannot be read in the Node: it may be the address.
    flaw: Option<String>,
    pools: BTreeMap<String, ClusterPool>,
    is_needed: bool,
    is_holding: bool,
}

fn blocks_of(node: &str, inventory: &ClusterState) -> Vec<IpNet> {
    let own = inventory.blocks.iter().filter(|(_, hosts)| hosts.contains(node));
    own.map(|(block, _)| *block).collect()
}

impl TunnelAddress {
    /// Takes an address if `node` needs one, and gives it back if not. Asks the
    /// datastore only when something changed. Returns why a node that needs an
    /// address gets none: its containers reach others all the same. `is_holding` says
    /// whether anything is retained that a restored datastore has lost; `facts` are
    /// asked for when the datastore is.
    ///
    /// # Errors
    /// What went wrong, in words. It is tried again.
    pub async fn renew(
        &mut self,
        datastore: &dyn Datastore,
        node: &str,
        inventory: &ClusterState,
        is_holding: bool,
        facts: impl AsyncFnOnce() -> Result<LocalFacts, String>,
    ) -> Result<Option<Problem>, String> {
        let Some(own) = inventory.nodes.get(node) else {
            return Ok(None);
        };
        let key = CacheKey {
            own: own.clone(),
            flaw: inventory.flawed.get(&keys::node(node)).cloned(),
            pools: inventory.pools.clone(),
            is_needed: needs_tunnel(node, inventory),
            is_holding,
        };
        let lasts = |(until, blocks): &(Instant, Vec<IpNet>)| {
            Instant::now() < *until && *blocks == blocks_of(node, inventory)
        };
        let is_known = |it: &&CachedOutcome| it.key == key && it.until.as_ref().is_none_or(lasts);
        if let Some(cached) = self.last.as_ref().filter(is_known) {
            return cached.result.clone();
        }
        let (facts, now) = (facts().await?, jiff::Timestamp::now());
        let outcome = reconcile_tunnel_address(datastore, node, inventory, &facts, now).await;
        let (time, result) = match outcome {
            Ok(TunnelOutcome::Unavailable(error)) => {
                let (node, reason) = (node.to_owned(), error.to_string());
                (Some(UNAVAILABLE_TIME), Ok(Some(Problem::NoTunnelAddress { node, reason })))
            }
            Ok(outcome) => {
                if let TunnelOutcome::Taken(_) | TunnelOutcome::Released = outcome {
                    tracing::info!(?outcome, "changed the tunnel address");
                }
                (None, Ok(None))
            }
            Err(error) => (Some(FAILURE_TIME), Err(chain(&error))),
        };
        let until = time.map(|time| (Instant::now() + time, blocks_of(node, inventory)));
        self.last = Some(CachedOutcome { key, until, result: result.clone() });
        result
    }

    /// Whether the datastore has what it should have of `node`, or will not get it.
    pub fn is_settled(&self, inventory: &ClusterState, node: &str) -> bool {
        let is_unavailable = self.last.as_ref().is_some_and(|cached| cached.until.is_some());
        is_unavailable || has_settled_tunnel(node, inventory)
    }
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
        store: &dyn Datastore,
        inventory: &ClusterState,
    ) -> Result<Option<Problem>, String> {
        tunnel.renew(store, "n1", inventory, false, async || Ok(LocalFacts::default())).await
    }

    async fn inventory(store: &dyn Datastore) -> ClusterState {
        ClusterSnapshot::read(store, usize::MAX).await.unwrap().state
    }

    #[tokio::test]
    async fn an_exhausted_pool_is_a_problem_and_not_asked_again_until_something_changes() {
        let store = exhausted();
        let shared = store.another_process();
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
