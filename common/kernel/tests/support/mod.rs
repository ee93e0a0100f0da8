//! Private networks for tests: a node and containers, each a network namespace
//! of its own that ends with the test, so that tests neither meet each other
//! nor touch the machine's network.

// Every test program uses another part of this.
#![allow(dead_code)]

pub mod cluster;

use std::fs::File;
use std::future::Future;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use weir_common::link::SourceCheck;
use weir_common::network::{Attachment, AttachmentIdentity, AttachmentRequest, Mtu};
use weir_kernel::{Namespace, is_same_namespace};

/// How long the kernel may take to bring a link up, and the pause between looks.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// Runs `test` under a current-thread runtime on a thread that is alone in a
/// new network namespace, the node's.
pub fn on_a_node<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let outcome = std::thread::spawn(move || {
        enter_new_namespace();
        ip("link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("start a runtime").block_on(test());
    })
    .join();
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

fn enter_new_namespace() {
    unshare(CloneFlags::CLONE_NEWNET)
        .expect("these tests need root: they make network namespaces of their own");
}

/// Another network namespace, for a container or an outside host.
pub struct Other {
    // Keeps the namespace alive, and its path valid.
    file: File,
}

impl Other {
    pub fn new() -> Self {
        let file = std::thread::spawn(|| {
            enter_new_namespace();
            File::open("/proc/thread-self/ns/net").expect("open the new namespace")
        });
        let other = Self { file: file.join().expect("make a namespace") };
        other.ip("link set lo up");
        other
    }

    /// As CNI_NETNS would name it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let namespace = Namespace::open(&self.path()).expect("open a test's namespace");
        namespace.run(work).expect("enter a test's namespace")
    }

    pub fn ip(&self, arguments: &str) -> String {
        self.within(|| ip(arguments))
    }

    /// Whether one echo request is answered.
    pub fn reaches(&self, address: IpAddr) -> bool {
        let address = address.to_string();
        self.within(|| succeeds("ping", &["-n", "-c", "1", "-W", "2", &address]))
    }
}

/// Runs `ip` with these arguments, in the thread's namespace, and returns what
/// it prints.
pub fn ip(arguments: &str) -> String {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    run("ip", &arguments)
}

/// Makes a link of the node that is up: one end of a veth, because not every
/// kernel has links of type dummy; without addresses of the kernel's own,
/// which would still be tentative for a while.
pub fn add_link(name: &str, mtu: u32) {
    let peer = format!("p{}", &name[1..]);
    ip(&format!("link add {name} mtu {mtu} type veth peer name {peer}"));
    for end in [peer.as_str(), name] {
        ip(&format!("link set {end} addrgenmode none"));
        ip(&format!("link set {end} up"));
    }
    // The kernel tells of the carrier a while later, and adds the route then.
    for end in [name, &peer] {
        let is_up = || {
            let link = ip(&format!("link show dev {end}"));
            let routes = ip(&format!("-6 route show table all dev {end}"));
            link.contains("state UP") && routes.contains("multicast ff00::/8")
        };
        until(&format!("{end} comes up"), is_up);
    }
}

pub fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(PAUSE);
    }
}

/// Makes a link with addresses of both families, by which the node is known.
pub fn add_addressed_link() {
    add_link("uplink", 1500);
    ip("address add 198.51.100.1/24 dev uplink");
    ip("address add fd00:198::1/64 dev uplink nodad");
    // The kernel adds its local route a moment later.
    let has_route = || !ip("-6 route show table local fd00:198::1").is_empty();
    until("fd00:198::1 has its local route", has_route);
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|cause| panic!("these tests need {program}: {cause}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

pub fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|cause| panic!("these tests need {program}: {cause}")).status.success()
}

/// Everything that a plan could have left behind: links, addresses, routes,
/// neighbours, NAT and parameters of the node and of `container`.
pub fn snapshot(container: &Other) -> String {
    format!(
        "node:\n{}\n{}container:\n{}",
        namespace_snapshot(),
        run("nft", &["list", "ruleset"]),
        container.within(namespace_snapshot)
    )
}

/// Waits until the kernel has given links their link-local addresses, which it does once it has
/// seen their carrier, and has checked these.
fn until_addresses_settle() {
    let end = Instant::now() + Duration::from_secs(3);
    // The loopback has this state for good.
    let is_coming_up = |line: &str| line.contains("LOWER_UP") && line.contains("state UNKNOWN");
    let is_unsettled = |line: &str| {
        line.contains(" tentative") || (is_coming_up(line) && !line.contains("LOOPBACK"))
    };
    while ip("address").lines().any(is_unsettled) && Instant::now() < end {
        thread::yield_now();
    }
}

fn namespace_snapshot() -> String {
    until_addresses_settle();
    let mut text = String::new();
    for question in
        ["-details address", "-4 route show table all", "-6 route show table all", "neighbour"]
    {
        text += &ip(question);
    }
    for directory in ["net/ipv4/conf", "net/ipv6/conf"] {
        parameters(&Path::new("/proc/sys").join(directory), &mut text);
    }
    text + &std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap()
}

fn parameters(directory: &Path, text: &mut String) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            parameters(&path, text);
        } else if let Ok(value) = std::fs::read_to_string(&path) {
            *text += &format!("{}={}\n", path.display(), value.trim_end());
        }
    }
}

pub fn identity(container_id: &str) -> AttachmentIdentity {
    AttachmentIdentity::new("test", container_id, "eth0").unwrap()
}

pub fn request(container_id: &str, addresses: &[&str]) -> AttachmentRequest {
    AttachmentRequest {
        identity: identity(container_id),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        mtu: Mtu::configured(1450),
        mac: None,
        allow_ip_forwarding: Some(false),
        source_check: SourceCheck::Strict,
        allowed_sources: Default::default(),
        routes: Vec::new(),
        default_routes: true,
        gateways: Vec::new(),
    }
}

pub fn attachment(container_id: &str, addresses: &[&str]) -> Attachment {
    Attachment::new(request(container_id, addresses)).unwrap()
}

/// The kernel with the node of the calling thread and this container.
pub fn open(container: &Other) -> weir_kernel::Kernel {
    assert!(!is_same_namespace(&container.path()).unwrap());
    weir_kernel::Kernel::open_with_container(&container.path()).unwrap()
}
