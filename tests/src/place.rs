//! What nodes and containers have in common: programs run there.

use std::io::Write;
use std::panic::resume_unwind;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use serde_json::Value;

/// Somewhere a program can run: on a node or in a container.
pub trait Place: Sync {
    /// Moves the calling thread there for good.
    fn join(&self);

    /// Lets the processes that the calling thread starts from now on end with
    /// the node.
    fn join_processes(&self);

    /// What to call this place in messages.
    fn name(&self) -> &str;

    /// Runs `work` there, on a thread of its own.
    fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter_and_work = || {
            self.join();
            work()
        };
        thread::scope(|scope| scope.spawn(enter_and_work).join())
            .unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Starts a program there. It is killed when the node goes.
    fn spawn(&self, command: &mut Command) -> Child {
        self.enter(|| {
            self.join_processes();
            command.spawn().unwrap_or_else(|error| {
                panic!("{}: cannot start {:?}: {error}", self.name(), command.get_program())
            })
        })
    }

    /// Runs a program there with `input` on its standard input, and returns
    /// what it wrote.
    fn output(&self, command: &mut Command, input: &str) -> Output {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.spawn(command);
        let mut stdin = child.stdin.take().expect("the standard input is a pipe");
        // A program that does not read its input is not at fault.
        stdin.write_all(input.as_bytes()).ok();
        drop(stdin);
        child.wait_with_output().expect("waiting for a child")
    }

    /// Runs a command line there, which must succeed, and returns its standard
    /// output.
    fn run(&self, line: &[&str]) -> String {
        self.run_with(line, "")
    }

    /// As [`Place::run`], with `input` on the standard input.
    fn run_with(&self, line: &[&str], input: &str) -> String {
        let output = self.output(Command::new(line[0]).args(&line[1..]), input);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {} failed: {error}", self.name(), line.join(" "));
        String::from_utf8(output.stdout).expect("programs write UTF-8")
    }

    /// Whether a command line run there succeeds.
    fn succeeds(&self, line: &[&str]) -> bool {
        self.output(Command::new(line[0]).args(&line[1..]), "").status.success()
    }

    /// What `ip -d -j link show` says about the interface `name`.
    fn link(&self, name: &str) -> Value {
        let links = self.run(&["ip", "-d", "-j", "link", "show", "dev", name]);
        let mut links: Value = serde_json::from_str(&links).expect("ip prints JSON");
        links[0].take()
    }

    /// Sends one ICMP echo request of `size` bytes, unfragmented, to an IPv4
    /// or IPv6 address and says whether the answer came within two seconds.
    fn reaches_with(&self, address: &str, size: u16) -> bool {
        let size = size.to_string();
        self.succeeds(&["ping", "-n", "-q", "-c1", "-W2", "-Mdo", "-s", &size, address])
    }

    /// Whether an IPv4 packet of exactly `length` bytes with its header (at
    /// least 28) passes to an address unfragmented, and the answer back.
    fn passes(&self, address: &str, length: u16) -> bool {
        // Without the headers of IPv4 and ICMP.
        self.reaches_with(address, length - 28)
    }

    /// Whether `address` answers to one small ICMP echo request.
    fn reaches(&self, address: &str) -> bool {
        self.reaches_with(address, 56)
    }
}
