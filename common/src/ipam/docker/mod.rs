//! Docker's containers as assignees.
//!
//! dockerd asks for an address before it says what for: it names a hardware address then, and
//! the endpoint (a container's interface in one network) later. So an address waits under a
//! handle of its hardware address, `docker.0242ac110002`, and is handed over to that of the
//! endpoint, `docker.ENDPOINT`, when dockerd names it. A call that dockerd repeats finds what
//! the first one got, and what waits for nobody shows by its handle.

mod hand_over;
pub(super) mod hand_over_barrier;
mod knowledge;
mod release;
mod waiting;

pub use hand_over::{EndpointFacts, hand_over};
pub use hand_over_barrier::HandOverBarrier;
pub use knowledge::DockerKnowledge;
pub use release::{NotReleased, release};
pub use waiting::{MAX_WAITING, Waiting, WaitingPlace, WantedAddress};

use std::net::IpAddr;

use jiff::Timestamp;

use super::assignee::Assignee;
use crate::link::MacAddress;

/// The network of all attachments of Docker's, in handles and aliases.
pub const DOCKER_NETWORK: &str = "docker";

/// The interface of all of them: an endpoint has one, whose name in the container dockerd
/// chooses.
pub const DOCKER_INTERFACE: &str = "docker";

/// The fact of an allocation that names the network of Docker's, by its id.
pub const ATTRIBUTE_DOCKER_NETWORK: &str = "docker_network";

/// The fact of an allocation that names its hardware address.
pub const ATTRIBUTE_MAC: &str = "mac";

/// Whom the addresses of an endpoint are assigned to; `endpoint` is its id.
pub fn endpoint(host: &str, endpoint: &str) -> Assignee {
    Assignee::interface(host, DOCKER_NETWORK, endpoint, DOCKER_INTERFACE)
}

/// Whom an address is assigned to that waits for its endpoint: the `nth`, from 1, with this
/// hardware address. Two containers may be given one (`--mac-address`).
pub fn waiting(host: &str, mac: MacAddress, nth: u32) -> Assignee {
    let digits = digits(mac);
    let container = if nth == 1 { digits } else { format!("{digits}-{nth}") };
    Assignee::interface(host, DOCKER_NETWORK, &container, DOCKER_INTERFACE)
}

/// Whom an address is assigned to for a container with this hardware address that another driver
/// wires (`bridge`, `macvlan`). It names no endpoint to Weir: the address never waits for one, and
/// no other call finds it. `now` tells it from those of other calls.
pub fn wired_by_another(host: &str, mac: MacAddress, now: Timestamp) -> Assignee {
    let container = format!("{}-at-{}", digits(mac), now.as_nanosecond());
    Assignee::interface(host, DOCKER_NETWORK, &container, DOCKER_INTERFACE)
}

/// Whom an address is assigned to that belongs to a network: its gateway, or one that its
/// maker keeps for something else (`--aux-address`).
pub fn of_network(host: &str, address: IpAddr) -> Assignee {
    Assignee::interface(host, DOCKER_NETWORK, &address.to_string(), DOCKER_INTERFACE)
}

/// What a handle of Docker's names: an endpoint, a hardware address or an address; `None` for
/// a handle of another network.
pub fn named_by(handle: &str) -> Option<&str> {
    handle.strip_prefix(DOCKER_NETWORK)?.strip_prefix('.')
}

/// A hardware address as handles name it.
fn digits(mac: MacAddress) -> String {
    mac.0.iter().map(|byte| format!("{byte:02x}")).collect()
}
