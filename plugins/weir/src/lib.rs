//! `weir`, the CNI main plugin: veth, routes, NAT.
//!
//! One process a call: what is to be done is decided in `weir_common`, done by
//! `weir_kernel`, and the addresses come from Weir's own IPAM in this process
//! (`weir_ipam`), or from another IPAM plugin that is executed.
#![warn(missing_docs)]

mod add;
pub mod attachment;
mod check;
mod del;
mod delegate;
mod failure;
mod gc;
mod node;
mod own_routes;
mod source;
mod status;

use std::path::Path;
use std::process::ExitCode;

use weir_common::cni::skeleton::{Call, Plugin};
use weir_common::cni::{AddResult, CniCommand, Error};
use weir_common::network::AttachmentIdentity;
use weir_kernel::is_same_namespace;
use weir_process::{AttachmentLocks, Limit, Timing, block_on, logged};

struct Weir;

impl Plugin for Weir {
    fn about(&self) -> String {
        format!("weir {}: the main plugin of Weir", env!("CARGO_PKG_VERSION"))
    }

    fn add(&self, call: &Call) -> Result<AddResult, Error> {
        logged(call, CniCommand::Add, || block_on(add::add(call)))
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        logged(call, CniCommand::Del, || block_on(del::del(call)))
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        logged(call, CniCommand::Check, || block_on(check::check(call)))
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        logged(call, CniCommand::Gc, || block_on(gc::gc(call)))
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        logged(call, CniCommand::Status, || block_on(status::status(call)))
    }
}

/// Runs one CNI call as a process.
pub fn main() -> ExitCode {
    delegate::take_the_place_of_a_plugin().unwrap_or_else(|| weir_process::main(&Weir))
}

/// Keeps other calls on the same attachment waiting until the locks are dropped.
async fn lock(identity: &AttachmentIdentity, limit: Limit) -> Result<AttachmentLocks, Error> {
    let _timing = Timing::of("wait for the attachment's lock");
    let locks = AttachmentLocks::open()?;
    locks.wait(identity.lock_number(), limit).await?;
    Ok(locks)
}

/// Whether the container may forward; `None` where that is the node's to say, because
/// its namespace is the node's own.
fn forwarding(call: &Call) -> Option<bool> {
    let environment = &call.environment;
    let is_nodes = environment.netns_override
        && is_same_namespace(Path::new(&environment.netns)).unwrap_or_default();
    (!is_nodes).then_some(call.configuration.allow_ip_forwarding)
}
