//! One address of a block, and who has it.

use std::net::IpAddr;

use serde::Serialize;
use weir_common::ipam::docker::ATTRIBUTE_MAC;
use weir_common::ipam::history::PastHolder;
use weir_common::ipam::{Allocation, Block};

/// What an address of a block is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AddressState {
    /// It is assigned.
    Used,
    /// It was given back and waits to be used again.
    Cooling,
    /// An `IPReservation` keeps it back.
    Reserved,
}

/// An address that is not free.
#[derive(Clone, Debug, Serialize)]
pub struct AddressRow {
    pub address: IpAddr,
    pub state: AddressState,
    pub handle: Option<String>,
    pub container: Option<String>,
    pub pod: Option<String>,
    pub namespace: Option<String>,
    pub node: Option<String>,
    pub interface: Option<String>,
    #[serde(rename = "type")]
    pub use_type: Option<String>,
    pub network: Option<String>,
    /// When it was assigned, or given back.
    pub since: Option<String>,
    pub mac: Option<String>,
}

impl AddressRow {
    /// The address of an ordinal, if somebody has it or had it last.
    pub fn of(block: &Block, ordinal: usize) -> Option<Self> {
        let attribute = block.holder(ordinal)?;
        let holder = PastHolder::read(attribute);
        let container = holder.container().map(str::to_owned);
        let of_handle = || Some(holder.handle.as_deref()?.rsplit_once('.')?.0.to_owned());
        let network =
            holder.network.clone().or_else(|| of_handle().filter(|_| container.is_some()));
        let is_cooling = attribute.is_cooling_down();
        let made = || Allocation::read(block, ordinal)?.made;
        let since = if is_cooling { attribute.released_at() } else { made() };
        Some(Self {
            address: block.address(ordinal),
            state: if is_cooling { AddressState::Cooling } else { AddressState::Used },
            mac: attribute.fact(ATTRIBUTE_MAC).map(str::to_owned),
            since: since.map(|it| it.to_string()),
            container,
            network,
            handle: holder.handle,
            pod: holder.pod,
            namespace: holder.namespace,
            node: holder.node,
            interface: holder.interface,
            use_type: holder.use_type,
        })
    }

    /// An address that nobody has and that is kept back.
    pub fn reserved(address: IpAddr) -> Self {
        Self {
            address,
            state: AddressState::Reserved,
            handle: None,
            container: None,
            pod: None,
            namespace: None,
            node: None,
            interface: None,
            use_type: None,
            network: None,
            since: None,
            mac: None,
        }
    }

    /// Who has it, in words.
    pub fn in_words(&self) -> String {
        let node = self.node.as_deref().map(|node| format!(" on {node}")).unwrap_or_default();
        match self.state {
            AddressState::Reserved => return "nobody: a reservation keeps it back".to_owned(),
            AddressState::Cooling => {
                return "nobody: it cools down before it is used again".to_owned();
            }
            AddressState::Used => {}
        }
        named(&PastHolder {
            handle: self.handle.clone(),
            namespace: self.namespace.clone(),
            pod: self.pod.clone(),
            use_type: self.use_type.clone(),
            ..PastHolder::default()
        }) + &node
    }
}

/// What a holder is called.
pub fn named(holder: &PastHolder) -> String {
    let container = holder.container().map(|id| format!("container {id}"));
    let pod = holder.pod.as_ref().map(|pod| match &holder.namespace {
        Some(namespace) => format!("pod {namespace}/{pod}"),
        None => format!("pod {pod}"),
    });
    let names: Vec<String> =
        [pod, holder.use_type.clone(), container].into_iter().flatten().collect();
    match (names.is_empty(), &holder.handle) {
        (false, _) => names.join(", "),
        (true, Some(handle)) => format!("handle {handle}"),
        (true, None) => "somebody without a handle".to_owned(),
    }
}
