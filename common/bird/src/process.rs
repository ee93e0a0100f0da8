//! The program `bird` as a process.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::place::Place;

/// How long the program may take to read a configuration; 500 peers take it 10 ms.
const PATIENCE: Duration = Duration::from_secs(10);

/// The program.
#[derive(Clone, Debug)]
pub struct Program(PathBuf);

/// The program could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is not installed.
    #[error(
        "BGP needs the program {0}, which is not installed: install the package bird2 (version 2, \
         not bird); everything else goes on"
    )]
    Missing(String),
    /// It does not run.
    #[error("{program} does not run: {cause}")]
    Failed {
        /// The program.
        program: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It is of a version that Weir does not speak to.
    #[error("{program} is BIRD {version}, and BGP needs version 2: install the package bird2")]
    TooOld {
        /// The program.
        program: String,
        /// Its version.
        version: String,
    },
    /// It does not take the configuration.
    #[error("{0}")]
    Refused(String),
}

impl Program {
    /// The program at this path, or of this name in `PATH`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Whether it would take this configuration; nothing is started.
    pub async fn check(&self, file: &Path) -> Result<(), ProgramError> {
        let output = self.run(Command::new(&self.0).arg("-p").arg("-c").arg(file)).await?;
        let words = String::from_utf8_lossy(&output.stderr);
        let words = words.trim().strip_prefix("bird: ").unwrap_or(words.trim());
        if output.status.success() {
            return Ok(());
        }
        match self.version().await.filter(|version| version.starts_with("1.")) {
            Some(version) => Err(ProgramError::TooOld { program: self.name(), version }),
            None => Err(ProgramError::Refused(words.to_owned())),
        }
    }

    /// The version that is installed.
    pub async fn version(&self) -> Option<String> {
        let output = self.run(Command::new(&self.0).arg("--version")).await.ok()?;
        let words = [output.stdout, output.stderr].concat();
        let words = String::from_utf8_lossy(&words);
        words.trim().strip_prefix("BIRD version ").map(str::to_owned)
    }

    /// Starts the daemon. It has a process group of its own, writes to the log of this process,
    /// and lives on when this process ends.
    pub fn start(&self, place: &Place, is_recovering: bool) -> Result<Child, ProgramError> {
        let mut command = Command::new(&self.0);
        command.arg("-f").arg("-c").arg(place.configuration());
        command.arg("-s").arg(place.socket()).arg("-P").arg(place.pid_file());
        if is_recovering {
            command.arg("-R");
        }
        // The agent's environment may name the datastore's password.
        command.env_clear().envs(
            ["PATH", "TZ"]
                .into_iter()
                .filter_map(|name| std::env::var_os(name).map(|value| (name, value))),
        );
        command.stdin(Stdio::null()).process_group(0);
        command.spawn().map_err(|cause| self.failed(cause))
    }

    async fn run(&self, command: &mut Command) -> Result<Output, ProgramError> {
        let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let ended = timeout(PATIENCE, running).await;
        let outcome = ended.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        outcome.map_err(|cause| self.failed(cause))
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }

    fn failed(&self, cause: io::Error) -> ProgramError {
        let program = self.name();
        match cause.kind() {
            io::ErrorKind::NotFound => ProgramError::Missing(program),
            _ => ProgramError::Failed { program, cause },
        }
    }
}
