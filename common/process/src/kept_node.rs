//! What a call knows of its node: who keeps it, and what was made of it last.

use std::path::Path;

use weir_common::network::{
    Mtu, MtuSource, NamedNode, Nat, NatPool, NatTable, SavedState, SourceAddresses, Writer,
};
use weir_common::resources::IpPool;

use crate::agent_lock::{AGENT_LOCK, agent_runs};
use crate::state_file::{STATE_FILE, read_state};

/// Who keeps the node, and what was made of it last.
#[derive(Clone, Debug)]
pub struct KeptNode {
    /// Whether the agent keeps it, and not each call.
    pub by_agent: bool,
    /// The datastore of the call's network, by its place.
    pub datastore: String,
    /// What was made of the node last; where no agent keeps it, by a call on the same
    /// datastore.
    pub state: Option<SavedState>,
}

impl KeptNode {
    /// Who keeps it at this moment, as a call on the datastore of this place sees it. An agent
    /// that has not reconciled the node yet does not: until then the calls do.
    pub fn find(datastore: String) -> Self {
        let state = read_state(Path::new(STATE_FILE));
        let by_agent = state.as_ref().is_some_and(|state| state.writer == Writer::Agent)
            && agent_runs(Path::new(AGENT_LOCK));
        let state = state.filter(|state| by_agent || state.datastore == datastore);
        Self { by_agent, datastore, state }
    }

    /// The MTU for containers, where it is known from the cluster.
    pub fn pod_mtu(&self) -> Option<Mtu> {
        let bytes = self.state.as_ref()?.pod_mtu?;
        Some(Mtu { bytes, source: MtuSource::Cluster })
    }

    /// The addresses that the node sends to its containers from, as far as they are known.
    pub fn sources(&self) -> SourceAddresses {
        self.state.as_ref().map(|state| state.sources).unwrap_or_default()
    }

    /// The NAT that a call makes sure of, by the `pools` of its snapshot. What a restored
    /// datastore has lost counts too: then the last reconcile knows better.
    pub fn nat(&self, pools: Option<&[IpPool]>) -> Nat {
        let retains = self.state.as_ref().is_some_and(|state| state.retained > 0);
        match pools.filter(|_| !retains) {
            None => Nat::AsItIs,
            Some(pools) => {
                let pools: Vec<NatPool> = pools.iter().map(NatPool::from).collect();
                let ports = self.state.iter().flat_map(|state| &state.tunnel_ports).copied();
                Nat::Exactly(NatTable::from_pools(&pools, ports))
            }
        }
    }

    /// The node as its agent calls it, where that keeps it on the same datastore under another
    /// name than `name`: other nodes would not find the containers of a call under this one.
    pub fn named_otherwise(&self, name: &str) -> Option<&NamedNode> {
        let state = self.state.as_ref().filter(|state| {
            self.by_agent && state.datastore == self.datastore && state.node.name != name
        });
        state.map(|state| &state.node)
    }
}
