//! Ending together with the process that asked for the work.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

/// The variable by which `weir` tells a process it starts to end with it; its
/// value is the parent's process id.
pub const PARENT_VARIABLE: &str = "WEIR_PARENT";

/// Makes the kernel kill this process when its parent ends, if the parent asks
/// for it through [`PARENT_VARIABLE`]. A runtime that runs out of patience kills
/// the plugin it started but not the one that plugin delegated to.
///
/// Only on request: the kernel watches the parent's *thread*, which a runtime of
/// many threads may end at any time.
pub fn die_with_parent() {
    let Ok(parent) = std::env::var(PARENT_VARIABLE) else {
        return;
    };
    // Failing to arm it leaves things as they are without it.
    let _ = set_pdeathsig(Signal::SIGKILL);
    if getppid().to_string() != parent {
        // The parent ended before its end could be watched for.
        std::process::exit(1);
    }
}

/// Becomes another program, bound to its parent as by [`die_with_parent`], with
/// the same environment but for `forgotten` and [`PARENT_VARIABLE`]. Returns
/// only when the program cannot be executed.
pub fn become_program(program: &Path, forgotten: &str) -> std::io::Error {
    die_with_parent();
    Command::new(program).env_remove(forgotten).env_remove(PARENT_VARIABLE).exec()
}
