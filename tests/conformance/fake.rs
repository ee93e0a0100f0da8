//! An IPAM plugin that does what it is told and keeps what it was asked, to see
//! how a main plugin delegates.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weir_tests::{Call, Container, Node, Place};

use crate::bench::{Bench, Scene};
use crate::verdict::Fault;

/// Where it is, and what it keeps.
const DIRECTORY: &str = "/run/fake";

/// What it writes to standard error.
pub const WORDS: &str = "said by the delegate";

/// The address that it gives, and its gateway.
pub const ADDRESS: &str = "10.9.0.5/24";
/// The gateway that it names.
pub const GATEWAY: &str = "10.9.0.1";

const SCRIPT: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd /run/fake || exit 1
echo "$CNI_COMMAND" >>calls
env | grep ^CNI_ >"$CNI_COMMAND.env"
cat >"$CNI_COMMAND.json"
echo "said by the delegate" >&2
[ ! -f "$CNI_COMMAND.answer" ] || cat "$CNI_COMMAND.answer"
[ ! -f "$CNI_COMMAND.fails" ]
"#;

/// The fake on a node, in a configuration of the newest version that the main
/// plugin claims.
pub struct Fake<'a> {
    /// Where it runs.
    pub scene: Scene<'a>,
    /// The version of the configuration.
    pub version: &'static str,
    path: String,
}

impl<'a> Fake<'a> {
    /// On a node of its own.
    pub fn new(bench: &'a Bench) -> Result<Self, Fault> {
        let version = bench.claimed.last().copied();
        Self::of_version(bench, version.map_or_else(|| bench.newest(), Ok)?)
    }

    /// As [`Fake::new`], in this version.
    pub fn of_version(bench: &'a Bench, version: &'static str) -> Result<Self, Fault> {
        let scene = bench.usual()?;
        scene.node.write(&format!("{DIRECTORY}/bin/fake-ipam"), SCRIPT);
        scene.node.run(&["chmod", "+x", &format!("{DIRECTORY}/bin/fake-ipam")]);
        // The first directory does not have it: both must be searched.
        let path = format!("{}:{DIRECTORY}/bin", bench.pair.path());
        let fake = Self { scene, version, path };
        fake.answers("ADD", &fake.result());
        Ok(fake)
    }

    /// What it answers to ADD unless told otherwise.
    pub fn result(&self) -> Value {
        let mut ip = json!({"address": ADDRESS, "gateway": GATEWAY});
        if self.version < "1.0.0" {
            ip["version"] = "4".into();
        }
        json!({
            "cniVersion": self.version,
            "ips": [ip],
            "routes": [{"dst": "198.51.100.0/24"}],
            "dns": {"nameservers": ["192.0.2.53"]},
        })
    }

    /// The main plugin, delegating to the fake.
    pub fn call(&self, container: &Container) -> Call {
        self.scene
            .call(self.version, container)
            .configure("/ipam", json!({"type": "fake-ipam", "marker": [1, {"two": null}]}))
            .with("CNI_PATH", &self.path)
    }

    /// Lets it answer so to a command.
    pub fn answers(&self, command: &str, answer: &Value) {
        self.node().write(&format!("{DIRECTORY}/{command}.answer"), &answer.to_string());
    }

    /// Lets it fail on a command with this code.
    pub fn fails(&self, command: &str, code: u64) {
        let error = json!({"cniVersion": self.version, "code": code, "msg": "told to fail"});
        self.answers(command, &error);
        self.node().write(&format!("{DIRECTORY}/{command}.fails"), "");
    }

    /// The commands that it was called with so far.
    pub fn calls(&self) -> Vec<String> {
        let path = format!("{DIRECTORY}/calls");
        if !self.node().succeeds(&["test", "-f", &path]) {
            return Vec::new();
        }
        self.node().read(&path).lines().map(str::to_owned).collect()
    }

    /// Whether it was called with this command.
    pub fn was_asked(&self, command: &str) -> bool {
        self.calls().iter().any(|call| call == command)
    }

    /// The configuration with which it was called last with this command.
    pub fn input(&self, command: &str) -> Value {
        let text = self.node().read(&format!("{DIRECTORY}/{command}.json"));
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The variables of CNI with which it was called last with this command.
    pub fn environment(&self, command: &str) -> BTreeMap<String, String> {
        let text = self.node().read(&format!("{DIRECTORY}/{command}.env"));
        let pair = |line: &str| {
            let (name, value) = line.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        };
        text.lines().filter_map(pair).collect()
    }

    fn node(&self) -> &Node {
        &self.scene.node
    }
}
