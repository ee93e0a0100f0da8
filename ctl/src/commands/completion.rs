//! `weirctl completion`

use std::ffi::OsStr;

use clap::builder::{NonEmptyStringValueParser, PossibleValue, TypedValueParser};
use clap::{Arg, Args, Command, Error, ValueEnum};
use clap_complete::Shell;
use weir_common::resources::Kind;

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

/// Any text but an empty one, of which these are completed. What reads the text refuses others,
/// in calicoctl's words.
#[derive(Clone)]
pub struct Suggested(pub Vec<&'static str>);

impl Suggested {
    /// The kinds of resources.
    pub fn kinds() -> Self {
        Self(Kind::ALL.map(Kind::alias).to_vec())
    }
}

impl TypedValueParser for Suggested {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, Error> {
        NonEmptyStringValueParser::new().parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.0.iter().map(PossibleValue::new)))
    }
}

/// The shell's code that completes the command lines of `weirctl`.
pub fn text(arguments: &CompletionArgs, weirctl: Command) -> String {
    let (shell, mut weirctl) = match arguments.shell {
        ShellName::Bash => (Shell::Bash, without_placeholders(weirctl)),
        ShellName::Zsh => (Shell::Zsh, weirctl),
        ShellName::Fish => (Shell::Fish, weirctl),
    };
    let mut code = Vec::new();
    clap_complete::generate(shell, &mut weirctl, "weirctl", &mut code);
    let mut code = String::from_utf8_lossy(&code).into_owned();
    if let ShellName::Fish = arguments.shell {
        weirctl.get_subcommands().for_each(|it| add_arguments_in_fish(it, None, &mut code));
    }
    code
}

/// The known values of a command's arguments, of which clap_complete tells fish only those of
/// options.
fn add_arguments_in_fish(command: &Command, above: Option<&str>, code: &mut String) {
    let name = command.get_name();
    command.get_subcommands().for_each(|it| add_arguments_in_fish(it, Some(name), code));
    let values = command.get_positionals().flat_map(Arg::get_possible_values);
    let values: Vec<_> = values.map(|it| it.get_name().to_owned()).collect();
    if values.is_empty() {
        return;
    }
    let condition = match above {
        None => format!("__fish_weirctl_using_subcommand {name}"),
        Some(above) => format!(
            "__fish_weirctl_using_subcommand {above}; and __fish_seen_subcommand_from {name}"
        ),
    };
    let values = values.join(" ");
    code.push_str(&format!("complete -c weirctl -n \"{condition}\" -f -a \"{values}\"\n"));
}

/// The command line in which an argument without known values suggests none: clap_complete lets
/// bash complete the argument's name instead, as `<FILE>`.
fn without_placeholders(command: Command) -> Command {
    let command =
        command.mut_args(|it| match it.is_positional() && it.get_possible_values().is_empty() {
            true => it.value_parser(Suggested(Vec::new())),
            false => it,
        });
    command.mut_subcommands(without_placeholders)
}
