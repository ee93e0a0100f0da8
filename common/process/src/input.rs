//! Standard input with a time limit.

use std::io::{self, Read, Stdin};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long the runtime may take to pass the whole configuration. It has it ready.
const LONGEST: Duration = Duration::from_secs(10);

/// The standard input, which ends with an error when it does not end in time.
pub(crate) struct LimitedInput {
    input: Stdin,
    until: Instant,
}

impl LimitedInput {
    /// Its time runs from now on.
    pub(crate) fn new(input: Stdin) -> Self {
        Self { input, until: Instant::now() + LONGEST }
    }
}

impl Read for LimitedInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut waiting = [PollFd::new(self.input.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waiting, left) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(0) => {
                    let seconds = LONGEST.as_secs();
                    let message = format!("it has no end after {seconds} s; close it");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, message));
                }
                Ok(_) => return self.input.read(buffer),
            }
        }
    }
}
