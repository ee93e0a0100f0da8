//! The program `weir`; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir::main()
}
