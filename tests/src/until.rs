//! Waiting for what comes a moment after the call that causes it.

use std::io::{self, ErrorKind};
use std::thread;
use std::time::{Duration, Instant};

/// How long something may take. Under an emulated kernel everything is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Waits until something holds, and fails with `what` if it never does.
pub fn until(what: &str, holds: impl FnMut() -> bool) {
    until_reporting(holds, || what.to_owned());
}

/// As [`until`], with a report of what is there instead, made at the end.
pub fn until_reporting(mut holds: impl FnMut() -> bool, report: impl FnOnce() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() >= deadline {
            panic!("never: {}", report());
        }
        thread::sleep(PAUSE);
    }
}

/// A socket at an address that an earlier one has just given up. A process that another test is
/// starting at that moment has every socket of this process until it executes its program.
pub fn rebound<T>(mut bind: impl FnMut() -> io::Result<T>) -> T {
    let mut bound = None;
    until("the address is free", || match bind() {
        Ok(socket) => {
            bound = Some(socket);
            true
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => false,
        Err(error) => panic!("binding a socket: {error}"),
    });
    bound.expect("it was waited for")
}

/// Makes a system call again for as long as it is interrupted. One with a time limit is, whenever
/// the process is stopped and goes on (signal(7)), which a busy machine may do.
///
/// # Errors
/// What else the call says.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}
