//! What the kernel refuses, as the runtime is told.

use weir_common::cni::{Code, Error};
use weir_ipam::WiringError;
use weir_kernel::ApplyError;

/// A failed request to the kernel.
pub fn of_kernel(error: weir_kernel::Error) -> Error {
    Error::caused(code(&error), &error)
}

/// What attachments need besides, and cannot be had.
pub fn of_wiring(error: WiringError) -> Error {
    match error {
        WiringError::Kernel(error) => of_kernel(error),
        WiringError::Lock(error) => error.into(),
    }
}

/// A plan that failed, and what of it could not be taken back.
pub fn of_plan(error: &ApplyError) -> Error {
    Error::caused(code(&error.cause), error).with_details(format!("failed at: {}", error.step))
}

/// The same failure, with what could not be taken back after it.
pub fn with_left(error: Error, left: &[weir_kernel::Error]) -> Error {
    let left: Vec<String> =
        left.iter().map(|error| format!("could not be undone: {error}")).collect();
    if left.is_empty() { error } else { error.with_details(left.join("; ")) }
}

fn code(error: &weir_kernel::Error) -> Code {
    use weir_kernel::Error as Kernel;
    match error {
        Kernel::NamespaceMissing { .. }
        | Kernel::NotANamespace { .. }
        | Kernel::Namespace { .. }
        | Kernel::NoContainer => Code::InvalidNamespace,
        Kernel::InterfaceExists { .. } => Code::InterfaceExists,
        Kernel::NftTooSlow { .. } => Code::TryAgainLater,
        Kernel::NftMissing { .. }
        | Kernel::Denied { .. }
        | Kernel::ForeignLink { .. }
        | Kernel::LinkMissing { .. }
        | Kernel::NoTunnels { .. }
        | Kernel::NotATunnel { .. }
        | Kernel::VniTaken { .. }
        | Kernel::PortTaken { .. }
        | Kernel::RouteExists { .. }
        | Kernel::Sysctl { .. }
        | Kernel::Nft { .. }
        | Kernel::Refused { .. } => Code::Kernel,
    }
}
