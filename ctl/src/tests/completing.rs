//! The completions, tried in the shells themselves.

use std::io::Write;
use std::process::{Command, Stdio};

use clap::CommandFactory;

use super::*;
use crate::commands::completion::{CompletionArgs, ShellName, text};

/// What is typed, and the command line that one TAB makes of it. There is a file
/// `pool-blue.yaml`.
const LINES: [(&str, &str); 18] = [
    ("ipam sh", "ipam show"),
    ("datastore lo", "datastore lock"),
    ("doct", "doctor"),
    ("get ipp", "get ippool"),
    ("get ippool -o js", "get ippool -o json"),
    ("delete bgpp", "delete bgppeer"),
    ("patch fel", "patch felixconfig"),
    ("patch ippool blue -t str", "patch ippool blue -t strategic"),
    ("label no", "label node"),
    ("config set nodeTo", "config set nodeToNodeMesh"),
    ("completion fi", "completion fish"),
    ("ipam show --show-bl", "ipam show --show-blocks"),
    ("node run --bgp ext", "node run --bgp external"),
    ("node status --log-level de", "node status --log-level debug"),
    ("version --datastore-type emb", "version --datastore-type embedded"),
    ("create -f pool-b", "create -f pool-blue.yaml"),
    ("ipam explain --conflist pool-b", "ipam explain --conflist pool-blue.yaml"),
    ("datastore backup pool-b", "datastore backup pool-blue.yaml"),
];

/// A directory with the shell's code in a file of this name, and a file to complete.
fn directory(shell: ShellName, name: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let code = text(&CompletionArgs { shell }, Cli::command());
    std::fs::write(directory.path().join(name), code).unwrap();
    std::fs::write(directory.path().join("pool-blue.yaml"), "").unwrap();
    directory
}

/// What is in the file `said` after these lines were typed to a shell at a terminal.
fn typed(shell: &str, directory: &Path, setup: &str, lines: &[String]) -> Vec<String> {
    let mut command = Command::new("timeout");
    command.args(["60", "script", "-qec", shell, "/dev/null"]);
    command.current_dir(directory).env("HOME", directory).env("TERM", "xterm");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let input = format!("{setup}\n{}\nexit\n", lines.join("\n"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = std::fs::read_to_string(directory.join("said")).unwrap_or_else(|error| {
        panic!("{shell}: {error}\n{}", String::from_utf8_lossy(&output.stdout))
    });
    said.lines().map(str::to_owned).collect()
}

/// A TAB after each of the lines, at a terminal of a shell in which `weirctl` writes down what
/// it is called with.
fn check_at_terminal(shell: &str, directory: &Path, setup: &str) {
    let lines: Vec<_> = LINES.iter().map(|(line, _)| format!("weirctl {line}\t")).collect();
    let setup = format!("weirctl() {{ echo \"$*\" >> said; }}\n{setup}");
    let said = typed(shell, directory, &setup, &lines);
    assert_eq!(said, LINES.map(|(_, completed)| completed));
}

#[test]
fn bash_completes() {
    let directory = directory(ShellName::Bash, "weirctl.bash");
    check_at_terminal("bash --norc -i", directory.path(), "source ./weirctl.bash");
}

#[test]
fn bash_suggests_nothing_to_be_replaced() {
    let code = text(&CompletionArgs { shell: ShellName::Bash }, Cli::command());
    let suggested = code.lines().filter(|line| line.trim_start().starts_with("opts=\""));
    let placeholders: Vec<_> = suggested.filter(|line| line.contains(['<', '['])).collect();
    assert!(placeholders.is_empty(), "{placeholders:#?}");
}

#[test]
fn zsh_completes() {
    let directory = directory(ShellName::Zsh, "_weirctl");
    let setup = "fpath=($PWD $fpath); autoload -U compinit; compinit -u -D";
    check_at_terminal("zsh -f -i", directory.path(), setup);
}

#[test]
fn fish_completes() {
    let directory = directory(ShellName::Fish, "weirctl.fish");
    for (line, expected) in LINES {
        let code = format!("source weirctl.fish; complete -C 'weirctl {line}'");
        let mut fish = Command::new("fish");
        fish.args(["--no-config", "-c", &code]).current_dir(directory.path());
        let output = fish.env("HOME", directory.path()).output().unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        // Each has a description behind a TAB.
        let found: Vec<_> = output.lines().filter_map(|it| it.split('\t').next()).collect();
        assert_eq!(found, [expected.rsplit(' ').next().unwrap()], "{line}");
    }
}
