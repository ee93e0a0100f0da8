//! `weir-ipam`, the CNI IPAM plugin: pool, block, address.
//!
//! One process a call: the decisions are in `weir_common::ipam`, the datastores
//! in `weir_datastore`; here they are connected.

mod add;
mod check;
mod del;

use std::path::Path;
use std::process::ExitCode;

use weir_common::cni::skeleton::{Call, Plugin};
use weir_common::cni::{AddResult, Error, IpamConfiguration};
use weir_common::ipam::handle_id;
use weir_process::{DEFAULT_LOCK_FILE, Lock};

struct WeirIpam;

impl Plugin for WeirIpam {
    fn about(&self) -> String {
        format!("weir-ipam {}: the IPAM plugin of Weir", env!("CARGO_PKG_VERSION"))
    }

    fn add(&self, call: &Call) -> Result<AddResult, Error> {
        add::add(call)
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        del::del(call)
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        check::check(call)
    }
}

fn main() -> ExitCode {
    weir_process::die_with_parent();
    weir_process::main(&WeirIpam)
}

fn handle_of(call: &Call) -> String {
    handle_id(&call.configuration.network, &call.environment.container_id)
}

fn lock(ipam: &IpamConfiguration) -> Lock {
    Lock::take(ipam.lock_file.as_deref().unwrap_or(Path::new(DEFAULT_LOCK_FILE)))
}
