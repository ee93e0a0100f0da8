//! CHECK: is the attachment as ADD made it?

use std::net::IpAddr;
use std::path::Path;

use weir_common::cni::skeleton::Call;
use weir_common::cni::{Code, Error};
use weir_common::link::SourceCheck;
use weir_common::network::{Families, HealthProblem, Mismatch, compare, needs_nat, not_forwarding};
use weir_kernel::Kernel;
use weir_process::{Limit, WORK};

use crate::attachment::{expected_of, identity_of};
use crate::node::LocalNode;
use crate::source::{IpamSource, is_own_ipam};
use crate::{failure, forwarding, lock};

/// Asks the IPAM, and compares the kernel with the result of ADD, and with what
/// the container needs of the node. What later plugins of the chain added is let be.
///
/// # Errors
/// Everything that is not as it should be.
pub async fn check(call: &Call) -> Result<(), Error> {
    let limit = Limit::of(WORK);
    let result = call.configuration.require_prev_result()?;
    let source = IpamSource::find(call)?;
    let _locks = lock(&identity_of(call)?, limit).await?;
    source.check(call, limit).await?;
    let expected = expected_of(call, result, forwarding(call))?;
    let path = Path::new(&call.environment.netns);
    let kernel = Kernel::open_with_container(path).map_err(failure::of_kernel)?;
    let found = kernel.inspect(&expected).await.map_err(failure::of_kernel)?;
    let differences: Vec<String> =
        compare(&expected, &found).iter().map(Mismatch::to_string).collect();
    let differs = (!differences.is_empty()).then(|| {
        let message = format!("{}; delete and add the container again", differences.join("; "));
        Error::new(Code::CheckFailed, message)
    });
    let addresses = &expected.addresses;
    let of_node =
        [forwards(&kernel, addresses), nat(call, &kernel, addresses), sources(call, &kernel)];
    let errors = differs.into_iter().chain(of_node.into_iter().filter_map(Result::err));
    Error::joined(errors).map_or(Ok(()), Err)
}

/// Whether the node forwards what the addresses need.
fn forwards(kernel: &Kernel, addresses: &[IpAddr]) -> Result<(), Error> {
    let has = |is_v4| addresses.iter().any(|address| address.is_ipv4() == is_v4);
    let families = Families { ipv4: has(true), ipv6: has(false) };
    let state = kernel.node_state(families.ipv6).map_err(failure::of_kernel)?;
    let failed = |trouble: &HealthProblem| Error::new(Code::CheckFailed, trouble.to_string());
    Error::joined(not_forwarding(families, &state).iter().map(failed)).map_or(Ok(()), Err)
}

/// Whether what the container sends is checked as the configuration asks.
fn sources(call: &Call, kernel: &Kernel) -> Result<(), Error> {
    let is_strict = call.configuration.source_check == SourceCheck::Strict;
    if is_strict && !kernel.has_source_filter().map_err(failure::of_kernel)? {
        let problem = HealthProblem::SourceFilterMissing;
        return Err(Error::new(Code::CheckFailed, problem.to_string()));
    }
    Ok(())
}

/// Whether the NAT is there that the pools of these addresses asked for when an ADD
/// last made it.
fn nat(call: &Call, kernel: &Kernel, addresses: &[IpAddr]) -> Result<(), Error> {
    if !is_own_ipam(call) {
        return Ok(());
    }
    let pools = LocalNode::find(call).pools_without_nat(kernel).map_err(failure::of_kernel)?;
    if addresses.iter().any(|&address| needs_nat(&pools, address)) {
        return Err(Error::new(Code::CheckFailed, HealthProblem::NatMissing.to_string()));
    }
    Ok(())
}
