//! A node: a host of its own.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use nix::unistd::sethostname;

use crate::container::Container;
use crate::filesystem;
use crate::namespaces::Namespaces;
use crate::place::Place;
use crate::until::until;

/// The interface by which a node reaches the rest of the world.
pub const UPLINK: &str = "eth0";

/// A host with its own network, processes, host name and files under `/run`,
/// `/etc/cni`, `/etc/weir`, `/opt/cni`, `/var/lib/cni` and `/var/lib/weir`. It goes, with all that
/// is in it, when its last clone is dropped or the test process ends.
#[derive(Clone)]
pub struct Node {
    name: Arc<str>,
    namespaces: Arc<Namespaces>,
    /// Where the uplink of a node on its own ends.
    nowhere: Option<Arc<Namespaces>>,
}

impl Node {
    /// A node with a loopback interface and nothing else. IP forwarding is
    /// off.
    pub fn bare(name: &str) -> Self {
        let namespaces = Arc::new(Namespaces::new());
        let node = Self { name: name.into(), namespaces, nowhere: None };
        node.enter(|| {
            filesystem::prepare();
            sethostname(name).expect("setting the host name");
        });
        node.write("/proc/sys/net/ipv4/ip_forward", "0");
        if has_ipv6() {
            node.write("/proc/sys/net/ipv6/conf/all/forwarding", "0");
        }
        node.run(&["ip", "link", "set", "lo", "up"]);
        node
    }

    /// A node on its own: an [`UPLINK`] of 1500 bytes MTU that leads nowhere,
    /// with 172.30.0.11/24, fd00:30::11/64 and default routes.
    pub fn new(name: &str) -> Self {
        Self::with_mtu(name, 1500)
    }

    /// As [`Node::new`], with an uplink of `mtu` bytes (at least 1280).
    pub fn with_mtu(name: &str, mtu: u32) -> Self {
        let mut node = Self::bare(name);
        let nowhere = Namespaces::new();
        connect(&nowhere, "wire", &node);
        node.configure_uplink(11, mtu);
        node.nowhere = Some(Arc::new(nowhere));
        node
    }

    /// Gives the uplink its addresses and routes; `number` is the last part of
    /// the addresses.
    pub(crate) fn configure_uplink(&self, number: u8, mtu: u32) {
        let lines = format!(
            "link set {UPLINK} mtu {mtu} addrgenmode none up\n\
             address add 172.30.0.{number}/24 dev {UPLINK}\n\
             address add fe80::{number}/64 dev {UPLINK} nodad\n\
             address add fd00:30::{number}/64 dev {UPLINK} nodad\n\
             route add default via 172.30.0.1\n\
             route add default via fd00:30::1\n"
        );
        self.run_with(&["ip", "-batch", "-"], &lines);
        self.wait_for_route(&format!("fd00:30::{number}"));
    }

    /// Waits for the local route of an IPv6 address: the kernel adds it a moment
    /// after the address, and a snapshot would see it appear.
    fn wait_for_route(&self, address: &str) {
        let find = ["ip", "-6", "route", "show", "table", "local", address];
        let what = format!("{}: a local route to {address}", self.name);
        until(&what, || !self.run(&find).is_empty());
    }

    /// A new network namespace on this node, at `/run/netns/<name>`.
    pub fn container(&self, name: &str) -> Container {
        Container::new(self, name)
    }

    /// Writes a file on this node, with the directories above it.
    pub fn write(&self, path: &str, content: &str) {
        let written = self.enter(|| {
            if let Some(directory) = Path::new(path).parent() {
                fs::create_dir_all(directory)?;
            }
            fs::write(path, content)
        });
        written.unwrap_or_else(|error| panic!("{}: writing {path}: {error}", self.name));
    }

    /// The content of a file on this node.
    pub fn read(&self, path: &str) -> String {
        self.enter(|| fs::read_to_string(path))
            .unwrap_or_else(|error| panic!("{}: reading {path}: {error}", self.name))
    }

    /// Restarts the machine, as far as Weir can see it: the kernel's boot id is
    /// `boot_id`, containers, links, NAT and forwarding are gone, `/run` is empty,
    /// and what is on disk is still there.
    pub fn reboot(&self, boot_id: &str) {
        let script = format!(
            "set -e\n\
             for link in $(ip -o link show type veth | sed -n 's/^[0-9]*: \\(weir[^@:]*\\).*/\\1/p')\n\
             do ip link delete $link; done\n\
             ip -all netns delete\n\
             nft flush ruleset\n\
             echo 0 >/proc/sys/net/ipv4/ip_forward\n\
             echo 0 >/proc/sys/net/ipv6/conf/all/forwarding\n\
             find /run -mindepth 1 -maxdepth 1 ! -name machine ! -name netns -exec rm -r {{}} +\n\
             echo {boot_id} >/etc/boot_id\n\
             mount --bind /etc/boot_id /proc/sys/kernel/random/boot_id\n"
        );
        self.run_with(&["sh"], &script);
    }

    pub(crate) fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }
}

/// Makes a veth from the interface `name` of `network`, which is set up, to
/// the node's [`UPLINK`], which is not.
pub(crate) fn connect(network: &Namespaces, name: &str, node: &Node) {
    let far = node.namespaces.network_path();
    let make = || {
        // The node's namespace is a path in the machine's /proc, so only the
        // network namespace is another one here.
        network.join_network();
        for line in [
            format!("link add {name} type veth peer name {UPLINK} netns {}", far.display()),
            format!("link set {name} up"),
        ] {
            let status = Command::new("ip").args(line.split(' ')).status();
            assert!(status.expect("ip must be installed").success(), "ip {line} failed");
        }
    };
    thread::scope(|scope| scope.spawn(make).join()).expect("connecting a node");
}

impl Place for Node {
    fn join(&self) {
        self.namespaces.join();
    }

    fn join_processes(&self) {
        self.namespaces.join_processes();
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// Whether the kernel has IPv6: the one of `without_ipv6.rs` has not.
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}
