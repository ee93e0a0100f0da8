//! What calicoctl was asked and answered, as recorded in `tests/fixtures`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A session with calicoctl, begun on an empty cluster.
#[derive(Deserialize)]
pub struct Session {
    /// What it is about.
    pub name: String,
    /// The calls, in order.
    pub steps: Vec<Exchange>,
}

/// One call of calicoctl.
#[derive(Deserialize)]
pub struct Exchange {
    /// The arguments.
    pub args: Vec<String>,
    /// What stood on its standard input.
    pub stdin: String,
    /// Its exit status.
    pub exit: i32,
    /// What it printed, on either output.
    pub output: String,
}

/// The recorded sessions.
pub fn recorded_sessions() -> Vec<Session> {
    let text = read(&fixtures().join("calicoctl-answers.jsonl"));
    text.lines().map(|line| serde_json::from_str(line).expect("each line is a session")).collect()
}

/// What calicoctl printed over a recorded store: each command's arguments and
/// its output.
pub fn recorded_outputs(case: &str) -> Vec<(Vec<String>, String)> {
    let directory = fixtures().join("calico-3.31").join(case).join("calicoctl");
    let files = fs::read_dir(&directory).expect("reading a directory of the fixtures");
    let output = |file: std::io::Result<fs::DirEntry>| {
        let text = read(&file.expect("reading a directory of the fixtures").path());
        let (command, output) = text.split_once('\n').expect("the first line is the command");
        let arguments = command.strip_prefix("$ calicoctl ").expect("a command of calicoctl");
        (arguments.split(' ').map(str::to_owned).collect(), output.to_owned())
    };
    files.map(output).collect()
}

/// The text without what differs between clusters: the values of versions,
/// UIDs and times of creation.
pub fn masked(text: &str) -> String {
    const FIELDS: [&str; 3] = ["resourceVersion", "uid", "creationTimestamp"];
    let mask = |line: &str| {
        let Some((name, _)) = line.split_once(':') else { return line.to_owned() };
        let is_volatile = FIELDS.contains(&name.trim_matches([' ', '-', '"']));
        if is_volatile { format!("{name}: …") } else { line.to_owned() }
    };
    text.lines().map(|line| mask(line) + "\n").collect()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
}
