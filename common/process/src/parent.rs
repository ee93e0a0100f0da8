//! Ending together with the process that asked for the work.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// Becomes another program, with the same environment but for the variables `forgotten`,
/// which the kernel kills when its `parent` ends: a runtime that runs out of patience kills
/// the plugin that it started, but not the one that this plugin delegated to. Returns only
/// when the program cannot be executed.
pub fn take_the_place_of(program: &Path, parent: Pid, forgotten: &[&str]) -> io::Error {
    // Failing to arm it leaves things as they are without it.
    let _ = set_pdeathsig(Signal::SIGKILL);
    if getppid() != parent {
        // The parent ended before its end could be watched for.
        std::process::exit(1);
    }
    let mut command = Command::new(program);
    for variable in forgotten {
        command.env_remove(variable);
    }
    command.exec()
}
