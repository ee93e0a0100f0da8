//! `weir`, the CNI main plugin: veth, routes, NAT.
//!
//! One process a call: what is to be done is decided in `weir_common`, done by
//! `weir_kernel`, and the addresses come from the IPAM plugin it delegates to.

mod add;
mod attachment;
mod check;
mod cluster;
mod del;
mod delegate;
mod failure;
mod gc;
mod pools;
mod status;

use std::process::ExitCode;

use weir_common::cni::skeleton::{Call, Plugin};
use weir_common::cni::{AddResult, Code, Command, Error};
use weir_common::network::AttachmentIdentity;
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

    fn gc(&self, call: &Call) -> Result<(), Error> {
        logged(call, Command::Gc, || block_on(gc::gc(call)))
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

fn identity_of(call: &Call) -> Result<AttachmentIdentity, Error> {
    let (container_id, interface) = (&call.environment.container_id, &call.environment.interface);
    AttachmentIdentity::new(call.configuration.network.as_str(), container_id, interface)
        .map_err(|error| Error::caused(Code::InvalidConfiguration, &error))
}
