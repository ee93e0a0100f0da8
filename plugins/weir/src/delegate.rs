//! Delegation to the IPAM plugin.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use weir_common::cni::skeleton::Call;
use weir_common::cni::{AddResult, Code, Error, IpamConfiguration};
use weir_process::{DEADLINE, PARENT_VARIABLE, become_program, within};

use crate::pools::OWN_IPAM;

/// The variable that names the plugin whose place this process takes.
const PLACE_VARIABLE: &str = "WEIR_TAKE_THE_PLACE_OF";

/// The largest answer of a plugin that is read, in bytes.
const MAX_ANSWER: u64 = 16 << 20;

/// The IPAM plugin of a call.
pub struct Delegate<'a> {
    name: &'a str,
    program: PathBuf,
    input: &'a [u8],
}

/// The IPAM plugin at work.
pub struct Running<'a> {
    delegate: &'a Delegate<'a>,
    child: Child,
}

impl<'a> Delegate<'a> {
    /// Looks the plugin up in `CNI_PATH`.
    ///
    /// # Errors
    /// [`Code::InvalidConfiguration`] when it is in none of the directories.
    pub fn find(call: &'a Call, ipam: &'a IpamConfiguration) -> Result<Self, Error> {
        let name = ipam.plugin.as_str();
        let path = &call.environment.path;
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

    /// Starts the plugin with the environment and the input of this call, for
    /// `command`.
    ///
    /// # Errors
    /// [`Code::Delegate`] when it cannot be executed.
    pub fn start(&'a self, command: &str) -> Result<Running<'a>, Error> {
        let mut process = if self.name == OWN_IPAM {
            Command::new(&self.program)
        } else {
            // A plugin that is not Weir's does not end by itself together with
            // this process. The kernel keeps that order over exec(2), so this
            // program takes it and then becomes the plugin.
            let mut process = Command::new("/proc/self/exe");
            process.env(PLACE_VARIABLE, &self.program);
            process
        };
        process
            .env("CNI_COMMAND", command)
            .env(PARENT_VARIABLE, std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let child = process.spawn().map_err(|error| {
            let program = self.program.display();
            Error::new(Code::Delegate, format!("IPAM plugin {program} cannot be executed: {error}"))
        })?;
        Ok(Running { delegate: self, child })
    }

    /// Has the addresses of the attachment released.
    ///
    /// # Errors
    /// Those of the plugin.
    pub async fn release(&'a self) -> Result<(), Error> {
        self.start("DEL")?.finish().await.map(drop)
    }
}

impl Running<'_> {
    /// Waits for the plugin and returns what it printed.
    ///
    /// # Errors
    /// The plugin's own error, with its code; [`Code::Delegate`] when it gave
    /// none; [`Code::TryAgainLater`] when it takes too long.
    pub async fn finish(mut self) -> Result<Vec<u8>, Error> {
        within(DEADLINE, async {
            let answer = self.exchange().await.map_err(|error| {
                let name = self.delegate.name;
                Error::new(Code::Delegate, format!("IPAM plugin {name}: {error}"))
            });
            let (status, answer) = answer?;
            if status.success() { Ok(answer) } else { Err(self.delegate.error(status, &answer)) }
        })
        .await
    }

    /// Writes the input while reading the answer: either may be larger than a
    /// pipe holds.
    async fn exchange(&mut self) -> std::io::Result<(ExitStatus, Vec<u8>)> {
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
        let ((), answer) = tokio::join!(write, read);
        Ok((self.child.wait().await?, answer?))
    }

    /// Waits for the plugin and understands its result.
    ///
    /// # Errors
    /// As [`Running::finish`], and when it gave no result with an address.
    pub async fn result(self, call: &Call) -> Result<AddResult, Error> {
        let name = self.delegate.name;
        let answer = self.finish().await?;
        let json: Value = serde_json::from_slice(&answer).map_err(|error| {
            Error::new(Code::Delegate, format!("IPAM plugin {name} printed no result: {error}"))
        })?;
        let result = AddResult::parse(&json, call.configuration.version)?;
        if result.ips.is_empty() {
            let message = format!("IPAM plugin {name} gave no address");
            return Err(Error::new(Code::Delegate, message));
        }
        Ok(result)
    }
}

impl Delegate<'_> {
    fn error(&self, status: ExitStatus, answer: &[u8]) -> Error {
        let json = serde_json::from_slice(answer).ok();
        json.as_ref().and_then(Error::parse).unwrap_or_else(|| {
            Error::new(
                Code::Delegate,
                format!("IPAM plugin {} failed ({status}); its messages are in the log", self.name),
            )
        })
    }
}

/// In a process started by [`Delegate::start`] for a foreign plugin: becomes
/// that plugin, bound to end with its parent. `None` in any other process;
/// returns only when it fails.
pub fn take_the_place_of_a_plugin() -> Option<ExitCode> {
    let program: OsString = std::env::var_os(PLACE_VARIABLE)?;
    let error = become_program(Path::new(&program), PLACE_VARIABLE);
    let message = format!("{} cannot be executed: {error}", Path::new(&program).display());
    Some(weir_process::fail(&Error::new(Code::Delegate, message)))
}
