//! What the kernel tells of routes, with the time at which it was heard.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use weir_tests::{Node, Place};

/// How long the agent may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// The routing table of the route that is made to see whether `ip` listens: not the main one, whose
/// routes of others the agent compares with its own.
const TABLE: &str = "7777";

/// Listens to a node's routes.
pub struct Monitor {
    child: Child,
    lines: Receiver<(Instant, String)>,
}

impl Monitor {
    /// Listens from now on.
    pub fn start(node: &Node) -> Self {
        // A buffer that holds every route: nothing is lost when `ip` is slow.
        let line = ["-oneline", "-rcvbuf", "134217728", "monitor", "route"];
        let mut command = Command::new("ip");
        let mut child = node.spawn(command.args(line).stdout(Stdio::piped()));
        let output = BufReader::new(child.stdout.take().expect("the output is a pipe"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    break;
                }
            }
        });
        let monitor = Self { child, lines };
        monitor.await_first(node);
        monitor
    }

    /// Waits until it hears: a route is made and deleted until it is heard of.
    fn await_first(&self, node: &Node) {
        let probe = "198.51.100.1";
        let mut number = 0;
        loop {
            node.run(&["ip", "route", "replace", "blackhole", probe, "table", TABLE]);
            node.run(&["ip", "route", "delete", "blackhole", probe, "table", TABLE]);
            if let Ok((_, line)) = self.lines.recv_timeout(Duration::from_millis(50)) {
                assert!(line.contains(probe), "heard too much: {line}");
                break;
            }
            number += 1;
            assert!(number < 100, "ip monitor says nothing");
        }
        while self.lines.recv_timeout(Duration::from_millis(20)).is_ok() {}
    }

    /// Waits for so many changes whose lines begin with `beginning`, and returns
    /// when the last was heard.
    pub fn await_changes(&self, count: usize, beginning: &str) -> Instant {
        let mut heard = 0;
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok((at, line)) if line.starts_with(beginning) => {
                    heard += 1;
                    if heard == count {
                        return at;
                    }
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("{heard} of {count} routes changed"),
                Err(RecvTimeoutError::Disconnected) => panic!("ip monitor has ended"),
            }
        }
    }

    /// Ends, and returns how many changes were heard.
    pub fn stop(mut self) -> usize {
        // What was told last may not have been printed yet.
        let mut heard = 0;
        while self.lines.recv_timeout(Duration::from_millis(200)).is_ok() {
            heard += 1;
        }
        self.end();
        heard
    }

    fn end(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.end();
    }
}
