//! `weir-ipam`, the CNI IPAM plugin: pool, block, address.
//!
//! One process a call: the decisions are in `weir_common::ipam`, the datastores
//! in `weir_datastore`; here they are connected.

mod add;
mod check;
mod cluster;
mod del;
mod evidence;
mod gc;
mod status;
mod sweep;

use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;
use weir_common::cni::skeleton::{Call, Plugin};
use weir_common::cni::{AddResult, Command, Error, IpamConfiguration};
use weir_process::{DEFAULT_LOCK_FILE, FoundName, Lock, Timing, logged, node_name};

struct WeirIpam;

impl Plugin for WeirIpam {
    fn about(&self) -> String {
        format!("weir-ipam {}: the IPAM plugin of Weir", env!("CARGO_PKG_VERSION"))
    }

    fn add(&self, call: &Call) -> Result<AddResult, Error> {
        logged(call, Command::Add, || add::add(call))
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        logged(call, Command::Del, || del::del(call))
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        logged(call, Command::Check, || check::check(call))
    }

    fn gc(&self, call: &Call) -> Result<Option<Value>, Error> {
        logged(call, Command::Gc, || gc::gc(call))
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        logged(call, Command::Status, || status::status(call))
    }
}

fn main() -> ExitCode {
    weir_process::die_with_parent();
    weir_process::main(&WeirIpam)
}

/// The name of this host.
fn host(call: &Call) -> Result<String, Error> {
    Ok(found_host(call)?.name)
}

/// The name of this host, and where it comes from.
fn found_host(call: &Call) -> Result<FoundName, Error> {
    Ok(node_name(&call.configuration.node_name.clone()?)?)
}

fn lock(ipam: &IpamConfiguration) -> Lock {
    let _timing = Timing::of("wait for the host's lock");
    Lock::take(ipam.lock_file.as_deref().unwrap_or(Path::new(DEFAULT_LOCK_FILE)))
}
