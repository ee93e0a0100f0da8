//! Delegation to the IPAM plugin.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};

use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use weir_common::cni::skeleton::Call;
use weir_common::cni::{AddResult, Code, Error, IpamConfiguration};
use weir_process::{Limit, take_the_place_of, within};

/// The variable that names the plugin whose place this process takes.
const PLACE_VARIABLE: &str = "WEIR_TAKE_THE_PLACE_OF";

/// The variable with the process id of the plugin that asks for that.
const PARENT_VARIABLE: &str = "WEIR_PARENT";

/// The largest answer of a plugin that is read, in bytes.
const MAX_ANSWER: u64 = 16 << 20;

/// The IPAM plugin of a call, where it is not Weir's own.
pub struct Delegate<'a> {
    name: &'a str,
    program: PathBuf,
    input: &'a [u8],
}

/// The IPAM plugin at work. Dropped, it is killed.
pub struct Running<'a> {
    delegate: &'a Delegate<'a>,
    child: Child,
    /// When it is given up.
    limit: Limit,
}

impl<'a> Delegate<'a> {
    /// Looks the plugin up in `CNI_PATH`.
    ///
    /// # Errors
    /// [`Code::InvalidConfiguration`] when it is in none of the directories.
    pub fn find(call: &'a Call, ipam: &'a IpamConfiguration) -> Result<Self, Error> {
        let name = ipam.plugin.as_str();
        let path = &call.environment.path;
        if path.is_empty() {
            let message = "CNI_PATH is missing: the IPAM plugin is looked for in its directories";
            return Err(Error::new(Code::InvalidEnvironment, message));
        }
        let program =
            path.iter().map(|directory| directory.join(name)).find(|program| program.is_file());
        match program {
            Some(program) => Ok(Self { name, program, input: &call.input }),
            None => {
                let places: Vec<String> =
                    path.iter().map(|dir| dir.display().to_string()).collect();
                Err(Error::new(
                    Code::InvalidConfiguration,
                    format!(
                        "ipam.type {name:?}: there is no such plugin in CNI_PATH ({}); install it \
                         there or correct ipam.type",
                        places.join(":")
                    ),
                ))
            }
        }
    }

    /// The same plugin with another configuration on its standard input.
    pub fn with_input(self, input: &'a [u8]) -> Self {
        Self { input, ..self }
    }

    /// Starts the plugin with the environment and the input of this call, for `command`,
    /// until the limit ends.
    ///
    /// # Errors
    /// [`Code::Delegate`] when it cannot be executed.
    pub fn start(&'a self, command: &str, limit: Limit) -> Result<Running<'a>, Error> {
        // A plugin does not end by itself together with this process. The kernel keeps
        // that order over exec(2), so this program takes it and then becomes the plugin.
        let mut process = Command::new("/proc/self/exe");
        process
            .env(PLACE_VARIABLE, &self.program)
            .env(PARENT_VARIABLE, std::process::id().to_string())
            .env("CNI_COMMAND", command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let child = process.spawn().map_err(|error| {
            let program = self.program.display();
            Error::new(Code::Delegate, format!("IPAM plugin {program} cannot be executed: {error}"))
        })?;
        Ok(Running { delegate: self, child, limit })
    }

    /// Runs the plugin to its end, for a `command` without a result.
    ///
    /// # Errors
    /// The plugin's own error, with its code; [`Code::Delegate`] when it gave none, or
    /// cannot be executed; [`Code::TryAgainLater`] when it takes too long.
    pub async fn run(&'a self, command: &str, limit: Limit) -> Result<(), Error> {
        let mut running = self.start(command, limit)?;
        let answer = running.answer().await?;
        let status = running.status().await?;
        if status.success() { Ok(()) } else { Err(self.error(status, &answer)) }
    }
}

impl Running<'_> {
    /// Waits for the plugin's result. It may not have ended by then: see
    /// [`Running::end`].
    ///
    /// # Errors
    /// As [`Delegate::run`], and when there is no address in the result.
    pub async fn result(&mut self, call: &Call) -> Result<AddResult, Error> {
        let answer = self.answer().await?;
        let json: Option<Value> = serde_json::from_slice(&answer).ok();
        let Some(json) = json.filter(|json| Error::parse(json).is_none()) else {
            return Err(self.delegate.error(self.status().await?, &answer));
        };
        let result = AddResult::parse(&json, call.configuration.version)?;
        if result.ips.is_empty() {
            let message = format!("IPAM plugin {} gave no address", self.delegate.name);
            return Err(Error::new(Code::Delegate, message));
        }
        Ok(result)
    }

    /// Waits until the plugin has ended.
    ///
    /// # Errors
    /// [`Code::Delegate`] when it ended badly, [`Code::TryAgainLater`] when it
    /// does not end.
    pub async fn end(mut self) -> Result<(), Error> {
        let status = self.status().await?;
        if status.success() { Ok(()) } else { Err(self.delegate.error(status, &[])) }
    }

    async fn status(&mut self) -> Result<ExitStatus, Error> {
        let (delegate, limit) = (self.delegate, self.limit);
        let wait = async { self.child.wait().await.map_err(|error| delegate.broken(error)) };
        delegate.within(limit, wait).await
    }

    /// Writes the input while reading the answer: either may be larger than a
    /// pipe holds. The answer is whole when the plugin closes its end.
    async fn answer(&mut self) -> Result<Vec<u8>, Error> {
        let input = self.child.stdin.take();
        let output = self.child.stdout.take();
        let write = async {
            if let Some(mut pipe) = input {
                // A plugin need not read what it does not need.
                let _ = pipe.write_all(self.delegate.input).await;
            }
        };
        let read = async {
            let mut answer = Vec::new();
            if let Some(pipe) = output {
                pipe.take(MAX_ANSWER).read_to_end(&mut answer).await?;
            }
            std::io::Result::Ok(answer)
        };
        let exchange = async { tokio::join!(write, read).1 };
        let exchange = async { exchange.await.map_err(|error| self.delegate.broken(error)) };
        self.delegate.within(self.limit, exchange).await
    }
}

impl Delegate<'_> {
    async fn within<T>(
        &self,
        limit: Limit,
        future: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let what = format!("IPAM plugin {}", self.name);
        within(&what, "its messages are in the log; try again", limit, future).await
    }

    fn broken(&self, error: std::io::Error) -> Error {
        Error::new(Code::Delegate, format!("IPAM plugin {}: {error}", self.name))
    }

    fn error(&self, status: ExitStatus, answer: &[u8]) -> Error {
        let json = serde_json::from_slice(answer).ok();
        json.as_ref().and_then(Error::parse).unwrap_or_else(|| {
            let name = self.name;
            let message = if status.success() {
                format!("IPAM plugin {name} gave no result; its messages are in the log")
            } else {
                format!("IPAM plugin {name} failed ({status}); its messages are in the log")
            };
            Error::new(Code::Delegate, message)
        })
    }
}

/// In a process started by [`Delegate::start`]: becomes the plugin, bound to end with its
/// parent. `None` in any other process; returns only when it fails.
pub fn take_the_place_of_a_plugin() -> Option<ExitCode> {
    let program: OsString = std::env::var_os(PLACE_VARIABLE)?;
    let parent = std::env::var(PARENT_VARIABLE).ok()?.parse().ok()?;
    let forgotten = [PLACE_VARIABLE, PARENT_VARIABLE];
    let error = take_the_place_of(Path::new(&program), Pid::from_raw(parent), &forgotten);
    let message = format!("{} cannot be executed: {error}", Path::new(&program).display());
    Some(weir_process::fail(&Error::new(Code::Delegate, message)))
}
