//! `weir`, the CNI main plugin: veth, routes, NAT.
//!
//! One process a call: what is to be done is decided in `weir_common`, done by
//! `weir_kernel`, and the addresses come from the IPAM plugin it delegates to.

mod add;
mod attachment;
mod check;
mod del;
mod delegate;
mod failure;
mod pools;

use std::process::ExitCode;

use weir_common::cni::skeleton::{Call, Plugin};
use weir_common::cni::{AddResult, Code, Error};
use weir_common::network::AttachmentIdentity;
use weir_process::block_on;

struct Weir;

impl Plugin for Weir {
    fn about(&self) -> String {
        format!("weir {}: the main plugin of Weir", env!("CARGO_PKG_VERSION"))
    }

    fn add(&self, call: &Call) -> Result<AddResult, Error> {
        weir_process::start_log(&call.configuration);
        block_on(add::add(call))
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        weir_process::start_log(&call.configuration);
        block_on(del::del(call))
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        weir_process::start_log(&call.configuration);
        block_on(check::check(call))
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
