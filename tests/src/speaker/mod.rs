//! Other programs that speak BGP: as routers between nodes, and as judges of what Weir announces.

mod bird;
mod frr;
mod gobgp;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command};

use ipnet::IpNet;

use crate::node::Node;
use crate::place::Place;
use crate::until::until_reporting;

/// Where a speaker's log is on its node.
const LOG: &str = "/run/speaker.log";

/// The program that speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpeakerProgram {
    /// BIRD 2.
    Bird,
    /// FRR: zebra and bgpd.
    Frr,
    /// GoBGP. It makes no routes in the kernel: see [`Speaker::install`]. It takes no neighbour
    /// that has a password and is known by its range alone.
    GoBgp,
}

/// Whom a speaker speaks to.
#[derive(Clone, Debug)]
pub struct Neighbour {
    /// Its address; or the range that it connects from, and is waited for.
    pub address: IpNet,
    /// Its AS number.
    pub as_number: u32,
    /// The password of the session (RFC 2385).
    pub password: Option<String>,
}

impl Neighbour {
    fn is_dynamic(&self) -> bool {
        self.address.prefix_len() < self.address.max_prefix_len()
    }
}

/// How a speaker is set up.
#[derive(Clone, Debug)]
pub struct SpeakerOptions {
    /// Its AS number.
    pub as_number: u32,
    /// Its router id.
    pub router_id: Ipv4Addr,
    /// Whom it speaks to. It tells all of them all that it knows.
    pub neighbours: Vec<Neighbour>,
    /// What it announces itself.
    pub announced: Vec<IpNet>,
    /// The communities that these have: `64512:120`, or with three numbers a large one.
    pub communities: Vec<String>,
}

impl SpeakerOptions {
    fn announced_of(&self, v6: bool) -> impl Iterator<Item = &IpNet> {
        self.announced.iter().filter(move |range| range.addr().is_ipv6() == v6)
    }

    /// The communities of two numbers, and the large ones.
    fn communities(&self) -> (Vec<&String>, Vec<&String>) {
        self.communities.iter().partition(|text| text.matches(':').count() == 1)
    }
}

/// A route as a speaker has it from a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedRoute {
    /// The next hop.
    pub next_hop: IpAddr,
    /// The AS path, the neighbour's first.
    pub as_path: Vec<u32>,
    /// The communities, also large ones: `64512:120`, `64512:1:2`.
    pub communities: BTreeSet<String>,
}

/// A BGP speaker in a node. It is killed when it is dropped.
pub struct Speaker {
    node: Node,
    program: SpeakerProgram,
    processes: Vec<Child>,
}

impl Drop for Speaker {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended by itself, or with the node.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Speaker {
    /// Starts a program, and waits until it answers.
    pub fn start(program: SpeakerProgram, node: &Node, options: &SpeakerOptions) -> Self {
        match program {
            SpeakerProgram::Bird => Self::bird(node, &bird::configuration(options)),
            SpeakerProgram::Frr => Self::frr(node, &frr::configuration(options)),
            SpeakerProgram::GoBgp => {
                Self { node: node.clone(), program, processes: vec![gobgp::start(node, options)] }
            }
        }
    }

    /// Starts BIRD with this configuration, and waits until it answers.
    pub fn bird(node: &Node, configuration: &str) -> Self {
        let processes = vec![bird::start(node, configuration)];
        Self { node: node.clone(), program: SpeakerProgram::Bird, processes }
    }

    /// Starts FRR with this configuration of bgpd, and waits until it answers.
    pub fn frr(node: &Node, configuration: &str) -> Self {
        let processes = frr::start(node, configuration, None);
        Self { node: node.clone(), program: SpeakerProgram::Frr, processes }
    }

    /// As [`Speaker::frr`], with bfdd and its configuration.
    pub fn frr_with_bfd(node: &Node, configuration: &str, of_bfd: &str) -> Self {
        let processes = frr::start(node, configuration, Some(of_bfd));
        Self { node: node.clone(), program: SpeakerProgram::Frr, processes }
    }

    /// The program with its version, as it says itself.
    pub fn version(&self) -> String {
        let program = match self.program {
            SpeakerProgram::Bird => "bird",
            SpeakerProgram::Frr => frr::BGPD,
            SpeakerProgram::GoBgp => "gobgpd",
        };
        let output = self.node.output(Command::new(program).arg("--version"), "");
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
    }

    /// Whether the session with a neighbour is up.
    pub fn is_established(&self, neighbour: IpAddr) -> bool {
        match self.program {
            SpeakerProgram::Bird => bird::is_established(&self.node, neighbour),
            SpeakerProgram::Frr => frr::is_established(&self.node, neighbour),
            SpeakerProgram::GoBgp => gobgp::is_established(&self.node, neighbour),
        }
    }

    /// All that a neighbour has announced to it, of the neighbour's family.
    pub fn received(&self, neighbour: IpAddr) -> BTreeMap<IpNet, ReceivedRoute> {
        match self.program {
            SpeakerProgram::Bird => bird::received(&self.node, neighbour),
            SpeakerProgram::Frr => frr::received(&self.node, neighbour),
            SpeakerProgram::GoBgp => gobgp::received(&self.node, neighbour),
        }
    }

    /// Waits until a neighbour has announced these and nothing else, and returns the routes.
    pub fn until_received(
        &self,
        neighbour: IpAddr,
        wanted: &[IpNet],
    ) -> BTreeMap<IpNet, ReceivedRoute> {
        let wanted: BTreeSet<IpNet> = wanted.iter().copied().collect();
        let is_there = || self.received(neighbour).into_keys().collect::<BTreeSet<_>>() == wanted;
        until_reporting(is_there, || format!("{neighbour} announces {wanted:?}\n{self}"));
        self.received(neighbour)
    }

    /// Makes routes in the kernel of what the neighbours have announced, for a program that makes
    /// none itself. It is to be called again after each change.
    pub fn install(&self, neighbours: &[IpAddr]) {
        if self.program != SpeakerProgram::GoBgp {
            return;
        }
        self.node.run(&["ip", "-4", "route", "flush", "proto", "bgp"]);
        self.node.run(&["ip", "-6", "route", "flush", "proto", "bgp"]);
        let routes = neighbours.iter().flat_map(|neighbour| self.received(*neighbour));
        let line = |(range, route): (IpNet, ReceivedRoute)| {
            format!("route replace {range} via {} proto bgp\n", route.next_hop)
        };
        let lines: String = routes.map(line).collect();
        self.node.run_with(&["ip", "-batch", "-"], &lines);
    }
}

/// What it says of itself, for messages.
impl fmt::Display for Speaker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.program {
            SpeakerProgram::Bird => bird::show(&self.node, "protocols all"),
            SpeakerProgram::Frr => frr::show(&self.node, &["bgp summary"]),
            SpeakerProgram::GoBgp => gobgp::show(&self.node, &["neighbor"]),
        };
        let (version, name) = (self.version(), self.node.name());
        write!(formatter, "{version} on {name}:\n{state}\n{}", self.node.read(LOG))
    }
}

/// Starts a program whose output goes to the log.
fn spawn(node: &Node, line: &[&str]) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$@\" >>{LOG} 2>&1"), "sh"]).args(line);
    node.spawn(&mut command)
}

/// Waits until a program answers.
fn until_it_answers(node: &Node, line: &[&str]) {
    let report = || format!("{} answers:\n{}", line[0], node.read(LOG));
    until_reporting(|| node.succeeds(line), report);
}
