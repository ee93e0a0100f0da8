//! A container with its address, and what it has to do with others.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::container::Container;
use crate::place::Place;
use crate::timed_lines::TimedLines;

/// How long a packet may be on its way under an emulated kernel.
const PATIENCE: Duration = Duration::from_secs(60);

/// A container with its address.
pub struct Pod {
    /// Its namespace.
    pub container: Container,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Pod {
    /// Pings another pod ten times a second for as long as `meanwhile` takes, and
    /// requires that no answer is missing.
    pub fn without_a_loss(&self, to: &Self, meanwhile: impl FnOnce()) {
        let ping = self.ping(to, 10);
        meanwhile();
        ping.finish();
    }

    /// Starts to ping another pod so many times a second.
    pub fn ping(&self, to: &Self, per_second: u32) -> SteadyPing {
        self.ping_address(to.address.into(), per_second)
    }

    /// As [`Pod::ping`], of any address.
    pub fn ping_address(&self, to: IpAddr, per_second: u32) -> SteadyPing {
        let (address, interval) = (to.to_string(), (1.0 / f64::from(per_second)).to_string());
        let line = ["ping", "-n", "-i", &interval, "-W", "2", &address];
        SteadyPing(TimedLines::of(&self.container, &line))
    }

    /// Connects to a new server at `address`, which `place` has.
    pub fn connect(&self, place: &impl Place, address: IpAddr) -> Connection {
        let server = place.enter(|| TcpListener::bind((address, 0))).expect("listening");
        let server_address: SocketAddr = server.local_addr().expect("a bound socket");
        let connect = || TcpStream::connect_timeout(&server_address, PATIENCE);
        let client = self.container.enter(connect);
        let client = client.unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
        let (server, seen) = server.accept().expect("the client is connected");
        for end in [&client, &server] {
            end.set_read_timeout(Some(PATIENCE)).expect("a time limit");
            end.set_write_timeout(Some(PATIENCE)).expect("a time limit");
        }
        Connection { client, server, seen: seen.ip() }
    }
}

/// A running ping.
pub struct SteadyPing(TimedLines);

impl SteadyPing {
    /// Waits for one more answer, and requires that none before it is missing. How many there
    /// were.
    pub fn finish(self) -> usize {
        let (answered, missing) = self.count();
        assert_eq!(missing, 0, "beside {answered} answers");
        answered
    }

    /// Waits for one more answer: how many there were, and how many are missing before it.
    pub fn count(self) -> (usize, usize) {
        let is_answer = |line: &str| line.contains("icmp_seq=") && line.contains(" bytes from ");
        let sequence = |line: &str| -> usize {
            let (_, rest) = line.split_once("icmp_seq=").expect("an answer has a number");
            rest.split(' ').next().expect("a word").parse().expect("ping counts")
        };
        // What is sent from here on may be on its way when ping ends.
        let before = self.0.so_far();
        let (_, later) = self.0.until("one more answer", is_answer);
        let answers = before.iter().chain(&later).filter(|line| is_answer(line));
        let sequences: BTreeSet<usize> = answers.map(|line| sequence(line)).collect();
        let sent = sequences.last().copied().unwrap_or_default();
        (sequences.len(), sent - sequences.len())
    }
}

/// Ends these pings, each with its name: those that miss more than `most` answers, and how many.
pub fn lossy(pings: Vec<(String, SteadyPing)>, most: usize) -> Vec<String> {
    let counts = pings.into_iter().map(|(name, ping)| (name, ping.count()));
    let lossy = counts.filter(|(_, (_, missing))| *missing > most);
    lossy
        .map(|(name, (answered, missing))| format!("{name}: {missing}, beside {answered}"))
        .collect()
}

/// A connection of a pod's to a server.
pub struct Connection {
    client: TcpStream,
    server: TcpStream,
    /// The client's address, as the server sees it.
    pub seen: IpAddr,
}

impl Connection {
    /// Requires that both ends can send as much as fills many packets of any size.
    pub fn carries(&mut self) {
        carry(&mut self.client, &mut self.server);
        carry(&mut self.server, &mut self.client);
    }
}

/// How much is sent, in bytes: more than one window.
const LOAD: usize = 256 << 10;

/// Requires that what one end sends arrives whole at the other.
fn carry(from: &mut TcpStream, to: &mut TcpStream) {
    let sent: Vec<u8> = (0..LOAD).map(|number| (number % 251) as u8).collect();
    let mut received = vec![0; LOAD];
    // Not all of it need find room on the way.
    thread::scope(|scope| {
        let sending = scope.spawn(|| from.write_all(&sent).expect("sending"));
        to.read_exact(&mut received).expect("receiving");
        sending.join().expect("sending");
    });
    assert!(received == sent, "what arrived is not what was sent");
}
