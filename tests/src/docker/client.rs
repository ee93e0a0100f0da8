//! dockerd's side of a plugin's socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;

use crate::node::Node;
use crate::place::Place;

/// How long an answer may take. Under an emulated kernel everything is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// The socket of a plugin, as dockerd uses it.
pub struct PluginSocket {
    node: Node,
    path: String,
}

impl PluginSocket {
    /// The socket with this path on this node.
    pub fn new(node: &Node, path: &str) -> Self {
        Self { node: node.clone(), path: path.to_owned() }
    }

    /// Its path.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A connection to it.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(&self) -> io::Result<UnixStream> {
        let stream = self.node.enter(|| UnixStream::connect(&self.path))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Calls a method (`/IpamDriver.RequestPool`), which must succeed, and returns its answer.
    pub fn succeeds(&self, method: &str, body: &Value) -> Value {
        let (status, answer) = self.call(method, body);
        assert_eq!(status, 200, "{method} {body}: {answer}");
        answer
    }

    /// Calls a method, which must fail, and returns what it said.
    pub fn fails(&self, method: &str, body: &Value) -> String {
        let (status, answer) = self.call(method, body);
        assert_eq!(status, 500, "{method} {body}: {answer}");
        answer["Err"].as_str().unwrap_or_else(|| panic!("no Err in {answer}")).to_owned()
    }

    /// Calls a method: the status and the answer.
    pub fn call(&self, method: &str, body: &Value) -> (u16, Value) {
        self.exchange(method, body.to_string().as_bytes())
            .unwrap_or_else(|error| panic!("calling {method} on {}: {error}", self.path))
    }

    /// As [`PluginSocket::call`], with any body.
    ///
    /// # Errors
    /// Nobody listens, or the connection ends before the answer does.
    pub fn exchange(&self, method: &str, body: &[u8]) -> io::Result<(u16, Value)> {
        let mut stream = self.connect()?;
        call_on(&mut stream, method, body)
    }

    /// Sends these bytes, and returns what comes back until the end of the connection.
    pub fn send(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().expect("connecting");
        // An answer may come, and the connection end, before everything is sent.
        stream.write_all(bytes).ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Calls a method on a connection, which stays open as dockerd keeps its own.
///
/// # Errors
/// The connection ends before the answer does.
pub fn call_on(stream: &mut UnixStream, method: &str, body: &[u8]) -> io::Result<(u16, Value)> {
    let head = format!(
        "POST {method} HTTP/1.1\r\nHost: plugin\r\nContent-Length: {}\r\n\
         Accept: application/vnd.docker.plugins.v1.2+json\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut answer = BufReader::new(stream);
    let broken = || io::Error::new(io::ErrorKind::UnexpectedEof, "no whole answer");
    let mut line = String::new();
    answer.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|it| it.parse().ok()).ok_or_else(broken)?;
    let mut length = 0;
    loop {
        line.clear();
        if answer.read_line(&mut line)? == 0 {
            return Err(broken());
        }
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut content = vec![0; length];
    answer.read_exact(&mut content)?;
    Ok((status, serde_json::from_slice(&content)?))
}
