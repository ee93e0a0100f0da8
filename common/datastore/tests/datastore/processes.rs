//! Processes that tests start: this very program, told by its environment to
//! be one of the actors below instead of a test run.

use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use weir_common::datastore::{Datastore, Error, Event, Revision, Transaction};
use weir_datastore::Embedded;

use crate::suite::{committed, increment, put_of};

const ACTOR: &str = "WEIR_DATASTORE_TEST_ACTOR";
const DATABASE: &str = "WEIR_DATASTORE_TEST_DATABASE";
const ARGUMENT: &str = "WEIR_DATASTORE_TEST_ARGUMENT";

/// A process, killed when it is dropped.
pub struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Starts an actor on a database.
    pub fn start(actor: &str, database: &Path, argument: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["processes::be_an_actor_if_told_so", "--exact", "--nocapture", "--quiet"])
            .env(ACTOR, actor)
            .env(DATABASE, database)
            .env(ARGUMENT, argument)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// Waits for the actor's next line and returns what follows the mark that
    /// tells it from the test runner's own; `None` when there are no more.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if let Some((_, said)) = line.trim_end().split_once("actor: ") {
                return Some(said.to_owned());
            }
            line.clear();
        }
        None
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn assert_success(mut self) {
        while let Some(line) = self.line() {
            assert!(!line.starts_with("failed"), "{line}");
        }
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// No test, but the way in for the actors.
#[tokio::test]
async fn be_an_actor_if_told_so() {
    let Ok(actor) = std::env::var(ACTOR) else { return };
    let database = std::env::var(DATABASE).unwrap();
    let argument = std::env::var(ARGUMENT).unwrap();
    let database = Path::new(&database);
    match actor.as_str() {
        "increment" => increment_often(database, argument.parse().unwrap()).await,
        "put" => put_one(database, &argument).await,
        "answer" => answer(database, argument.parse().unwrap()).await,
        "write for ever" => write_for_ever(database).await,
        "put with umask" => {
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(
                argument.parse().unwrap(),
            ));
            put_one(database, "/a").await;
        }
        "put in a mount" => put_in_a_mount(database, &argument).await,
        "open as nobody" => open_as_nobody(database).await,
        other => panic!("unknown actor {other}"),
    }
}

fn say(line: &str) {
    let mut output = std::io::stdout();
    writeln!(output, "actor: {line}").unwrap();
}

async fn increment_often(database: &Path, times: usize) {
    for _ in 0..times {
        // As the programs do: one process, one call, one opening.
        increment(&Embedded::open(database).await.unwrap(), "/count").await;
    }
}

async fn put_one(database: &Path, key: &str) {
    let store = Embedded::open(database).await.unwrap();
    let writes = vec![put_of(key, b"x")];
    committed(&store, Transaction { compares: vec![], writes }).await;
}

/// Commits to a database in a file system of this process alone, of the type and with the
/// options given as `TYPE:OPTIONS`, mounted over the database's directory.
async fn put_in_a_mount(database: &Path, argument: &str) {
    let (kind, options) = argument.split_once(':').unwrap();
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let directory = database.parent().unwrap();
    mount(Some(kind), directory, Some(kind), MsFlags::empty(), Some(options)).unwrap();
    let store = Embedded::open(database).await.unwrap();
    store.check_writable().await.unwrap();
    let writes = vec![put_of("/a", b"x")];
    committed(&store, Transaction { compares: vec![], writes }).await;
    let blocks = nix::sys::statvfs::statvfs(directory).unwrap().blocks();
    say(&format!("committed on {blocks} blocks"));
}

/// Answers each question by its own value.
async fn answer(database: &Path, times: usize) {
    let store = Embedded::open(database).await.unwrap();
    let mut watch = store.watch(&["/question".to_owned()], Revision(0)).await.unwrap();
    for _ in 0..times {
        for event in watch.next().await.unwrap() {
            let Event::Put(question) = event else { panic!("nothing was deleted") };
            let writes = vec![put_of("/answer", &question.value)];
            committed(&store, Transaction { compares: vec![], writes }).await;
        }
    }
}

/// Keeps two keys equal and says each number that was committed.
async fn write_for_ever(database: &Path) {
    let store = Embedded::open(database).await.unwrap();
    let mut count: u64 = match store.get("/one").await.unwrap() {
        Some(entry) => String::from_utf8(entry.value).unwrap().parse().unwrap(),
        None => 0,
    };
    loop {
        count += 1;
        let text = count.to_string();
        let ballast = vec![0; 10_000];
        let writes = vec![
            put_of("/one", text.as_bytes()),
            put_of(&format!("/ballast/{}", count % 50), &ballast),
            put_of("/two", text.as_bytes()),
        ];
        committed(&store, Transaction { compares: vec![], writes }).await;
        say(&text);
    }
}

async fn open_as_nobody(database: &Path) {
    if nix::unistd::geteuid().is_root() {
        nix::unistd::seteuid(nix::unistd::Uid::from_raw(65534)).unwrap();
    }
    say(match Embedded::open(database).await {
        Ok(_) => "opened",
        Err(Error::Denied { .. }) => "denied",
        Err(_) => "failed otherwise",
    });
}
