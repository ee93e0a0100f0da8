//! Containers of Docker's with addresses out of Weir's pools: real dockerds, each with the driver
//! beside it, once without rules of dockerd's own and once with its defaults where that matters.

mod addresses;
mod article;
mod crash;
mod labels;
mod laboratory;
mod lost_calls;
mod networks;
mod ports;
mod protocol;
mod sweep;
mod two_hosts;

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;
use weir_tests::{Docker, DockerHosts, DockerOptions, Firewall, Place, SERVED, rounds, until};

/// How long an answer over the network may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Makes two tests of a function: without rules of dockerd's, and with its defaults.
macro_rules! with_and_without_rules {
    ($name:ident) => {
        mod $name {
            #[test]
            fn without_rules_of_dockers() {
                super::$name(weir_tests::Firewall::Untouched);
            }

            #[test]
            fn with_dockers_defaults() {
                super::$name(weir_tests::Firewall::Dockers);
            }
        }
    };
}
pub(crate) use with_and_without_rules;

/// So many hosts without agents, and pools `blue`, 10.7.0.0/24, and `green`, 10.9.0.0/24, with
/// `blue-v6`, fd00:7::/112, and `green-v6`, fd00:9::/112.
fn hosts(number: u8, firewall: Firewall) -> DockerHosts {
    let options = DockerOptions { firewall, ..DockerOptions::default() };
    let world = DockerHosts::new(number, &options);
    for (name, number) in [("blue", 7), ("green", 9)] {
        world.create_pool(name, json!({"cidr": format!("10.{number}.0.0/24")}));
        let cidr = format!("fd00:{number}::/112");
        world.create_pool(&format!("{name}-v6"), json!({"cidr": cidr}));
    }
    world
}

/// One of [`hosts`], without rules of dockerd's; in the long form with its defaults.
fn one_host() -> DockerHosts {
    hosts(1, usual_firewall())
}

/// What dockerd does with the firewall in tests that are not run both ways.
fn usual_firewall() -> Firewall {
    [Firewall::Untouched, Firewall::Dockers][rounds(0, 1)]
}

/// Creates a network of Weir's.
fn create_network(docker: &Docker, name: &str, arguments: &[&str]) {
    let line = ["network", "create", "--driver", "weir", "--ipam-driver", "weir"];
    docker.succeeds(&[&line[..], arguments, &[name]].concat());
}

/// Waits until a container serves at a TCP port of an address: its program starts a moment after
/// `docker run` has ended.
fn assert_serves(place: &impl Place, address: &str, port: u16, what: &str) {
    let serves = || fetch(place, address, port).is_ok_and(|it| it == SERVED);
    until(&format!("{address}:{port} is served: {what}"), serves);
}

/// What is answered at a TCP port of an address, asked from `place`.
fn fetch(place: &impl Place, address: &str, port: u16) -> io::Result<String> {
    let address: IpAddr = address.parse().map_err(io::Error::other)?;
    place.enter(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.trim().to_owned())
    })
}
