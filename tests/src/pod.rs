//! A container with its address, and what it has to do with others.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::container::Container;
use crate::place::Place;

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
        let address = to.address.to_string();
        let mut ping = Command::new("ping");
        ping.args(["-n", "-i", "0.1", "-W", "2", &address]).stdout(Stdio::piped());
        let child = self.container.spawn(&mut ping);
        meanwhile();
        let id = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        kill(id, Signal::SIGINT).expect("ending ping");
        let output = child.wait_with_output().expect("what ping saw");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(" 0% packet loss"), "{text}");
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
