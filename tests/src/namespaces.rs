//! Namespaces that live as long as their value.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};

/// A network, mount, host name and process namespace.
///
/// They are held by a process that ends when its standard input does: when
/// this value is dropped, and just so when the test process is killed. It is
/// the first process of the process namespace, so the kernel then kills every
/// other process in there.
pub(crate) struct Namespaces {
    holder: Child,
    network: File,
    mounts: File,
    host_name: File,
    processes: File,
}

impl Namespaces {
    /// Makes fresh namespaces. Nothing in them is set up yet but `/proc`.
    pub(crate) fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child"])
            .args(["--propagation", "private", "--mount-proc"])
            // A shell that waits for a program reaps the orphans that others leave.
            .args(["sh", "-c", "cat; exit"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (package util-linux) must be installed");
        await_echo(&mut holder);
        let open = |kind: &str| {
            let path = format!("/proc/{}/ns/{kind}", holder.id());
            File::open(&path).unwrap_or_else(|error| panic!("opening {path}: {error}"))
        };
        let (network, mounts, host_name) = (open("net"), open("mnt"), open("uts"));
        let processes = open("pid_for_children");
        Self { holder, network, mounts, host_name, processes }
    }

    /// Moves the calling thread, which must be made for this, into the
    /// network, mount and host name namespace.
    pub(crate) fn join(&self) {
        // A thread can change its mount namespace only when it shares its
        // working directory with no other thread.
        unshare(CloneFlags::CLONE_FS).expect("separating the working directory");
        self.join_network();
        setns(&self.host_name, CloneFlags::CLONE_NEWUTS).expect("joining the host name namespace");
        setns(&self.mounts, CloneFlags::CLONE_NEWNS).expect("joining the mount namespace");
    }

    /// Moves the calling thread into the network namespace alone: files are
    /// still the machine's.
    pub(crate) fn join_network(&self) {
        setns(&self.network, CloneFlags::CLONE_NEWNET)
            .expect("joining a network namespace (this needs root)");
    }

    /// Lets the processes that the calling thread starts from now on be in
    /// the process namespace. The thread can then start no thread.
    pub(crate) fn join_processes(&self) {
        setns(&self.processes, CloneFlags::CLONE_NEWPID).expect("joining the process namespace");
    }

    /// The network namespace, as a path that means it in the machine's `/proc`.
    pub(crate) fn network_path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.holder.id()).into()
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // The holder ends when it sees the end of its input. That is not
        // waited for: the kernel first waits until the last process in here
        // is reaped, and it may be this one that is to reap it.
        drop(self.holder.stdin.take());
    }
}

/// Waits until the holder runs: it sends back what it gets.
fn await_echo(holder: &mut Child) {
    let input = holder.stdin.as_mut().expect("the holder's input is a pipe");
    let output = holder.stdout.as_mut().expect("the holder's output is a pipe");
    let mut echo = [0; 1];
    let answered = input.write_all(b"\n").and_then(|()| output.read_exact(&mut echo));
    answered.expect("unshare must be able to make namespaces: the tests need root");
}
