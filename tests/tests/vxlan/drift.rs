//! What is lost or changed by hand comes back.

use std::net::IpAddr;
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use weir_tests::{Fleet, Member, Moments, Place, Subnet, cluster_routes, rounds};

use crate::{DEVICE, DEVICE_V6, dual, listed, pool, pool_v6};

/// Each of these takes something from the tunnel of a node, or changes it. The words that begin
/// with `%` are told by [`Tunnel`].
const LOSSES: [(&str, &str); 19] = [
    ("device deleted", "ip link delete %dev"),
    ("device down", "ip link set %dev down"),
    ("hardware address changed", "ip link set %dev address 66:00:00:00:00:01"),
    ("MTU changed", "ip link set %dev mtu 1400"),
    ("alias changed", "ip link set %dev alias other"),
    ("learning switched on", "ip link set %dev type vxlan id 4096 learning"),
    ("address removed", "ip address delete %own dev %dev"),
    (
        "address moved to another link",
        "ip address delete %own dev %dev; ip address add %own dev eth0",
    ),
    ("link's own address removed", "ip address delete 169.254.191.1/32 dev %dev"),
    ("second address added", "ip address add %stray dev %dev"),
    ("neighbour removed", "ip neighbour delete %neighbour dev %dev"),
    (
        "neighbour changed",
        "ip neighbour replace %neighbour lladdr 66:00:00:00:00:02 dev %dev nud permanent",
    ),
    (
        "stranger's neighbour added",
        "ip neighbour add %stray lladdr 66:00:00:00:00:02 dev %dev nud permanent",
    ),
    ("forwarding entry removed", "bridge fdb delete %mac dev %dev dst %host self"),
    ("forwarding entry changed", "bridge fdb replace %mac dev %dev dst %elsewhere self permanent"),
    (
        "stranger's forwarding entry added",
        "bridge fdb append 66:00:00:00:00:02 dev %dev dst %elsewhere self permanent",
    ),
    ("route removed", "ip %family route delete %block"),
    ("route changed", "ip %family route replace %block via %gateway dev eth0 proto 77"),
    ("own block's route removed", "ip %family route delete blackhole %kept"),
];

/// What is put elsewhere.
const MOVED: &str = "ip address add %own dev eth0";

/// How long nothing happens before each loss in the long form: the agent is at rest, and the moment
/// is any.
const REST: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(3)];

/// A tunnel of one family on a node, which leads to one other node.
struct Tunnel<'a> {
    member: &'a Member,
    family: &'static str,
    device: &'static str,
    /// What each word of [`LOSSES`] stands for.
    words: Vec<(&'static str, String)>,
    /// All that Weir keeps of it.
    whole: String,
}

impl<'a> Tunnel<'a> {
    fn of(member: &'a Member, family: &'static str) -> Self {
        let (device, length) = if family == "-4" { (DEVICE, 32) } else { (DEVICE_V6, 128) };
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        let shown = listed(member, &["ip", "-j", family, "address", "show", "dev", device]);
        let all = shown[0]["addr_info"].as_array().expect("a list");
        let own = all.iter().find(|address| address["scope"] == "global").expect("its own");
        let neighbours = listed(
            member,
            &["ip", "-j", family, "neighbour", "show", "dev", device, "nud", "permanent"],
        );
        let entries = listed(member, &["bridge", "-j", "fdb", "show", "dev", device]);
        let default = listed(member, &["ip", "-j", family, "route", "show", "default"]);
        let routes = cluster_routes(member.node(), family);
        let range = |route: Option<&String>| {
            let words = route.expect("a route").trim_start_matches("blackhole ");
            words.split(' ').next().expect("a range").to_owned()
        };
        let of_family = |v4: &str, v6: &str| (if family == "-4" { v4 } else { v6 }).to_owned();
        let words = vec![
            ("%family", family.to_owned()),
            ("%dev", device.to_owned()),
            ("%own", format!("{}/{length}", text(&own["local"]))),
            ("%neighbour", text(&neighbours[0]["dst"])),
            ("%mac", text(&neighbours[0]["lladdr"])),
            ("%host", text(&entries[0]["dst"])),
            ("%block", range(routes.iter().find(|route| route.contains(device)))),
            ("%kept", range(routes.iter().find(|route| route.starts_with("blackhole")))),
            ("%stray", of_family("10.99.0.1", "fd99::1")),
            ("%elsewhere", of_family("172.31.4.99", "fd31:4::99")),
            ("%gateway", text(&default[0]["gateway"])),
        ];
        let mut tunnel = Self { member, family, device, words, whole: String::new() };
        tunnel.whole = tunnel.state();
        tunnel
    }

    /// Runs these lines on the node, with all words replaced.
    fn run(&self, lines: &str) {
        let told = |line: String, (word, is): &(&str, String)| line.replace(word, is);
        let lines = self.words.iter().fold(lines.to_owned(), told);
        self.member.node().run(&["sh", "-ec", &lines]);
    }

    /// Takes something from it, waits until it is whole again, and says how long that took.
    fn lose(&self, fleet: &Fleet, (what, lines): (&str, &str)) -> Duration {
        self.run(lines);
        let begun = Instant::now();
        let what = format!("{} of {}: repaired\n{}\n", what, self.device, self.whole);
        fleet.until(&what, || self.state() == self.whole);
        let time = begun.elapsed();
        // What is not Weir's stays.
        lines.contains(MOVED).then(|| self.run(&MOVED.replace(" add ", " delete ")));
        time
    }

    /// Each loss so often: a line of a table with the median and the longest time that the repair
    /// took, in seconds. After each everything must be reached.
    fn lose_all(&self, fleet: &Fleet, connected: impl Fn()) -> Vec<String> {
        let mut moments = Moments::new(1);
        let mut rest = || REST[0] + moments.within(REST[1] - REST[0]);
        let mut line = |loss: (&str, &str)| {
            let mut times = Vec::new();
            for _ in 0..rounds(1, 10) {
                thread::sleep(if rounds(0, 1) == 1 { rest() } else { Duration::ZERO });
                times.push(self.lose(fleet, loss).as_secs_f64());
                connected();
            }
            times.sort_by(f64::total_cmp);
            let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
            format!("| {} | {} | {median:.2} | {worst:.2} |", self.device, loss.0)
        };
        // That of IPv6 has no address like this.
        let of_both = |(_, lines): &&(&str, &str)| !lines.contains("169.254.");
        let of_family = |loss: &&(&str, &str)| self.family == "-4" || of_both(loss);
        LOSSES.iter().filter(of_family).map(|loss| line(*loss)).collect()
    }

    /// All that Weir keeps of it, without the numbers of links.
    fn state(&self) -> String {
        let Self { family, device, .. } = self;
        let scope = if *family == "-6" { "scope global" } else { "" };
        let line = format!(
            "ip -o -d link show {device} | sed 's/^[0-9]*: //'
            ip {family} -brief address show {scope} dev {device}
            ip {family} neighbour show dev {device} nud permanent | sort
            bridge fdb show dev {device} | sort
            ip {family} route show proto 77 | grep -e ' via ' -e ^blackhole | sort"
        );
        let output = self.member.node().output(Command::new("sh").args(["-c", &line]), "");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Prints how long it took to repair each loss. In the short form they come in quick succession,
/// so that the agent's pacing counts (`ctl/src/node/pace.rs`), in the long form singly.
#[test]
#[expect(clippy::print_stdout, reason = "the times are a result")]
fn what_is_changed_by_hand_is_repaired() {
    let mut fleet = dual(&[Subnet::First, Subnet::Second]);
    // So that each must be told by the kernel.
    fleet.agent_arguments.extend(["--drift-interval", "86400"]);
    pool(&fleet, "blue", 61, "Always");
    pool_v6(&fleet, "blue6", 61, "Always");
    fleet.start_agents();
    let pods = [0, 1].map(|member| fleet.dual_pod(member, ["blue", "blue6"]));
    let connected = || {
        for (from, to) in [(0, 1), (1, 0)] {
            for address in [IpAddr::V4(pods[to].0.address), pods[to].1.into()] {
                let reached = || pods[from].0.container.reaches(&address.to_string());
                fleet.until(&format!("n{} reaches {address}", from + 1), reached);
            }
        }
    };
    connected();
    // Each on a node of its own, so that no agent is at work for the other one.
    let tunnels = [(0, "-4"), (1, "-6")];
    let tunnels = tunnels.map(|(member, family)| Tunnel::of(&fleet.members[member], family));
    let lines = thread::scope(|scope| {
        let all = tunnels.each_ref().map(|it| scope.spawn(|| it.lose_all(&fleet, connected)));
        all.map(|lines| lines.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    println!("| device | loss | median s | worst s |\n|---|---|--:|--:|");
    lines.iter().flatten().for_each(|line| println!("{line}"));
}
