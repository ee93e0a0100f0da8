//! BIRD's control socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;
use weir_common::network::DIGEST_CONSTANT;
use weir_common::printable;

use super::reply::{Reply, ReplyError, ReplyParser};
use super::status::{DaemonStatus, ProtocolStatus, protocols};

/// How long BIRD may take to answer; reading a configuration of 500 peers takes it 10 ms.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest line of a reply.
const LONGEST_LINE: u64 = 1 << 16;

/// The code of `eval`'s answer.
const EVALUATED: u16 = 23;

/// A connection to a running BIRD.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

/// Whether a configuration is undone unless it is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// It stays.
    Unneeded,
    /// It is undone after so many seconds, unless [`Client::confirm`] comes first.
    Within(u16),
}

/// BIRD could not be asked, or did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket, or no BIRD behind it.
    #[error("BIRD cannot be reached at {path}: {cause}")]
    Unreachable {
        /// The socket.
        path: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The connection broke.
    #[error("BIRD did not answer {command:?}: {cause}")]
    Broken {
        /// What was asked.
        command: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// It did not answer in time.
    #[error("BIRD did not answer {command:?} within {} s", PATIENCE.as_secs())]
    Silent {
        /// What was asked.
        command: String,
    },
    /// Its answer is not understood.
    #[error("BIRD's answer to {command:?} is not understood: {cause}")]
    Malformed {
        /// What was asked.
        command: String,
        /// Why.
        #[source]
        cause: ReplyError,
    },
    /// It refused.
    #[error("BIRD refuses {command:?}: {text} ({code:04})")]
    Refused {
        /// What was asked.
        command: String,
        /// The code of the refusal.
        code: u16,
        /// BIRD's words.
        text: String,
    },
}

impl Client {
    /// Connects, and reads the greeting.
    ///
    /// # Errors
    /// Where no BIRD answers there.
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let unreachable = |cause| ClientError::Unreachable {
            path: printable(&socket.to_string_lossy()).into_owned(),
            cause,
        };
        let connected = timeout(PATIENCE, UnixStream::connect(socket)).await;
        let stream = connected
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(unreachable)?;
        let mut client = Self { stream: BufReader::new(stream) };
        client.within_limit("", Self::read).await?;
        Ok(client)
    }

    /// Whether BIRD would take this file.
    ///
    /// # Errors
    /// Where it would not: with the place, as `FILE:LINE:COLUMN text`.
    pub async fn check(&mut self, file: &Path) -> Result<(), ClientError> {
        let command = format!("configure check {}", quoted(file)?);
        self.ask(&command).await.map(drop)
    }

    /// Lets BIRD read this file. It may be at work on it still when this returns.
    ///
    /// # Errors
    /// Where it does not take it; then it goes on with the configuration before.
    pub async fn configure(
        &mut self,
        file: &Path,
        confirmation: Confirmation,
    ) -> Result<(), ClientError> {
        let timeout = match confirmation {
            Confirmation::Unneeded => String::new(),
            Confirmation::Within(seconds) => format!(" timeout {seconds}"),
        };
        self.ask(&format!("configure {}{timeout}", quoted(file)?)).await.map(drop)
    }

    /// Keeps the configuration that was to be confirmed.
    ///
    /// # Errors
    /// Where BIRD refuses.
    pub async fn confirm(&mut self) -> Result<(), ClientError> {
        self.ask("configure confirm").await.map(drop)
    }

    /// The digest of the configuration that BIRD runs; `None` where it is not one of Weir's.
    ///
    /// # Errors
    /// Where BIRD does not answer.
    pub async fn digest(&mut self) -> Result<Option<String>, ClientError> {
        match self.ask(&format!("eval {DIGEST_CONSTANT}")).await {
            Ok(reply) => Ok(reply.with_code(EVALUATED).next().map(str::to_owned)),
            Err(ClientError::Refused { code: 9001, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How the daemon is.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn status(&mut self) -> Result<DaemonStatus, ClientError> {
        Ok(DaemonStatus::of(&self.ask("show status").await?))
    }

    /// How its protocols are.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn protocols(&mut self) -> Result<Vec<ProtocolStatus>, ClientError> {
        Ok(protocols(&self.ask("show protocols all").await?))
    }

    /// Ends the daemon so that peers and the kernel keep the routes for the next one.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn restart_gracefully(mut self) -> Result<(), ClientError> {
        self.ask("graceful restart").await.map(drop)
    }

    /// Ends the daemon.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn shut_down(mut self) -> Result<(), ClientError> {
        self.ask("down").await.map(drop)
    }

    /// Asks, and returns the answer if it is not a refusal.
    ///
    /// # Errors
    /// Where BIRD does not answer or refuses.
    pub async fn ask(&mut self, command: &str) -> Result<Reply, ClientError> {
        let reply = self
            .within_limit(command, async |client: &mut Self| {
                client.stream.write_all(format!("{command}\n").as_bytes()).await?;
                client.read().await
            })
            .await?;
        match reply.is_error() {
            false => Ok(reply),
            true => Err(ClientError::Refused {
                command: command.to_owned(),
                code: reply.code(),
                text: printable(reply.text()).into_owned(),
            }),
        }
    }

    async fn within_limit(
        &mut self,
        command: &str,
        work: impl AsyncFnOnce(&mut Self) -> Result<Reply, Interruption>,
    ) -> Result<Reply, ClientError> {
        let command = command.to_owned();
        match timeout(PATIENCE, work(self)).await {
            Err(_) => Err(ClientError::Silent { command }),
            Ok(outcome) => outcome.map_err(|interruption| match interruption {
                Interruption::Broken(cause) => ClientError::Broken { command, cause },
                Interruption::Malformed(cause) => ClientError::Malformed { command, cause },
            }),
        }
    }

    async fn read(&mut self) -> Result<Reply, Interruption> {
        let mut parser = ReplyParser::default();
        loop {
            let mut line = Vec::new();
            (&mut self.stream).take(LONGEST_LINE).read_until(b'\n', &mut line).await?;
            if line.pop() != Some(b'\n') {
                return Err(Interruption::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
            if parser.push(&String::from_utf8_lossy(&line))? {
                return Ok(parser.finish());
            }
        }
    }
}

/// Why a reply was not read to its end.
#[derive(Debug, thiserror::Error)]
enum Interruption {
    #[error(transparent)]
    Broken(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] ReplyError),
}

/// A path as a string of BIRD, which has no escapes.
fn quoted(path: &Path) -> Result<String, ClientError> {
    let is_plain = |text: &&str| !text.contains(|it: char| it == '"' || it.is_control());
    path.to_str().filter(is_plain).map(|text| format!("\"{text}\"")).ok_or_else(|| {
        ClientError::Broken {
            command: format!("configure {}", printable(&path.to_string_lossy())),
            cause: io::ErrorKind::InvalidFilename.into(),
        }
    })
}
