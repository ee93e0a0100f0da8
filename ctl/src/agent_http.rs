//! Asking this node's agent over HTTP: no privilege is needed for that.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Where the agent serves unless it is told otherwise.
pub const AGENT_ADDRESS: &str = "127.0.0.1:9098";

/// How long the agent may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The largest answer that is read, in bytes.
const LARGEST_ANSWER: u64 = 1 << 24;

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentAnswer {
    /// Whether the status is 200.
    pub is_ok: bool,
    /// What it says.
    pub body: String,
}

/// Asks the agent at `address` for `path`.
///
/// # Errors
/// Why nothing was answered, in words.
pub async fn get(address: &str, path: &str) -> Result<AgentAnswer, String> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LARGEST_ANSWER).read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = match timeout(PATIENCE, ask).await {
        Ok(answer) => answer.map_err(|error: std::io::Error| error.to_string())?,
        Err(_) => return Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let is_ok = head.split(' ').nth(1) == Some("200");
    Ok(AgentAnswer { is_ok, body: body.to_owned() })
}
