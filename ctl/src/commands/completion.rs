//! `weirctl completion`

use clap::{Args, ValueEnum};
use clap_complete::Shell;

/// Arguments of `weirctl completion`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  weirctl completion bash > /etc/bash_completion.d/weirctl\n  \
                  weirctl completion zsh > /usr/local/share/zsh/site-functions/_weirctl\n  \
                  weirctl completion fish > ~/.config/fish/completions/weirctl.fish")]
pub struct CompletionArgs {
    /// The shell
    pub shell: ShellName,
}

/// The shells there are completions for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ShellName {
    /// GNU Bash
    Bash,
    /// The Z shell
    Zsh,
    /// Fish
    Fish,
}

/// The shell's code that completes the command lines of `weirctl`.
pub fn text(arguments: &CompletionArgs, mut weirctl: clap::Command) -> String {
    let shell = match arguments.shell {
        ShellName::Bash => Shell::Bash,
        ShellName::Zsh => Shell::Zsh,
        ShellName::Fish => Shell::Fish,
    };
    let mut code = Vec::new();
    clap_complete::generate(shell, &mut weirctl, "weirctl", &mut code);
    String::from_utf8_lossy(&code).into_owned()
}
