//! The skeleton, connected to the process's own streams and variables.

use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use weir_common::cni::skeleton::{Plugin, Surroundings, run};

/// Runs one CNI call as a process.
pub fn main(plugin: &dyn Plugin) -> ExitCode {
    let mut input = std::io::stdin();
    let terminal = input.is_terminal();
    let status = run(
        plugin,
        Surroundings {
            variable: &|name| std::env::var(name).ok(),
            input: (!terminal).then_some(&mut input as &mut dyn Read),
            output: &mut std::io::stdout(),
            messages: &mut std::io::stderr(),
        },
    );
    ExitCode::from(status)
}
