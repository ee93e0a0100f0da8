//! When the agent asks the datastore about the addresses of the node's tunnel devices.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;
use weir_common::datastore::{Datastore, keys};
use weir_common::network::{
    ClusterPool, ClusterState, Peer, Problem, has_settled_tunnel, needs_tunnel,
};
use weir_common::node::{LocalFacts, TunnelOutcome, held_tunnels, reconcile_tunnel_address};
use weir_common::tunnel::TunnelKind;

use crate::session::chain;

/// How long it is taken for granted that there is no address, while nothing changes that
/// it may depend on. (A node's labels, and the addresses that others release, are among
/// what the agent does not follow.)
const UNAVAILABLE_TIME: Duration = Duration::from_secs(60);

/// How long a failure is taken for granted. Looking for an address may take many
/// requests, and what the agent does next waits for it.
const FAILURE_TIME: Duration = Duration::from_secs(5);

/// A node's tunnel addresses, as the datastore was last asked about each kind. The Node's field
/// alone does not say that one is allocated: any program can write there.
#[derive(Default)]
pub struct TunnelAddresses {
    last: BTreeMap<TunnelKind, CachedOutcome>,
}

/// What the kernel has of the node's tunnels, as far as their addresses depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelUse {
    /// The kinds that routes may still go by although no pool needs them: their addresses are
    /// not given back.
    pub still_used: BTreeSet<TunnelKind>,
    /// The kinds that cannot receive yet. Other nodes send by a kind as soon as the Node has an
    /// address for it, so that none is taken.
    pub not_ready: BTreeSet<TunnelKind>,
}

/// What came of a look at the addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TunnelsRenewed {
    /// Why the node has no address of a kind where it needs one.
    pub problems: BTreeSet<Problem>,
    /// What went wrong, in words. It is tried again.
    pub failures: Vec<String>,
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
#[derive(Clone, PartialEq, Eq)]
struct CacheKey {
    own: Peer,
    /// What cannot be read in the Node: it may be the address.
    flaw: Option<String>,
    /// The pools of the kind.
    pools: BTreeMap<String, ClusterPool>,
    is_needed: bool,
    /// Whether routes go by it although it is not needed.
    is_still_used: bool,
    is_holding: bool,
}

fn blocks_of(node: &str, inventory: &ClusterState) -> Vec<IpNet> {
    let own = inventory.blocks.iter().filter(|(_, hosts)| hosts.contains(node));
    own.map(|(block, _)| *block).collect()
}

impl TunnelAddresses {
    /// Takes the addresses that `node` needs, and gives back those that it does not and that
    /// nothing uses any more. Asks the datastore only about kinds for which something changed,
    /// and of those that are not needed all at once. `is_holding` says
    /// whether anything is retained that a restored datastore has lost; `facts` are
    /// asked for when an address is taken or given back.
    pub async fn renew(
        &mut self,
        datastore: &dyn Datastore,
        node: &str,
        (inventory, is_holding): (&ClusterState, bool),
        tunnels: &TunnelUse,
        facts: impl AsyncFnOnce() -> Result<LocalFacts, String>,
    ) -> TunnelsRenewed {
        let Some(own) = inventory.nodes.get(node) else {
            return TunnelsRenewed::default();
        };
        let key_of = |kind: TunnelKind| {
            let is_needed = needs_tunnel(kind, node, inventory);
            CacheKey {
                own: own.clone(),
                flaw: inventory.flawed.get(&keys::node(node)).cloned(),
                pools: pools_of(kind, inventory),
                is_needed,
                is_still_used: !is_needed && tunnels.still_used.contains(&kind),
                is_holding,
            }
        };
        let mut due: BTreeMap<TunnelKind, CacheKey> = BTreeMap::new();
        for kind in TunnelKind::ALL {
            let key = key_of(kind);
            let waits = tunnels.not_ready.contains(&kind) && key.is_needed;
            if waits && !own.tunnels.contains_key(&kind) {
                self.last.remove(&kind);
            } else if !self.is_known(kind, &key, node, inventory) {
                due.insert(kind, key);
            }
        }
        self.ask_about_idle(datastore, node, inventory, &mut due).await;
        let mut failures = Vec::new();
        if !due.is_empty() {
            match facts().await {
                Ok(facts) => self.ask(datastore, node, inventory, due, &facts).await,
                Err(failure) => failures.push(failure),
            }
        }
        let mut renewed = TunnelsRenewed { failures, ..TunnelsRenewed::default() };
        for cached in self.last.values() {
            match &cached.result {
                Ok(problem) => renewed.problems.extend(problem.clone()),
                Err(failure) => renewed.failures.push(failure.clone()),
            }
        }
        renewed
    }

    fn is_known(
        &self,
        kind: TunnelKind,
        key: &CacheKey,
        node: &str,
        inventory: &ClusterState,
    ) -> bool {
        let lasts = |(until, blocks): &(Instant, Vec<IpNet>)| {
            Instant::now() < *until && *blocks == blocks_of(node, inventory)
        };
        let cached = self.last.get(&kind).filter(|cached| cached.key == *key);
        cached.is_some_and(|cached| cached.until.as_ref().is_none_or(lasts))
    }

    /// Takes out of those that are `due` the kinds that are not needed and of which the
    /// datastore has nothing, which one request tells.
    async fn ask_about_idle(
        &mut self,
        datastore: &dyn Datastore,
        node: &str,
        inventory: &ClusterState,
        due: &mut BTreeMap<TunnelKind, CacheKey>,
    ) {
        let idle = due.iter().filter(|(_, key)| !key.is_needed);
        let idle: BTreeSet<TunnelKind> = idle.map(|(kind, _)| *kind).collect();
        if idle.is_empty() {
            return;
        }
        let held = held_tunnels(datastore, node, &idle).await.map_err(|error| chain(&error));
        for kind in idle {
            let result = match &held {
                Ok(held) if held.contains(&kind) => continue,
                Ok(_) => Ok(None),
                Err(failure) => Err(failure.clone()),
            };
            let time = result.is_err().then_some(FAILURE_TIME);
            if let Some(key) = due.remove(&kind) {
                self.note(kind, key, time, result, blocks_of(node, inventory));
            }
        }
    }

    async fn ask(
        &mut self,
        datastore: &dyn Datastore,
        node: &str,
        inventory: &ClusterState,
        due: BTreeMap<TunnelKind, CacheKey>,
        facts: &LocalFacts,
    ) {
        for (kind, key) in due {
            let (still_used, now) = (key.is_still_used, jiff::Timestamp::now());
            let outcome =
                reconcile_tunnel_address(datastore, kind, node, still_used, inventory, facts, now);
            let (time, result) = match outcome.await {
                Ok(TunnelOutcome::Unavailable(error)) => {
                    let reason = error.to_string();
                    (Some(UNAVAILABLE_TIME), Ok(Some(Problem::NoTunnelAddress { kind, reason })))
                }
                Ok(outcome) => {
                    if let TunnelOutcome::Taken(_) | TunnelOutcome::Released = outcome {
                        tracing::info!(%kind, ?outcome, "changed the tunnel address");
                    }
                    (None, Ok(None))
                }
                Err(error) => (Some(FAILURE_TIME), Err(chain(&error))),
            };
            self.note(kind, key, time, result, blocks_of(node, inventory));
        }
    }

    fn note(
        &mut self,
        kind: TunnelKind,
        key: CacheKey,
        time: Option<Duration>,
        result: Result<Option<Problem>, String>,
        blocks: Vec<IpNet>,
    ) {
        let until = time.map(|time| (Instant::now() + time, blocks));
        self.last.insert(kind, CachedOutcome { key, until, result });
    }

    /// The kinds for which the node needs an address that it does not get, as far as is known:
    /// another node may have the one that its device has.
    pub fn lacking(&self) -> BTreeSet<TunnelKind> {
        let lacks = |cached: &CachedOutcome| matches!(cached.result, Ok(Some(_)));
        self.last.iter().filter(|(_, cached)| lacks(cached)).map(|(kind, _)| *kind).collect()
    }

    /// Whether the datastore has what it should have of `node`, or will not get it. An address
    /// that routes still need is given back later.
    pub fn is_settled(&self, inventory: &ClusterState, node: &str) -> bool {
        TunnelKind::ALL.into_iter().all(|kind| {
            let lasts = |it: &CachedOutcome| it.until.is_some() || it.key.is_still_used;
            self.last.get(&kind).is_some_and(lasts) || has_settled_tunnel(kind, node, inventory)
        })
    }
}

/// The pools that tunnel by a kind.
fn pools_of(kind: TunnelKind, inventory: &ClusterState) -> BTreeMap<String, ClusterPool> {
    let pools = inventory.pools.iter().filter(|(_, pool)| pool.is_of(kind));
    pools.map(|(name, pool)| (name.clone(), pool.clone())).collect()
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

    fn pool(store: &Memory, name: &str, cidr: &str, mode: &str) {
        let spec = json!({"cidr": cidr, "blockSize": 29, mode: "Always"});
        let pool = json!({"metadata": {"name": name}, "spec": spec});
        seed(store, keys::pool(name), pool);
    }

    fn node(store: &Memory, name: &str, address: &str) {
        let spec = json!({"bgp": {"ipv4Address": address}});
        let node = json!({"metadata": {"name": name}, "spec": spec});
        seed(store, keys::node(name), node);
    }

    /// Two nodes.
    fn nodes() -> Memory {
        let store = Memory::new();
        node(&store, "n1", "172.16.1.1/24");
        node(&store, "n2", "172.16.1.2/24");
        store
    }

    /// Two nodes, and a pool of one block that is another host's and full.
    fn exhausted() -> Memory {
        let store = nodes();
        pool(&store, "full", "10.0.0.0/29", "ipipMode");
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
        tunnels: &mut TunnelAddresses,
        store: &dyn Datastore,
        inventory: &ClusterState,
        tunnel_use: &TunnelUse,
    ) -> Vec<String> {
        let facts = async || Ok(LocalFacts::default());
        let renewed = tunnels.renew(store, "n1", (inventory, false), tunnel_use, facts).await;
        assert_eq!(renewed.failures, [""; 0]);
        renewed.problems.iter().map(ToString::to_string).collect()
    }

    async fn inventory(store: &dyn Datastore) -> ClusterState {
        ClusterSnapshot::read(store, usize::MAX).await.unwrap().state
    }

    async fn own(store: &dyn Datastore) -> BTreeMap<TunnelKind, std::net::IpAddr> {
        inventory(store).await.nodes["n1"].tunnels.clone()
    }

    #[tokio::test]
    async fn an_exhausted_pool_is_a_problem_and_not_asked_again_until_something_changes() {
        let store = exhausted();
        let shared = store.another_process();
        let (mut tunnels, none) = (TunnelAddresses::default(), TunnelUse::default());
        let before = inventory(&shared).await;
        let problems = renew(&mut tunnels, &shared, &before, &none).await;
        assert!(problems[0].contains("no IPv4 address is left"), "{problems:?}");
        assert!(problems[0].ends_with("reach those of other nodes all the same"), "{problems:?}");
        assert!(tunnels.is_settled(&before, "n1"), "nothing is on its way");
        assert_eq!(tunnels.lacking(), [TunnelKind::Ipip].into());
        // There is an address now, but the inventory does not say so yet.
        pool(&store, "spare", "10.0.1.0/29", "ipipMode");
        assert_eq!(renew(&mut tunnels, &shared, &before, &none).await, problems);
        let after = inventory(&shared).await;
        assert_eq!(renew(&mut tunnels, &shared, &after, &none).await, [""; 0]);
        let address = own(&shared).await.remove(&TunnelKind::Ipip);
        assert!(address.is_some_and(|it| it.to_string().starts_with("10.0.1.")), "{address:?}");
    }

    /// As it happens when a pool in use goes from IPIP to VXLAN.
    #[tokio::test]
    async fn an_address_is_taken_when_the_device_is_there_and_given_back_when_no_route_needs_it() {
        let store = nodes();
        let shared = store.another_process();
        pool(&store, "blue", "10.0.0.0/26", "ipipMode");
        let mut tunnels = TunnelAddresses::default();
        let before = inventory(&shared).await;
        renew(&mut tunnels, &shared, &before, &TunnelUse::default()).await;
        let ipip = own(&shared).await;
        assert!(ipip.len() == 1 && ipip.contains_key(&TunnelKind::Ipip), "{ipip:?}");

        pool(&store, "blue", "10.0.0.0/26", "vxlanMode");
        let still_used = || [TunnelKind::Ipip].into();
        let no_device =
            TunnelUse { still_used: still_used(), not_ready: [TunnelKind::Vxlan].into() };
        let switched = inventory(&shared).await;
        renew(&mut tunnels, &shared, &switched, &no_device).await;
        assert_eq!(own(&shared).await, ipip, "others would send too early");
        assert!(!tunnels.is_settled(&switched, "n1"));

        let with_device = TunnelUse { still_used: still_used(), not_ready: BTreeSet::new() };
        renew(&mut tunnels, &shared, &switched, &with_device).await;
        let both = own(&shared).await;
        let kinds: Vec<TunnelKind> = both.keys().copied().collect();
        assert_eq!(kinds, [TunnelKind::Ipip, TunnelKind::Vxlan]);
        let with_both = inventory(&shared).await;
        renew(&mut tunnels, &shared, &with_both, &with_device).await;
        assert_eq!(own(&shared).await, both);
        assert!(tunnels.is_settled(&with_both, "n1"), "another node has to do something first");

        renew(&mut tunnels, &shared, &with_both, &TunnelUse::default()).await;
        assert!(!tunnels.is_settled(&with_both, "n1"), "the datastore has not told of it yet");
        let vxlan = own(&shared).await;
        assert_eq!(vxlan, [(TunnelKind::Vxlan, both[&TunnelKind::Vxlan])].into());
        assert!(tunnels.is_settled(&inventory(&shared).await, "n1"));
    }

    #[tokio::test]
    async fn kinds_that_nothing_asks_for_cost_one_request_and_then_none() {
        let store = nodes();
        let inventory = inventory(&store).await;
        let (mut tunnels, none) = (TunnelAddresses::default(), TunnelUse::default());
        store.reset_counters();
        for _ in 0..2 {
            assert_eq!(renew(&mut tunnels, &store, &inventory, &none).await, [""; 0]);
            assert_eq!(store.counters().round_trips(), 1);
        }
    }

    /// The Node's field says nothing of it, and nothing else would ever find it.
    #[tokio::test]
    async fn an_address_that_no_node_names_is_found_and_given_back() {
        let store = nodes();
        let shared = store.another_process();
        pool(&store, "blue", "10.0.0.0/26", "vxlanMode");
        let none = TunnelUse::default();
        let before = inventory(&shared).await;
        renew(&mut TunnelAddresses::default(), &shared, &before, &none).await;
        let handle = keys::handle(&TunnelKind::Vxlan.handle_of("n1"));
        assert!(store.dump().contains_key(&handle));
        pool(&store, "blue", "10.0.0.0/26", "ipipMode");
        node(&store, "n1", "172.16.1.1/24");
        let after = inventory(&shared).await;
        assert_eq!(after.nodes["n1"].tunnels, BTreeMap::new());
        renew(&mut TunnelAddresses::default(), &shared, &after, &none).await;
        assert!(!store.dump().contains_key(&handle));
    }
}
