//! What has to be known of a plugin to put it to the test: the keys of its
//! configuration. Nothing else in this program is about any plugin.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use weir_tests::{Answer, Node, Place};

/// What the addresses of a network are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// IPv4 addresses out of 10.9.0.0/24.
    Usual,
    /// The same, with a gateway.
    Gateway,
    /// The same as the usual one, but less than [`ROOM_LIMIT`] of them.
    Small,
    /// IPv4 addresses out of 10.9.0.0/24 and IPv6 addresses out of fd00:9::/112.
    Dual,
    /// Where addresses are recorded cannot be reached.
    Unreachable,
}

/// How many containers fit into no [`World::Small`].
pub const ROOM_LIMIT: usize = 8;
/// An address of every world but the small one, which nobody is given at first.
pub const FREE: &str = "10.9.0.77";
/// As [`FREE`], of IPv6.
pub const FREE_V6: &str = "fd00:9::77";
/// An address of no world.
pub const OUTSIDE: &str = "192.0.2.7";

/// A main plugin under test.
#[derive(Clone, Debug)]
pub struct Main {
    /// The name of its program.
    pub name: String,
    /// Keys of the configuration.
    pub options: Value,
}

/// An IPAM plugin under test.
#[derive(Clone, Debug)]
pub struct Ipam {
    /// The name of its program.
    pub name: String,
    options: Value,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Weir,
    HostLocal,
    Static,
    Unknown,
}

impl Main {
    /// The main plugin of this name; `options` are added to what it needs.
    pub fn named(name: &str, options: &Value) -> Self {
        let mut own = match name {
            "bridge" => json!({"bridge": "cni0", "isGateway": true}),
            "macvlan" | "ipvlan" => json!({"master": "eth0"}),
            _ => json!({}),
        };
        weir_tests::merge(&mut own, options.clone());
        Self { name: name.to_owned(), options: own }
    }
}

impl Ipam {
    /// The IPAM plugin of this name; `options` are added to its section.
    pub fn named(name: &str, options: &Value) -> Self {
        let kind = match name {
            "weir-ipam" => Kind::Weir,
            "host-local" => Kind::HostLocal,
            "static" => Kind::Static,
            _ => Kind::Unknown,
        };
        Self { name: name.to_owned(), options: options.clone(), kind }
    }

    /// The `ipam` section in this world; `None` if the plugin knows no such one.
    pub fn section(&self, world: World) -> Option<Value> {
        let mut section = match self.kind {
            Kind::Weir => weir_ipam(world),
            Kind::HostLocal => host_local(world),
            Kind::Static if world == World::Usual => {
                json!({"addresses": [{"address": "10.9.0.5/24", "gateway": "10.9.0.1"}]})
            }
            Kind::Unknown if world == World::Usual => json!({}),
            Kind::Static | Kind::Unknown => return None,
        };
        weir_tests::merge(&mut section, self.options.clone());
        section["type"] = self.name.as_str().into();
        Some(section)
    }

    /// Keys outside of the section in this world.
    pub fn network(&self, world: World) -> Value {
        match (self.kind, world) {
            (Kind::Weir, World::Unreachable) => {
                json!({"datastore_type": "etcdv3", "etcd_endpoints": "http://127.0.0.1:1"})
            }
            (Kind::Weir, _) => json!({"datastore_type": "embedded", "nodename": "n1"}),
            _ => json!({}),
        }
    }

    /// Keys that make the plugin act for another host on the same record of
    /// addresses; `None` if hosts share none.
    pub fn other_host(&self) -> Option<Value> {
        (self.kind == Kind::Weir).then(|| json!({"nodename": "n2"}))
    }

    /// Makes what the world needs on a node. `directories` hold the programs.
    pub fn prepare(&self, node: &Node, world: World, directories: &[&Path]) {
        if self.kind != Kind::Weir || world == World::Unreachable {
            return;
        }
        let (v4, size) =
            if world == World::Small { ("10.9.0.0/31", 31) } else { ("10.9.0.0/24", 26) };
        let mut pools = vec![pool("four", v4, size)];
        if world == World::Dual {
            pools.push(pool("six", "fd00:9::/112", 122));
        }
        let program = directories.iter().map(|directory| directory.join("weirctl"));
        let program = program.into_iter().find(|program| program.is_file());
        let mut weirctl = Command::new(program.expect("weirctl is beside weir-ipam"));
        weirctl.args(["create", "-f", "-"]).env("DATASTORE_TYPE", "embedded");
        let list =
            json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPoolList", "items": pools});
        let answer = Answer::of(&node.output(&mut weirctl, &list.to_string()));
        assert!(answer.succeeded, "making pools: {answer:?}");
    }
}

fn host_local(world: World) -> Value {
    let mut four = json!({"subnet": "10.9.0.0/24"});
    if world == World::Small {
        weir_tests::merge(&mut four, json!({"rangeStart": "10.9.0.2", "rangeEnd": "10.9.0.3"}));
    }
    let mut section = json!({"ranges": [[four]], "routes": [{"dst": "0.0.0.0/0"}]});
    match world {
        World::Dual => section["ranges"] = json!([[four], [{"subnet": "fd00:9::/112"}]]),
        // A file is where the directory should be.
        World::Unreachable => section["dataDir"] = "/proc/version/networks".into(),
        World::Usual | World::Gateway | World::Small => {}
    }
    section
}

fn weir_ipam(world: World) -> Value {
    let wants_v6 = world == World::Dual;
    let mut section = json!({"assign_ipv4": "true", "assign_ipv6": wants_v6.to_string()});
    if world == World::Gateway {
        section["gateways"] = json!(["10.9.0.1/24"]);
    }
    section
}

fn pool(name: &str, cidr: &str, block_size: u8) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPPool",
        "metadata": {"name": name},
        "spec": {"cidr": cidr, "blockSize": block_size},
    })
}
