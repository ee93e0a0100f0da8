//! When a program writes its lines.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::node::Node;
use crate::place::Place;

/// How long a line may take. Under an emulated kernel everything is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// What no route of a test leads to (RFC 5737).
const MARK: &str = "198.51.100.0/24";

/// A running program with what it writes, each line with its time. It ends when it is dropped.
pub struct TimedLines {
    child: Child,
    lines: Receiver<(Instant, String)>,
}

impl TimedLines {
    /// Starts a program that writes each line as soon as it has it.
    pub fn of(place: &impl Place, line: &[&str]) -> Self {
        let mut command = Command::new(line[0]);
        let mut child = place.spawn(command.args(&line[1..]).stdout(Stdio::piped()));
        let output = child.stdout.take().expect("the standard output is a pipe");
        let (sender, lines) = channel();
        thread::spawn(move || {
            // Both ends close when the test has seen enough.
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Waits for a line like this: its time, and the lines before it.
    pub fn until(&self, what: &str, is_it: impl Fn(&str) -> bool) -> (Instant, Vec<String>) {
        let (deadline, mut before) = (Instant::now() + PATIENCE, Vec::new());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok((time, line)) if is_it(&line) => return (time, before),
                Ok((_, line)) => before.push(line),
                Err(error) => panic!("never: {what} ({error}):\n{}", before.join("\n")),
            }
        }
    }

    /// What it has written since the last look.
    pub fn so_far(&self) -> Vec<String> {
        self.lines.try_iter().map(|(_, line)| line).collect()
    }
}

impl Drop for TimedLines {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What the kernel of a node tells of its routes (`ip monitor route`), from a known moment on.
pub struct RouteMonitor {
    node: Node,
    lines: TimedLines,
}

impl RouteMonitor {
    /// Starts it. All that happens after this call is told.
    pub fn start(node: &Node) -> Self {
        let lines = TimedLines::of(node, &["ip", "monitor", "route"]);
        let monitor = Self { node: node.clone(), lines };
        let mut seen = Vec::new();
        while !seen.iter().any(|line: &String| line.contains(MARK)) {
            monitor.mark();
            seen = monitor.lines.so_far();
        }
        monitor.so_far();
        monitor
    }

    /// When a line like this is told.
    pub fn until(&self, what: &str, is_it: impl Fn(&str) -> bool) -> Instant {
        self.lines.until(what, is_it).0
    }

    /// All that was told up to this call.
    pub fn so_far(&self) -> Vec<String> {
        // The last line that marking makes is one of a deletion.
        self.mark();
        let is_end = |line: &str| line.starts_with("Deleted") && line.contains(MARK);
        let mut told = self.lines.until("the mark", is_end).1;
        told.extend(self.lines.so_far());
        told.retain(|line| !line.contains(MARK));
        told
    }

    /// All that was told of these destinations up to this call.
    pub fn events_of(&self, ranges: &[String]) -> Vec<String> {
        let mut told = self.so_far();
        told.retain(|line| ranges.iter().any(|range| line.contains(&format!("{range} "))));
        told
    }

    fn mark(&self) {
        self.node.run(&["ip", "route", "add", "blackhole", MARK]);
        self.node.run(&["ip", "route", "delete", "blackhole", MARK]);
    }
}
