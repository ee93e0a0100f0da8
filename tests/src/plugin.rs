//! Runs a plugin, as a container runtime does.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::binaries::{CNI_PATH, binaries, cni_path};
use crate::container::Container;
use crate::place::Place;

/// One plugin with its configuration and environment, ready to be called with
/// any command (CNI specification, section 2).
#[derive(Clone)]
pub struct Call {
    program: PathBuf,
    configuration: Value,
    environment: BTreeMap<String, String>,
}

impl Call {
    /// One of Weir's plugins.
    pub fn new(program: &str, configuration: Value) -> Self {
        Self::at(binaries().join(program), configuration, &cni_path())
    }

    /// One of the reference plugins. It delegates to reference plugins only.
    pub fn reference(program: &str, configuration: Value) -> Self {
        Self::at(Path::new(CNI_PATH).join(program), configuration, CNI_PATH)
    }

    /// Any plugin; `path` is its `CNI_PATH`.
    pub fn at(program: PathBuf, configuration: Value, path: &str) -> Self {
        let environment = BTreeMap::from([
            ("CNI_IFNAME".to_owned(), "eth0".to_owned()),
            ("CNI_PATH".to_owned(), path.to_owned()),
        ]);
        Self { program, configuration, environment }
    }

    /// The same call of the plugin of that name in this directory, which delegates to
    /// plugins there.
    pub fn from(mut self, programs: &Path) -> Self {
        let name = self.program.file_name().expect("a program has a name");
        self.program = programs.join(name);
        self.with("CNI_PATH", &programs.display().to_string())
    }

    /// Sets `CNI_CONTAINERID` and `CNI_NETNS` to the container's.
    pub fn container(self, container: &Container) -> Self {
        self.with("CNI_CONTAINERID", container.name()).with("CNI_NETNS", &container.path())
    }

    /// Sets a variable of the environment.
    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.environment.insert(variable.to_owned(), value.to_owned());
        self
    }

    /// Removes a variable from the environment.
    pub fn without(mut self, variable: &str) -> Self {
        self.environment.remove(variable);
        self
    }

    /// Sets a member of the configuration, named by a JSON pointer whose
    /// parent exists.
    pub fn configure(mut self, pointer: &str, value: Value) -> Self {
        let (parent, member) = pointer.rsplit_once('/').expect("a JSON pointer has a slash");
        let parent = self.configuration.pointer_mut(parent).and_then(Value::as_object_mut);
        let member = member.replace("~1", "/").replace("~0", "~");
        parent.expect("the parent is an object").insert(member, value);
        self
    }

    /// Runs the plugin with this `CNI_COMMAND`.
    pub fn run(&self, place: &impl Place, command: &str) -> Answer {
        self.run_with(place, command, &self.configuration.to_string())
    }

    /// As [`Call::run`], with this text for the configuration.
    pub fn run_with(&self, place: &impl Place, command: &str, input: &str) -> Answer {
        let call = self.clone().with("CNI_COMMAND", command);
        Answer::of(&place.output(&mut call.command(), input))
    }

    /// Starts the plugin with this `CNI_COMMAND` and does not wait for it.
    pub fn start(&self, place: &impl Place, command: &str) -> Running {
        let mut command = self.clone().with("CNI_COMMAND", command).command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = place.spawn(&mut command);
        let mut input = child.stdin.take().expect("the standard input is a pipe");
        // A plugin that ends before it reads says why in its answer.
        input.write_all(self.configuration.to_string().as_bytes()).ok();
        Running { child }
    }

    /// ADD, which must succeed: its result.
    pub fn add(&self, place: &impl Place) -> Value {
        self.run(place, "ADD").result()
    }

    /// CHECK of an earlier ADD's result.
    pub fn check(&self, place: &impl Place, result: &Value) -> Answer {
        self.clone().configure("/prevResult", result.clone()).run(place, "CHECK")
    }

    /// DEL, which must succeed.
    pub fn delete(&self, place: &impl Place) {
        self.run(place, "DEL").silence();
    }

    /// The program with exactly this call's environment, to be started by the
    /// caller.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(&self.environment);
        command
    }

    /// The configuration.
    pub fn configuration(&self) -> &Value {
        &self.configuration
    }
}

/// A plugin that runs.
pub struct Running {
    child: Child,
}

impl Running {
    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub fn finish(self) -> Answer {
        Answer::of(&self.child.wait_with_output().expect("waiting for a child"))
    }

    /// Kills it, with SIGKILL, and waits for its end. It may have come to its end
    /// before.
    pub fn kill(mut self) -> Answer {
        self.child.kill().expect("killing a child");
        self.finish()
    }
}

/// What a program did.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Whether it ended with status 0.
    pub succeeded: bool,
    /// Its exit status; `None` when it was killed.
    pub status: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// The error that a plugin printed (CNI specification, section 5).
#[derive(Clone, Debug)]
pub struct Failure {
    /// The error code.
    pub code: u64,
    /// Message and details, together.
    pub text: String,
}

impl Answer {
    /// What a finished program did.
    pub fn of(output: &Output) -> Self {
        Self {
            succeeded: output.status.success(),
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The result of a call that must have succeeded and printed one JSON
    /// document.
    pub fn result(&self) -> Value {
        assert!(self.succeeded, "the plugin failed: {self:?}");
        self.document()
    }

    /// Requires that the call succeeded and printed nothing.
    pub fn silence(&self) {
        assert!(self.succeeded, "the plugin failed: {self:?}");
        assert_eq!(self.stdout.trim(), "", "a call without a result prints nothing");
    }

    /// The error of a call that must have failed and printed one JSON
    /// document, the error.
    pub fn failure(&self) -> Failure {
        assert!(!self.succeeded, "the plugin should have failed: {self:?}");
        let document = self.document();
        let code = document["code"].as_u64();
        let code = code.unwrap_or_else(|| panic!("an error has a code: {self:?}"));
        let text = |member: &str| document[member].as_str().unwrap_or_default().to_owned();
        assert_ne!(text("msg"), "", "an error has a message: {self:?}");
        Failure { code, text: format!("{} {}", text("msg"), text("details")) }
    }

    fn document(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("standard output is one JSON document: {error}: {self:?}")
        })
    }
}

impl Failure {
    /// Requires this code, and each of these words in the message or the
    /// details, in any case.
    pub fn expect(&self, code: u64, words: &[&str]) {
        assert_eq!(self.code, code, "{}", self.text);
        let text = self.text.to_lowercase();
        let missing = words.iter().filter(|word| !text.contains(&word.to_lowercase()));
        let missing: Vec<_> = missing.collect();
        assert!(missing.is_empty(), "the error should mention {missing:?}: {}", self.text);
    }
}
