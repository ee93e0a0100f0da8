//! The bench on which one check puts one plugin to the test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_tests::{Answer, Call, Container, Node, Place, Snapshot, find_program};

use crate::subject::{Ipam, Main, ROOM_LIMIT, World};
use crate::verdict::{Fault, not_offered};

/// How long the kernel may take to remove what belonged to a namespace that ended.
const MOMENT: Duration = Duration::from_secs(3);

/// All versions of the specification, oldest first.
pub const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The commands that a version has, VERSION aside.
pub fn commands(version: &str) -> Vec<&'static str> {
    let mut commands = vec!["ADD", "DEL"];
    if version >= "0.4.0" {
        commands.push("CHECK");
    }
    if version >= "1.1.0" {
        commands.extend(["GC", "STATUS"]);
    }
    commands
}

/// The name of the network under test.
pub const NETWORK: &str = "conformance";

/// Which of the two plugins is under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The main plugin, which delegates to the other.
    Main,
    /// The IPAM plugin, alone.
    Ipam,
}

/// Two plugins and where they are.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The main plugin.
    pub main: Main,
    /// The IPAM plugin.
    pub ipam: Ipam,
    /// Directories with plugins.
    pub directories: Vec<PathBuf>,
    /// How long one call may take, in seconds.
    pub call_limit: u16,
}

/// One plugin of a pair, and what it claims.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The pair.
    pub pair: Pair,
    /// Which of the two is meant.
    pub role: Role,
    /// The versions that it claims, oldest first.
    pub claimed: Vec<&'static str>,
    /// The versions that it can be called in: the main plugin needs an IPAM
    /// plugin that claims the same.
    pub versions: Vec<&'static str>,
}

/// A private node where one check runs.
pub struct Scene<'a> {
    bench: &'a Bench,
    world: World,
    /// The node.
    pub node: Node,
}

impl Pair {
    /// The value of `CNI_PATH`.
    pub fn path(&self) -> String {
        let directories = self.directories.iter().map(|it| it.display().to_string());
        directories.collect::<Vec<_>>().join(":")
    }

    /// Where a plugin is.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        self.directories.iter().map(|it| it.join(name)).find(|it| it.is_file())
    }

    fn configuration(&self, world: World, version: &str) -> Option<Value> {
        let mut configuration = self.ipam.network(world);
        weir_tests::merge(&mut configuration, self.main.options.clone());
        let own = json!({
            "cniVersion": version,
            "name": NETWORK,
            "type": self.main.name,
            "ipam": self.ipam.section(world)?,
        });
        weir_tests::merge(&mut configuration, own);
        Some(configuration)
    }
}

impl Bench {
    /// A node with the usual addresses.
    pub fn usual(&self) -> Result<Scene<'_>, Fault> {
        self.scene(World::Usual)
    }

    /// A node with the addresses of this world.
    pub fn scene(&self, world: World) -> Result<Scene<'_>, Fault> {
        if self.pair.ipam.section(world).is_none() {
            return not_offered(format!("{} has no {world:?} world", self.pair.ipam.name));
        }
        let node = Node::new("n1");
        let directories: Vec<&Path> = self.pair.directories.iter().map(PathBuf::as_path).collect();
        self.pair.ipam.prepare(&node, world, &directories);
        Ok(Scene { bench: self, world, node })
    }

    /// The newest version that it can be called in.
    pub fn newest(&self) -> Result<&'static str, Fault> {
        match self.versions.last() {
            Some(version) => Ok(version),
            None => not_offered("the two plugins claim no version in common"),
        }
    }

    /// The versions from `since` on in which it can be called; at least one.
    pub fn since(&self, since: &str) -> Result<Vec<&'static str>, Fault> {
        let versions: Vec<_> = self.versions.iter().copied().filter(|it| *it >= since).collect();
        if versions.is_empty() {
            return not_offered(format!("no version from {since} on is claimed by both"));
        }
        Ok(versions)
    }

    /// Whether the plugin itself claims this version.
    pub fn claims(&self, version: &str) -> Result<(), Fault> {
        if self.claimed.contains(&version) {
            return Ok(());
        }
        not_offered(format!("{} does not claim {version}", self.name()))
    }

    /// The name of the plugin under test.
    pub fn name(&self) -> &str {
        match self.role {
            Role::Main => &self.pair.main.name,
            Role::Ipam => &self.pair.ipam.name,
        }
    }

    /// The plugin under test is the main one.
    pub fn is_main(&self) -> bool {
        self.role == Role::Main
    }
}

impl Scene<'_> {
    /// A container.
    pub fn container(&self, name: &str) -> Container {
        self.node.container(name)
    }

    /// The plugin under test, for this container.
    pub fn call(&self, version: &str, container: &Container) -> Call {
        self.call_of(self.bench.name(), version).container(container)
    }

    /// The plugin under test, for a container id whose namespace is not there.
    pub fn call_for(&self, version: &str, id: &str) -> Call {
        self.call_of(self.bench.name(), version)
            .with("CNI_CONTAINERID", id)
            .with("CNI_NETNS", &format!("/run/netns/{id}"))
    }

    /// The IPAM plugin, for a container id whose namespace is not there.
    pub fn ipam(&self, version: &str, id: &str) -> Call {
        self.call_of(&self.bench.pair.ipam.name, version)
            .with("CNI_CONTAINERID", id)
            .with("CNI_NETNS", &format!("/run/netns/{id}"))
    }

    fn call_of(&self, name: &str, version: &str) -> Call {
        let pair = &self.bench.pair;
        let configuration = pair.configuration(self.world, version).expect("the world was made");
        let program = pair.program(name).expect("its versions have been asked");
        Call::at(program, configuration, &pair.path())
    }

    /// Runs a call.
    pub fn run(&self, call: &Call, command: &str) -> Answer {
        self.run_with(call, command, &call.configuration().to_string())
    }

    /// Runs a call with this text for the configuration.
    pub fn run_with(&self, call: &Call, command: &str, input: &str) -> Answer {
        let call = call.clone().with("CNI_COMMAND", command);
        Answer::of(&self.node.output(&mut self.limited(&call), input))
    }

    /// Runs a call that reads from this file.
    pub fn run_from(&self, call: &Call, command: &str, input: File) -> Answer {
        let mut program = self.limited(&call.clone().with("CNI_COMMAND", command));
        program.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.node.spawn(&mut program);
        Answer::of(&child.wait_with_output().expect("waiting for a child"))
    }

    /// Runs a call without any command.
    pub fn run_without_command(&self, call: &Call) -> Answer {
        let mut program = self.limited(&call.clone().without("CNI_COMMAND"));
        Answer::of(&self.node.output(&mut program, &call.configuration().to_string()))
    }

    /// How many more containers get addresses; `None` where there is no end of
    /// them. Afterwards it is as before.
    pub fn room(&self, version: &str) -> Option<usize> {
        if self.world != World::Small {
            return None;
        }
        let calls: Vec<Call> =
            (0..ROOM_LIMIT).map(|number| self.ipam(version, &format!("guest{number}"))).collect();
        let room = calls.iter().take_while(|call| self.run(call, "ADD").succeeded).count();
        calls.iter().for_each(|call| drop(self.run(call, "DEL")));
        Some(room)
    }

    /// The program of a call, killed with all it has started if it takes too long.
    fn limited(&self, call: &Call) -> Command {
        let plugin = call.command();
        let mut command = Command::new(find_program("timeout"));
        command.args(["--signal=KILL", &self.bench.pair.call_limit.to_string()]);
        command.arg(plugin.get_program()).env_clear();
        let set = plugin.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.envs(set);
        command
    }
}

/// Requires that a place is as before. What the kernel removes by itself goes
/// a moment later, so it is given one.
pub fn is_as_before(before: &Snapshot, place: &impl Place) {
    let deadline = Instant::now() + MOMENT;
    let mut after = Snapshot::of(place);
    while *before != after && Instant::now() < deadline {
        after = Snapshot::of(place);
    }
    before.assert_unchanged(&after);
}
