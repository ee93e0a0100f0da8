//! The harness of Weir's end-to-end tests.
//!
//! A test builds a small world and drives the real programs in it:
//!
//! - [`Node`]: a host of its own: network, mounts, processes and host name;
//!   [`Network`] connects several of them, [`Underlay`] those of a cluster in
//!   two subnets, and [`Capture`] sees what they send.
//! - [`Container`]: a network namespace on a node.
//! - [`Etcd`]: a real etcd on a node; [`Store`]: what a datastore holds.
//! - [`Cluster`]: a node with a datastore and pools, where most tests begin.
//! - [`Call`] and [`CniTool`]: run a plugin, as a runtime does.
//! - [`Containerd`], [`Cri`] and [`Podman`]: real runtimes, with real containers;
//!   [`DockerHosts`]: hosts with a real dockerd and Weir's driver for it.
//! - [`Fleet`]: a cluster of several nodes; [`Agent`]: the agent of a node.
//! - [`Moved`]: a node of a recorded cluster, with Weir in Calico's place.
//! - [`Session`]: what calicoctl was asked and answered.
//! - [`Snapshot`]: what a namespace looks like, to compare before and after.
//!
//! Everything lives in namespaces that end with the test, also when it panics
//! or is killed, so that tests run beside each other and leave the machine as
//! it was. The functions here panic when the world does not do what it is
//! asked: a tool that is missing fails the test.
#![warn(missing_docs)]

mod agent;
mod allocations;
mod binaries;
mod calicoctl;
mod capture;
mod certificates;
mod cluster;
mod cnitool;
mod container;
mod containerd;
mod cri;
mod docker;
mod etcd;
mod filesystem;
mod fleet;
mod lock;
mod moments;
mod moved;
mod namespaces;
mod network;
mod node;
mod place;
mod plugin;
mod pod;
mod podman;
mod program_log;
mod published;
mod results;
mod rounds;
mod routed;
mod runtimes;
mod snapshot;
mod speaker;
mod store;
mod timed_lines;
mod underlay;
mod unit;
mod until;
mod weirctl;

pub use agent::{Agent, announced, cluster_routes};
pub use allocations::{allocations, assert_consistent, handles};
pub use binaries::{CNI_PATH, binaries, cni_path, find_program};
pub use calicoctl::{Exchange, Session, masked, recorded_outputs, recorded_sessions};
pub use capture::{Capture, Header, ICMP, ICMPV6, IPIP, Packet, UDP, VXLAN_PORT};
pub use certificates::Certificates;
pub use cluster::{Cluster, Families, merge};
pub use cnitool::CniTool;
pub use container::Container;
pub use containerd::Containerd;
pub use cri::{Cri, Sandbox};
pub use docker::{
    Docker, DockerDriver, DockerHost, DockerHosts, DockerOptions, Firewall, Lost, PluginSocket,
    Relay, call_on,
};
pub use etcd::{Etcd, Options as EtcdOptions};
pub use fleet::{Fleet, Member};
pub use lock::HeldLock;
pub use moments::Moments;
pub use moved::Moved;
pub use network::Network;
pub use node::{Node, UPLINK};
pub use place::Place;
pub use plugin::{Answer, Call, Failure, Running};
pub use pod::{Connection, Pod, SteadyPing, lossy};
pub use podman::Podman;
pub use published::Published;
pub use results::{address, host_interface};
pub use rounds::rounds;
pub use routed::{Routed, router_programs};
pub use runtimes::SERVED;
pub use snapshot::Snapshot;
pub use speaker::{Neighbour, ReceivedRoute, Speaker, SpeakerOptions, SpeakerProgram};
pub use store::{Entries, Store, recorded_store};
pub use timed_lines::{RouteMonitor, TimedLines};
pub use underlay::{Host, Subnet, Underlay};
pub use until::{rebound, uninterrupted, until, until_reporting};
