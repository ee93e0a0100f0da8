//! The flags that all commands share which change something.

use clap::Args;

/// Flags of commands that change something.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct ChangeArgs {
    /// Check and report all as usual, but change nothing
    #[arg(long)]
    pub dry_run: bool,
}
