//! The table of commands in `docs/weirctl.md` has every command with its flags,
//! and none that is not there.

use std::collections::BTreeSet;

use clap::{Command, CommandFactory};

use super::*;

/// The names of the commands below this one, with their flags as the table writes
/// them: the short form if there is one.
fn commands(command: &Command, above: &str, found: &mut Vec<(String, BTreeSet<String>)>) {
    for command in command.get_subcommands().filter(|it| !it.is_hide_set()) {
        let name = format!("{above}{}", command.get_name());
        if command.has_subcommands() {
            commands(command, &format!("{name} "), found);
            continue;
        }
        let flags = command.get_arguments().filter(|it| !it.is_positional());
        let flags = flags.filter(|it| !it.is_global_set() && it.get_id() != "help");
        let written = flags.filter_map(|it| match it.get_short() {
            Some(short) => Some(format!("-{short}")),
            None => it.get_long().map(|long| format!("--{long}")),
        });
        found.push((name, written.collect()));
    }
}

/// The rows: the command in the first cell, the flags in the last one.
fn rows(text: &str) -> Vec<(String, BTreeSet<String>)> {
    let table = text.split_once("| command | what it does | flags |").unwrap().1;
    let lines = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let row = |line: &str| {
        let command = line.split('`').nth(1).unwrap();
        let words =
            command.split(' ').filter(|word| word.chars().all(|it| it.is_lowercase() || it == '-'));
        let flags = line.rsplit(" | ").next().unwrap().split([' ', '`', ';']);
        let flags = flags.filter(|word| word.starts_with('-')).map(str::to_owned);
        (words.collect::<Vec<_>>().join(" "), flags.collect())
    };
    lines.map(row).collect()
}

#[test]
fn the_table_has_every_command_with_its_flags() {
    let mut expected = Vec::new();
    commands(&Cli::command(), "", &mut expected);
    let found = rows(&read_in_tree("docs/weirctl.md"));
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn the_flags_of_all_commands_are_named() {
    let text = read_in_tree("docs/weirctl.md");
    let command = Cli::command();
    for flag in command.get_arguments().filter(|it| it.is_global_set()) {
        let written = match flag.get_short() {
            Some(short) => format!("`-{short}`"),
            None => format!("`--{}`", flag.get_long().unwrap()),
        };
        assert!(text.contains(&written), "{written}");
    }
}
