//! Measures whole plugin calls, for `scripts/bench.sh`.
//!
//! Everything that is compared is measured in turn in one run, each subject on
//! a node of its own, so that what disturbs the machine disturbs all alike.
//! Prints Markdown. The argument is the number of rounds; `sources` after it measures only what
//! the filter of what containers send costs.

mod crowd;
mod growth;
mod operations;
mod samples;
mod sources;

use std::env;
use std::io::{Error, Write, stdout};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use weir_tests::{Answer, Call, Place};

/// How often each subject is measured unless told otherwise.
const ROUNDS: usize = 100;

fn main() -> Result<(), Error> {
    let rounds = env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    if env::args().nth(2).is_some_and(|only| only == "sources") {
        return writeln!(stdout(), "{}", sources::measure(rounds));
    }
    // Each has a hundred calls of each subject.
    let crowds = rounds.div_ceil(10);
    let tables = [
        ("Whole calls of a main plugin", rounds, operations::measure(rounds)),
        ("100 ADDs of one node, 10 at once", crowds, crowd::measure(crowds)),
        ("An IPAM plugin alone, ADD", rounds, growth::measure(rounds)),
        ("A process that does nothing", rounds, round_trips(rounds)),
    ];
    for (title, rounds, table) in tables {
        writeln!(stdout(), "### {title} ({rounds} rounds)\n\n{table}")?;
    }
    let (title, filter) = ("100 ADDs of one node, with the filter and without", crowds);
    writeln!(stdout(), "### {title} ({filter} rounds)\n\n{}", sources::measure(filter))
}

/// How long a plugin takes from its start to its end, as its caller sees it.
/// It must succeed.
fn timed(place: &impl Place, call: &Call, command: &str) -> Duration {
    let input = call.configuration().to_string();
    let mut process = call.clone().with("CNI_COMMAND", command).command();
    let (elapsed, answer) = place.enter(|| {
        place.join_processes();
        run(&mut process, &input)
    });
    assert!(answer.succeeded, "{command} failed: {answer:?}");
    elapsed
}

/// Runs a program in the calling thread's namespaces.
fn run(process: &mut Command, input: &str) -> (Duration, Answer) {
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let begin = Instant::now();
    let mut child = process.spawn().expect("starting a plugin");
    let mut stdin = child.stdin.take().expect("the standard input is a pipe");
    // A program that does not read its input is not at fault.
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    let output = child.wait_with_output().expect("waiting for a plugin");
    (begin.elapsed(), Answer::of(&output))
}

/// What it costs to start each program and let it say its versions.
fn round_trips(rounds: usize) -> samples::Table {
    let node = weir_tests::Node::bare("n1");
    let nothing = serde_json::json!({"cniVersion": "1.0.0"});
    let subjects = [
        ("weir VERSION", Call::new("weir", nothing.clone())),
        ("weir-ipam VERSION", Call::new("weir-ipam", nothing.clone())),
        ("ptp VERSION", Call::reference("ptp", nothing)),
    ];
    let mut table = samples::Table::default();
    for round in 0..rounds {
        for (name, call) in samples::in_turn(&subjects, round) {
            table.add(name, timed(&node, call, "VERSION"));
        }
    }
    table.compare("weir VERSION", "ptp VERSION", None);
    table.compare("weir-ipam VERSION", "ptp VERSION", None);
    table
}
