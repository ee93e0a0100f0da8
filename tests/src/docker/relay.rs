//! A relay between dockerd and the driver that loses calls.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use super::client::PluginSocket;
use crate::node::Node;
use crate::place::Place;

/// When the connection of a call breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Before the driver has heard of the call.
    Call,
    /// When the driver has done what it asks for.
    Answer,
}

/// A relay in the place of the driver's socket `weir`. It lives as long as the test's process;
/// dockerd finds it as long as its node is there.
pub struct Relay {
    loses: Arc<Mutex<Option<(String, Lost)>>>,
}

impl Relay {
    /// Puts itself between the dockerd of a node and what listens at `socket`.
    pub fn before(node: &Node, socket: &PluginSocket) -> Self {
        let path = socket.path().to_owned();
        // A socket goes on listening under its new name.
        let behind = format!("{path}.behind");
        let listener = node.enter(|| {
            fs::rename(&path, &behind).expect("renaming the driver's socket");
            UnixListener::bind(&path).expect("listening in its place")
        });
        let loses = Arc::new(Mutex::new(None));
        let driver = Arc::new(PluginSocket::new(node, &behind));
        let shared = Arc::clone(&loses);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (driver, loses) = (Arc::clone(&driver), Arc::clone(&shared));
                // Whoever hangs up has no use for an error.
                thread::spawn(move || relay(stream, &driver, &loses).ok());
            }
        });
        Self { loses }
    }

    /// Loses the next call of this method (`/NetworkDriver.Join`).
    pub fn lose(&self, method: &str, lost: Lost) {
        *self.loses.lock().expect("a lock") = Some((method.to_owned(), lost));
    }

    /// Whether the call that is to be lost has come.
    pub fn has_lost(&self) -> bool {
        self.loses.lock().expect("a lock").is_none()
    }
}

/// Hands on the calls of a connection until one of them is lost.
fn relay(
    stream: UnixStream,
    driver: &PluginSocket,
    loses: &Mutex<Option<(String, Lost)>>,
) -> io::Result<()> {
    let mut calls = BufReader::new(stream.try_clone()?);
    let mut answers = stream;
    while let Some((method, body)) = next_call(&mut calls)? {
        let lost = {
            let mut loses = loses.lock().expect("a lock");
            let is_lost = loses.as_ref().is_some_and(|(it, _)| *it == method);
            if is_lost { loses.take().map(|(_, lost)| lost) } else { None }
        };
        if lost == Some(Lost::Call) {
            return Ok(());
        }
        let (status, answer) = driver.exchange(&method, &body)?;
        if lost == Some(Lost::Answer) {
            return Ok(());
        }
        answer_with(&mut answers, status, &answer)?;
    }
    Ok(())
}

/// The method and the body of the next call; `None` where the connection has ended.
fn next_call(calls: &mut BufReader<UnixStream>) -> io::Result<Option<(String, Vec<u8>)>> {
    let mut line = String::new();
    if calls.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let method = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        line.clear();
        calls.read_line(&mut line)?;
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        assert!(!header.starts_with("transfer-encoding"), "dockerd tells lengths: {header}");
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    calls.read_exact(&mut body)?;
    Ok(Some((method, body)))
}

fn answer_with(stream: &mut UnixStream, status: u16, answer: &Value) -> io::Result<()> {
    let body = answer.to_string();
    let head = format!(
        "HTTP/1.1 {status} told\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head, body].concat().into_bytes())
}
