//! The only place in Weir that talks to the kernel.
//!
//! [`Kernel`] carries out the plans of `weir_common::network`: it applies
//! steps and takes them back, removes attachments, and reports what is there.
//! It speaks netlink to the namespace that it was opened in and to the
//! container's; everything runs under a current-thread tokio runtime, since a
//! network namespace is a property of the thread. `docs/attachment.md` gives
//! the reasons.

mod apply;
mod cluster;
mod collect;
mod conntrack;
mod dump;
mod error;
mod firewall;
mod host_end;
mod inspect;
mod link;
mod listen;
mod local_network;
mod message;
mod monitor;
mod namespace;
mod netconf;
mod netlink;
mod nfnetlink;
mod nft;
mod node;
mod occupied;
mod ports;
mod remove;
mod route;
mod sandbox;
mod sources;
mod sysctl;
mod tunnel_entries;

use std::path::Path;

pub use apply::{Applied, ApplyError, Checkpoint};
pub use cluster::{BgpRoutes, Keep, PlanOutcome, Reconciled};
pub use collect::MadeLink;
pub use error::Error;
pub use link::has_link;
pub use monitor::{Monitor, NetworkChange};
pub use namespace::{Namespace, is_first_process_namespace, is_node_namespace, is_same_namespace};
pub use nft::{find_nft, find_program, run_program};
pub use occupied::Occupied;
pub use remove::OwnLink;

use netlink::Netlink;
use weir_common::network::Side;

/// The kernel as one plugin call sees it: the node's network namespace and,
/// where there is one, the container's.
#[derive(Debug)]
pub struct Kernel {
    host: Netlink,
    container: Option<Container>,
}

/// A container's network namespace and a socket that was opened in it, and so
/// stays in it.
#[derive(Debug)]
struct Container {
    namespace: Namespace,
    netlink: Netlink,
}

impl Kernel {
    /// Opens the namespace of the current thread, as the node's, and nothing
    /// else. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// No netlink socket can be had.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { host: Netlink::open()?, container: None })
    }

    /// Opens the namespace of the current thread, as the node's, and that of
    /// the container at `path` (CNI_NETNS).
    ///
    /// # Errors
    /// There is nothing at `path`, or no network namespace; it cannot be
    /// entered; or no netlink socket can be had.
    pub fn open_with_container(path: &Path) -> Result<Self, Error> {
        let namespace = Namespace::open(path)?;
        let netlink = namespace.run(Netlink::open)??;
        Ok(Self { host: Netlink::open()?, container: Some(Container { namespace, netlink }) })
    }

    fn container(&self) -> Result<&Container, Error> {
        self.container.as_ref().ok_or(Error::NoContainer)
    }

    fn netlink(&self, side: Side) -> Result<&Netlink, Error> {
        match side {
            Side::Host => Ok(&self.host),
            Side::Container => Ok(&self.container()?.netlink),
        }
    }

    /// Does `work` in the namespace of `side`.
    fn within<T>(&self, side: Side, work: impl FnOnce() -> T) -> Result<T, Error> {
        match side {
            Side::Host => Ok(work()),
            Side::Container => self.container()?.namespace.run(work),
        }
    }
}
