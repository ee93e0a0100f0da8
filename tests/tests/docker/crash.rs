//! dockerd or the driver killed: nothing is lost, nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use weir_tests::{
    Answer, Docker, DockerHosts, DockerOptions, Firewall, Moments, Place, allocations,
    assert_consistent, rounds, until, until_reporting,
};

use crate::{create_network, hosts, usual_firewall, with_and_without_rules};

/// How long a call may wait for a driver that is back.
const PATIENCE: Duration = Duration::from_secs(2);

/// The addresses of running containers in a network, by their names.
fn addresses(docker: &Docker, network: &str) -> BTreeMap<String, String> {
    let names = docker.succeeds(&["ps", "--format", "{{.Names}}"]);
    names.lines().map(|name| (name.to_owned(), docker.address(name, network))).collect()
}

/// Requires that exactly the addresses of running containers are taken, sooner or later.
fn assert_only_running_ones_have_addresses(world: &DockerHosts, network: &str) {
    let running: BTreeSet<String> =
        addresses(&world.hosts[0].docker, network).into_values().collect();
    let taken = || -> BTreeSet<String> {
        allocations(&world.store.entries()).keys().map(ToString::to_string).collect()
    };
    let host = &world.hosts[0];
    let report = || {
        let listed = host.docker.succeeds(&["network", "inspect", network]);
        let stored = allocations(&world.store.entries());
        let links = host.node.run(&["ip", "-d", "link", "show"]);
        format!("{running:?} run: {stored:#?}\n{listed}\n{links}\n{}", host.driver.log())
    };
    until_reporting(|| taken() == running, report);
    assert_consistent(&world.store.entries());
}

fn dockerd_is_killed(firewall: Firewall) {
    let mut world = hosts(1, firewall);
    let docker = &world.hosts[0].docker;
    create_network(docker, "blue", &["--subnet", "10.7.0.0/24"]);
    docker.start_container("once", "blue", &[]);
    docker.start_container("always", "blue", &["--restart", "always"]);
    docker.start_container("fixed", "blue", &["--restart", "always", "--ip", "10.7.0.77"]);
    for _ in 0..2 {
        let docker = &mut world.hosts[0].docker;
        docker.kill();
        docker.restart();
        let docker = &world.hosts[0].docker;
        until("containers are back", || {
            let names = docker.succeeds(&["ps", "--format", "{{.Names}}"]);
            names.lines().collect::<BTreeSet<_>>() == ["always", "fixed"].into()
        });
        assert_eq!(docker.address("fixed", "blue"), "10.7.0.77");
        let fixed = docker.container("fixed");
        assert!(fixed.reaches(&docker.address("always", "blue")));
        assert_only_running_ones_have_addresses(&world, "blue");
        assert_eq!(world.hosts[0].weir_links().len(), 2, "{:?}", world.hosts[0].weir_links());
    }
    let docker = &world.hosts[0].docker;
    docker.remove(&["once", "always", "fixed"]);
    docker.succeeds(&["network", "rm", "blue"]);
    world.assert_nothing_allocated();
}
with_and_without_rules!(dockerd_is_killed);

#[test]
fn containers_live_on_without_dockerd() {
    let dockerd = vec!["--live-restore"];
    let options = DockerOptions { dockerd, ..DockerOptions::default() };
    let mut world = DockerHosts::new(1, &options);
    world.create_pool("blue", json!({"cidr": "10.7.0.0/24"}));
    let docker = &mut world.hosts[0].docker;
    create_network(docker, "blue", &["--subnet", "10.7.0.0/24"]);
    docker.start_container("web", "blue", &[]);
    let db = docker.start_container("db", "blue", &[]);
    let address = docker.address("web", "blue");
    docker.stop();
    assert!(db.reaches(&address), "without dockerd");
    docker.restart();
    assert_eq!(docker.address("web", "blue"), address);
    assert!(db.reaches(&address), "with the next dockerd");
    docker.kill();
    assert!(db.reaches(&address), "after its death");
    docker.restart();
    assert_eq!(docker.address("web", "blue"), address);
    docker.start_container("new", "blue", &[]);
    assert!(db.reaches(&docker.address("new", "blue")));
    assert_only_running_ones_have_addresses(&world, "blue");
    let docker = &world.hosts[0].docker;
    docker.remove(&["web", "db", "new"]);
    world.assert_nothing_allocated();
}

#[test]
fn containers_live_on_without_the_driver() {
    let mut world = hosts(1, usual_firewall());
    let host = &mut world.hosts[0];
    create_network(&host.docker, "blue", &["--subnet", "10.7.0.0/24"]);
    host.docker.start_container("web", "blue", &[]);
    let db = host.docker.start_container("db", "blue", &[]);
    let address = host.docker.address("web", "blue");
    host.driver.stop();
    assert!(db.reaches(&address));
    // A call waits for the driver's return.
    let line = ["run", "--rm", "--network", "blue", Docker::image(), "echo"];
    let mut waiting = host.docker.begin(&line);
    until("dockerd has called", || {
        // systemd would start the driver by this.
        !host.node.run(&["ss", "-xlH", "src", "/run/docker/plugins/weir.sock"]).contains(" 0 ")
            || waiting.try_wait().expect("a child").is_some()
    });
    host.driver.restart();
    let begin = Instant::now();
    assert!(waiting.wait().expect("waiting for a child").success());
    assert!(begin.elapsed() < PATIENCE + Duration::from_secs(3), "{:?}", begin.elapsed());
    host.docker.remove(&["web", "db"]);
    world.assert_nothing_allocated();
}

/// How many containers come and go at once.
const LANES: usize = 3;

/// Containers that come and go.
struct Storm {
    world: DockerHosts,
    /// How long it takes to run, or to remove, all lanes undisturbed.
    usual: Duration,
    moments: Moments,
}

impl Storm {
    fn new() -> Self {
        let world = hosts(1, usual_firewall());
        create_network(&world.hosts[0].docker, "blue", &["--subnet", "10.7.0.0/24"]);
        world.hosts[0].docker.start_container("steady", "blue", &[]);
        let mut storm = Self { world, usual: Duration::ZERO, moments: Moments::new(0x0d0c_4e12) };
        let begin = Instant::now();
        for commands in [Storm::runs(), Storm::removals()] {
            assert_eq!(storm.finish(storm.begin(&commands)), 0);
        }
        storm.usual = begin.elapsed();
        storm
    }

    fn names() -> [String; LANES] {
        std::array::from_fn(|number| format!("lane{number}"))
    }

    fn runs() -> Vec<Vec<String>> {
        let line = |name: String| {
            let line = ["run", "--detach", "--network", "blue", "--name", &name, Docker::image()];
            line.map(str::to_owned).to_vec()
        };
        Self::names().into_iter().map(line).collect()
    }

    fn removals() -> Vec<Vec<String>> {
        let line = |name: String| ["rm", "--force", &name].map(str::to_owned).to_vec();
        Self::names().into_iter().map(line).collect()
    }

    fn begin(&self, commands: &[Vec<String>]) -> Vec<Child> {
        let docker = &self.world.hosts[0].docker;
        let begin =
            |line: &Vec<String>| docker.begin(&line.iter().map(String::as_str).collect::<Vec<_>>());
        commands.iter().map(begin).collect()
    }

    /// Waits for these: how many were refused because dockerd lost what it was about to ask.
    fn finish(&self, children: Vec<Child>) -> usize {
        let host = &self.world.hosts[0];
        let refused = children.into_iter().map(|child| {
            let answer = Answer::of(&child.wait_with_output().expect("waiting for a child"));
            let is_refused = answer.stderr.contains("do again what failed");
            let logs = || format!("{}\n{}", host.docker.log_end(), host.driver.log());
            assert!(answer.succeeded || is_refused, "{answer:?}\n{}", logs());
            usize::from(is_refused)
        });
        refused.sum()
    }

    /// Kills the driver while these are at work, once: how long they take from its return on, and
    /// how many were refused.
    fn disturb(&mut self, commands: &[Vec<String>]) -> (Duration, usize) {
        let children = self.begin(commands);
        // Not to wait for anything: to die at another point each time.
        thread::sleep(self.moments.within(self.usual));
        let driver = &mut self.world.hosts[0].driver;
        driver.kill();
        driver.restart();
        driver.await_ready();
        let back = Instant::now();
        let refused = self.finish(children);
        (back.elapsed(), refused)
    }

    /// Requires that no two running containers have one address, and that all work.
    fn assert_apart(&self) {
        let docker = &self.world.hosts[0].docker;
        let found = addresses(docker, "blue");
        let apart: BTreeSet<&String> = found.values().collect();
        assert_eq!(apart.len(), found.len(), "{found:?}");
        let steady = docker.container("steady");
        for (name, address) in &found {
            assert!(steady.reaches(address), "{name} has {address}");
        }
    }
}

/// Nothing is leaked, no address is given twice, and no call waits for long. A call at which the
/// driver died may be refused: dockerd repeats it without its body.
#[test]
#[expect(clippy::print_stdout, reason = "the time is a result")]
fn the_driver_is_killed_at_random_moments() {
    let mut storm = Storm::new();
    let (mut longest, mut refused) = (Duration::ZERO, 0);
    let total = rounds(10, 67);
    for _ in 0..total {
        for commands in [Storm::runs(), Storm::removals()] {
            let (time, lost) = storm.disturb(&commands);
            (longest, refused) = (longest.max(time), refused + lost);
            storm.assert_apart();
        }
    }
    println!(
        "{} runs and as many removals, {} kills: {refused} refused; the last call ended at most \
         {longest:?} after the driver's return",
        total * LANES,
        2 * total
    );
    // dockerd repeats a broken call after a second of its own.
    assert!(longest < PATIENCE + storm.usual, "{longest:?}, undisturbed {:?}", storm.usual);
    storm.world.store.age_allocations();
    storm.world.hosts[0].driver.restart_with(&["--sweep-pause", "1"]);
    assert_only_running_ones_have_addresses(&storm.world, "blue");
    let host = &storm.world.hosts[0];
    until("only its link is left", || host.weir_links().len() == 1);
    assert!(host.docker.container("steady").reaches("172.30.0.11"));
    host.docker.remove(&["steady"]);
    host.docker.succeeds(&["network", "rm", "blue"]);
    storm.world.assert_nothing_allocated();
}
