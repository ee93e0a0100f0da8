//! `weir-ipam`, the CNI IPAM plugin, for main plugins other than `weir`.

use std::process::ExitCode;

use weir_common::cni::skeleton::{Call, Plugin};
use weir_common::cni::{AddResult, CniCommand, Error, assigned};
use weir_ipam::Ipam;
use weir_process::{Limit, WORK, block_on, logged};

struct WeirIpam;

impl Plugin for WeirIpam {
    fn about(&self) -> String {
        format!("weir-ipam {}: the IPAM plugin of Weir", env!("CARGO_PKG_VERSION"))
    }

    fn add(&self, call: &Call) -> Result<AddResult, Error> {
        run(call, CniCommand::Add, async |ipam: Ipam<'_>| {
            let added = ipam.add().await?;
            Ok(assigned(call.configuration.require_ipam()?, &added.assignment))
        })
    }

    fn del(&self, call: &Call) -> Result<(), Error> {
        run(call, CniCommand::Del, async |ipam: Ipam<'_>| ipam.del().await.map(|_| ()))
    }

    fn check(&self, call: &Call) -> Result<(), Error> {
        run(call, CniCommand::Check, async |ipam: Ipam<'_>| ipam.check().await)
    }

    fn gc(&self, call: &Call) -> Result<(), Error> {
        run(call, CniCommand::Gc, async |ipam: Ipam<'_>| {
            let valid = call.configuration.valid_attachments.as_ref();
            let (_, failed) = ipam.gc(valid, &ipam.claims()?).await?;
            failed.map_or(Ok(()), Err)
        })
    }

    fn status(&self, call: &Call) -> Result<(), Error> {
        logged(call, CniCommand::Status, || block_on(Ipam::status(call, Limit::of(WORK))))
    }
}

fn main() -> ExitCode {
    weir_process::main(&WeirIpam)
}

fn run<'a, T>(
    call: &'a Call,
    command: CniCommand,
    work: impl AsyncFnOnce(Ipam<'a>) -> Result<T, Error>,
) -> Result<T, Error> {
    logged(call, command, || {
        block_on(async { work(Ipam::open(call, Limit::of(WORK)).await?).await })
    })
}
