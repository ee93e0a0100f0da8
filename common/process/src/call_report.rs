//! What a plugin leaves to the node's agent of each call, to be counted: a datagram that is
//! never waited for.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use weir_common::cni::CniCommand;

/// Where the agent of a node takes reports of calls.
pub const CALLS_SOCKET: &str = "/run/weir/calls.sock";

/// The largest report, in bytes.
pub const MAX_REPORT: usize = 64;

/// A CNI call that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallReport {
    /// What was asked for.
    pub command: CniCommand,
    /// The number of its error; `None` where it succeeded.
    pub code: Option<u32>,
    /// How long the work took.
    pub time: Duration,
}

impl CallReport {
    /// As it is sent: the command, the code or 0, and the time in microseconds.
    fn to_text(self) -> String {
        let Self { command, code, time } = self;
        format!("{} {} {}", command.as_str(), code.unwrap_or(0), time.as_micros())
    }

    /// Reads what was sent; `None` where it is no report.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_REPORT)?;
        let mut words = text.split(' ');
        let command = CniCommand::parse(words.next()?).ok()?;
        let code = words.next()?.parse().ok()?;
        let time = Duration::from_micros(words.next()?.parse().ok()?);
        let is_whole = words.next().is_none();
        is_whole.then_some(Self { command, code: (code != 0).then_some(code), time })
    }

    /// Sends it to whoever listens at `path`. Where nobody does, or the listener is behind, the
    /// report is lost: no call waits or fails for being counted.
    pub(crate) fn send(self, path: &Path) {
        // The loss is all there is to do.
        let _: io::Result<usize> = (|| {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            socket.send_to(self.to_text().as_bytes(), path)
        })();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(code: Option<u32>) -> CallReport {
        CallReport { command: CniCommand::Add, code, time: Duration::from_micros(20_017) }
    }

    #[test]
    fn what_is_sent_is_what_arrives() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("calls.sock");
        report(None).send(&path);
        let listener = UnixDatagram::bind(&path).unwrap();
        for sent in [report(None), report(Some(101)), report(Some(u32::MAX))] {
            sent.send(&path);
            let mut bytes = [0; MAX_REPORT];
            let length = listener.recv(&mut bytes).unwrap();
            assert_eq!(CallReport::parse(&bytes[..length]), Some(sent));
        }
    }

    #[test]
    fn nobody_waits_for_a_listener_that_is_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("calls.sock");
        let _listener = UnixDatagram::bind(&path).unwrap();
        // More than any queue holds. It ends.
        for _ in 0..10_000 {
            report(None).send(&path);
        }
    }

    #[test]
    fn other_things_are_no_reports() {
        for text in [
            "",
            "ADD",
            "ADD 0",
            "ADD 0 ",
            "ADD 0 1 2",
            "ADD  0 1",
            "add 0 1",
            "ADD -1 1",
            "ADD 0 1\n",
            "ADD 0 99999999999999999999",
            "ADD 4294967296 1",
            "RM 0 1",
            "ADD 0 1e3",
        ] {
            assert_eq!(CallReport::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(CallReport::parse(b"ADD 0 \xff"), None);
        let long = format!("ADD 0 {}1", "0".repeat(MAX_REPORT));
        assert_eq!(CallReport::parse(long.as_bytes()), None);
        assert_eq!(CallReport::parse(b"ADD 0 20017"), Some(report(None)));
    }
}
