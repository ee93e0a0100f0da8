//! Reading a section within its limits.

use std::ffi::OsString;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use weir_common::printable_lines;

use super::secrets::{Form, Secrets};
use crate::agent_http;

/// How long one section may take.
pub const LIMIT: Duration = Duration::from_secs(10);

/// How many are read at the same time.
const TOGETHER: usize = 4;

/// The most bytes that are read for a section. A document has to be whole for its secrets to be
/// found.
const MOST_READ: u64 = 16 << 20;

/// The most bytes of a section that are kept.
pub const MOST_KEPT: usize = 1 << 20;

/// A part of the bundle.
#[derive(Clone, Debug)]
pub struct Section {
    /// What it is: a command line that shows the same, or a file.
    pub title: String,
    pub source: SectionSource,
    pub form: Form,
}

/// Where a section comes from.
#[derive(Clone, Debug)]
pub enum SectionSource {
    /// What a program writes.
    Program(OsString, Vec<String>),
    /// A file; `is_log`: the end of a longer one.
    File { path: PathBuf, is_log: bool },
    /// What this node's agent at an address answers to a path.
    Agent(String, &'static str),
    /// What is known already.
    Text(String),
}

/// A section as read, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectionText {
    pub title: String,
    pub text: String,
    /// Why it was not, or not wholly, read.
    pub trouble: Option<String>,
}

impl SectionText {
    pub fn left_out(title: String, why: &str) -> Self {
        Self { title, text: String::new(), trouble: Some(why.to_owned()) }
    }
}

/// Reads sections until an instant.
pub struct Reader {
    secrets: Arc<Secrets>,
    end: Instant,
}

/// What was read, and why not all was.
#[derive(Default)]
struct Raw {
    bytes: Vec<u8>,
    /// What a program wrote to its standard error.
    messages: Vec<u8>,
    trouble: Option<String>,
}

impl Raw {
    fn failed(trouble: String) -> Self {
        Self { trouble: Some(trouble), ..Self::default() }
    }

    fn read(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }
}

impl Reader {
    pub fn new(secrets: Secrets, end: Instant) -> Self {
        Self { secrets: Arc::new(secrets), end }
    }

    /// Reads the sections, some at the same time, and answers them in their order.
    pub async fn read_all(&self, sections: Vec<Section>) -> Vec<SectionText> {
        let turns = Arc::new(Semaphore::new(TOGETHER));
        let mut tasks = JoinSet::new();
        let mut texts: Vec<_> = sections
            .iter()
            .map(|it| SectionText::left_out(it.title.clone(), "it could not be read"))
            .collect();
        for (index, section) in sections.into_iter().enumerate() {
            let (turns, secrets, end) = (Arc::clone(&turns), Arc::clone(&self.secrets), self.end);
            tasks.spawn(async move {
                let turn = timeout_at(end, turns.acquire_owned()).await;
                let text = match turn {
                    Ok(_turn) if Instant::now() < end => {
                        read(section, &secrets, end.min(Instant::now() + LIMIT)).await
                    }
                    _ => SectionText::left_out(section.title, "left out: no time was left"),
                };
                (index, text)
            });
        }
        while let Some(done) = tasks.join_next().await {
            if let Ok((index, text)) = done {
                texts[index] = text;
            }
        }
        texts
    }
}

async fn read(section: Section, secrets: &Secrets, end: Instant) -> SectionText {
    let Section { title, source, form } = section;
    let Raw { bytes, messages, trouble } = match source {
        SectionSource::Program(program, arguments) => run(&program, &arguments, end).await,
        SectionSource::File { path, is_log } => of_file(&path, is_log),
        SectionSource::Agent(address, path) => match agent_http::get(&address, path).await {
            Ok(answer) => Raw::read(answer.body.into_bytes()),
            Err(error) => Raw::failed(format!("the agent at {address}: {error}")),
        },
        SectionSource::Text(text) => Raw::read(text.into_bytes()),
    };
    let text = String::from_utf8_lossy(&bytes);
    // A document that was cut is not one, and what is left of it may have secrets.
    let clean = match form {
        Form::Text => Ok(secrets.out_of(&text)),
        _ if text.is_empty() => Ok(String::new()),
        form => secrets.out_of_document(&text, form),
    };
    let (mut text, unread) = match clean {
        Ok(text) => (text, None),
        Err(why) => (String::new(), Some(why)),
    };
    if !messages.is_empty() {
        text.push_str("\n[standard error]\n");
        text.push_str(&secrets.out_of(&String::from_utf8_lossy(&messages)));
    }
    let mut troubles: Vec<_> = trouble.into_iter().chain(unread).collect();
    if text.len() > MOST_KEPT {
        troubles.push(format!("cut: it has {} bytes", text.len()));
        text.truncate(text.floor_char_boundary(MOST_KEPT));
    }
    // Names of files and the like may have what a terminal obeys.
    text = printable_lines(&text.replace('\t', "    "));
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let trouble = Some(troubles.join("; ")).filter(|it| !it.is_empty());
    SectionText { title, text, trouble: trouble.map(|it| secrets.out_of(&it)) }
}

/// What a program writes to its outputs until it ends or its time is over. Then it is killed.
async fn run(program: &OsString, arguments: &[String], end: Instant) -> Raw {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.kill_on_drop(true).spawn() {
        Ok(child) => child,
        Err(error) => return Raw::failed(format!("{} does not start: {error}", program.display())),
    };
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (mut bytes, mut messages) = (Vec::new(), Vec::new());
    let reading = async {
        tokio::join!(take(out, &mut bytes), take(err, &mut messages));
        child.wait().await
    };
    let status = timeout_at(end, reading).await;
    let trouble = match status {
        Err(_) => Some("it did not end in time".to_owned()),
        Ok(Err(error)) => Some(error.to_string()),
        Ok(Ok(status)) if !status.success() => Some(status.to_string()),
        Ok(Ok(_)) => None,
    };
    Raw { bytes, messages, trouble }
}

/// What comes out of a pipe, up to the limit; then the pipe is closed.
async fn take(pipe: Option<impl AsyncRead + Unpin>, bytes: &mut Vec<u8>) {
    if let Some(pipe) = pipe {
        // What was read before an error is worth having.
        let _ = pipe.take(MOST_READ).read_to_end(bytes).await;
    }
}

/// A regular file: whoever opens a fifo waits for its other end.
fn of_file(path: &Path, is_log: bool) -> Raw {
    let open = || {
        let length = match std::fs::metadata(path)? {
            it if it.is_file() => it.len(),
            _ => return Err(std::io::Error::other("it is not a regular file")),
        };
        let mut file = std::fs::File::open(path)?;
        if is_log {
            file.seek(SeekFrom::Start(length.saturating_sub(MOST_KEPT as u64)))?;
        }
        let mut bytes = Vec::new();
        file.take(MOST_READ).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match open() {
        Ok(bytes) => Raw::read(bytes),
        Err(error) => Raw::failed(error.to_string()),
    }
}
