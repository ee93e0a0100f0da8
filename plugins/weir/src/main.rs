//! `weir`, the CNI main plugin: veth, routes, NAT.
//!
//! One process a call: what is to be done is decided in `weir_common`, done by
//! `weir_kernel`, and the addresses come from the IPAM plugin it delegates to.

mod add;
mod check;
mod cluster;
mod del;
mod delegate;
mod failure;
mod gc;
mod pools;
mod status;

use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;
use weir_common::cni::skeleton::{Call, Plugin};
use weir_common::cni::{AddResult, Command, Error};
use weir_kernel::is_same_namespace;
use weir_process::{block_on, logged};

struct Weir;

impl Plugin for Weir {
    fn about(&self) -> String {
        format!("weir {}: the main plugin of Weir", env!("CARGO_PKG_VERSION"))
    }

    fn add(&self, call: &Call) -> Result<AddResult, Error> {
        logged(call, Command::Add, || block_on(add::add(call)))
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        logged(call, Command::Del, || block_on(del::del(call)))
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        logged(call, Command::Check, || block_on(check::check(call)))
    }

    fn gc(&self, call: &Call) -> Result<Option<Value>, Error> {
        logged(call, Command::Gc, || block_on(gc::gc(call))).map(|()| None)
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        logged(call, Command::Status, || block_on(status::status(call)))
    }
}

fn main() -> ExitCode {
    if let Some(status) = delegate::take_the_place_of_a_plugin() {
        return status;
    }
    weir_process::main(&Weir)
}

/// Whether the container may forward; `None` where that is the node's to say, because
/// its namespace is the node's own.
fn forwarding(call: &Call) -> Option<bool> {
    let environment = &call.environment;
    let is_nodes = environment.netns_override
        && is_same_namespace(Path::new(&environment.netns)).unwrap_or_default();
    (!is_nodes).then_some(call.configuration.allow_ip_forwarding)
}
