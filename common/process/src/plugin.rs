//! The skeleton, connected to the process's own streams and variables.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::Instant;

use weir_common::cni::skeleton::{Plugin, ProcessIo, run};
use weir_common::cni::{Error, SpecVersion};

use crate::input::LimitedInput;
use crate::log::{log_failure, microseconds_since};

/// Runs one CNI call as a process.
pub fn main(plugin: &dyn Plugin) -> ExitCode {
    let begin = Instant::now();
    let terminal = std::io::stdin().is_terminal();
    let mut input = LimitedInput::new(std::io::stdin());
    let status = run(
        plugin,
        ProcessIo {
            variable: &|name| std::env::var_os(name),
            input: (!terminal).then_some(&mut input as &mut dyn Read),
            output: &mut std::io::stdout(),
            messages: &mut std::io::stderr(),
            failed: &|outline, error| log_failure(outline, error, microseconds_since(begin)),
        },
    );
    // The caller has the answer as soon as its end of the pipe is alone, and need
    // not wait for the kernel to clear this process away.
    if let Ok(nowhere) = std::fs::File::open("/dev/null") {
        let _ = nix::unistd::dup2_stdout(nowhere);
    }
    ExitCode::from(status)
}

/// Ends a process that never became a plugin with an error on standard output,
/// where the plugin's answer is expected.
pub fn fail(error: &Error) -> ExitCode {
    let json = error.to_json(SpecVersion::LATEST.as_str());
    // Nobody is left to tell when standard output is closed.
    let _ = writeln!(std::io::stdout(), "{json}");
    ExitCode::FAILURE
}
