//! The embedded datastore: the suite, and what a file promises besides.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tempfile::TempDir;
use weir_common::datastore::{Datastore, Error, Event, Outcome, Revision, Transaction};
use weir_datastore::embedded::{Embedded, HISTORY_KEPT, HISTORY_SLACK, SCHEMA_VERSION};

use crate::processes::Process;
use crate::suite::{self, Place, put, value};

struct OnDisk(TempDir);

impl OnDisk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("new directory").join("weir.db")
    }
}

#[async_trait]
impl Place for OnDisk {
    async fn open(&self) -> Box<dyn Datastore> {
        Box::new(Embedded::open(&self.path()).await.unwrap())
    }

    async fn compact(&self, _: Revision) {
        let store = self.open().await;
        for _ in 0..HISTORY_KEPT + HISTORY_SLACK {
            put(&*store, &[("/filler", "x")]).await;
        }
    }
}

async fn place() -> OnDisk {
    OnDisk::new()
}

suite::behaviour!(place());

/// The error with all its causes, in one line.
fn whole(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

async fn assert_refused(path: &Path, reason: &str) {
    match Embedded::open(path).await {
        Err(error @ Error::Failed { .. }) => {
            let text = whole(&error);
            assert!(text.contains(reason), "{text}");
            assert!(text.contains(path.to_str().unwrap()), "{text}");
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("opened"),
    }
}

#[tokio::test]
async fn no_increment_of_many_processes_is_lost() {
    let place = OnDisk::new();
    // None of them finds a database: they also race to make it.
    let processes: Vec<Process> =
        (0..16).map(|_| Process::start("increment", &place.path(), "20")).collect();
    processes.into_iter().for_each(Process::assert_success);
    assert_eq!(value(&*place.open().await, "/count").await.as_deref(), Some("320"));
}

#[tokio::test]
async fn processes_that_make_the_database_at_once_share_it() {
    let place = OnDisk::new();
    let keys: Vec<String> = (0..16).map(|n| format!("/{n:02}")).collect();
    let processes: Vec<Process> =
        keys.iter().map(|key| Process::start("put", &place.path(), key)).collect();
    processes.into_iter().for_each(Process::assert_success);
    let found = place.open().await.list("", None, usize::MAX).await.unwrap().entries;
    assert_eq!(found.into_iter().map(|it| it.key).collect::<Vec<_>>(), keys);
    let mut files: Vec<String> = std::fs::read_dir(place.path().parent().unwrap())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["weir.db", "weir.db-shm", "weir.db-wal"]);
}

/// A killed writer loses nothing that it was told is committed, and leaves no
/// commit in halves.
#[tokio::test]
async fn a_killed_writer_leaves_a_consistent_database() {
    const ROUNDS: u32 = 30;
    let place = OnDisk::new();
    // xorshift: moments that are the same in every run.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..ROUNDS {
        let mut writer = Process::start("write for ever", &place.path(), "");
        let mut told: u64 = writer.line().expect("it commits").parse().unwrap();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_micros(random % 15_000));
        writer.kill();
        while let Some(Ok(number)) = writer.line().map(|line| line.parse()) {
            told = number;
        }
        let store = place.open().await;
        let found: u64 = value(&*store, "/one").await.unwrap().parse().unwrap();
        assert_eq!(value(&*store, "/two").await, Some(found.to_string()), "round {round}");
        assert!(found == told || found == told + 1, "told {told}, found {found}");
    }
    let check: String = Connection::open(place.path())
        .unwrap()
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
}

/// Also when every process ends before the next one begins, so that none lives
/// to see a log emptied that it wrote itself.
#[tokio::test]
async fn the_log_stays_short() {
    let place = OnDisk::new();
    let log = format!("{}-wal", place.path().display());
    let text = "x".repeat(4000);
    for n in 0..300 {
        put(&*place.open().await, &[("/a", &text), ("/b", &n.to_string())]).await;
        let length = std::fs::metadata(&log).unwrap().len();
        // It keeps its place on the disk, and needs no more.
        assert!((1 << 20..3 << 19).contains(&length), "{length} bytes after {n} commits");
    }
    assert_eq!(value(&*place.open().await, "/b").await.as_deref(), Some("299"));
}

fn log_of(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}-wal", path.display()))
}

fn remove_with_index(log: &Path) {
    std::fs::remove_file(log).unwrap();
    std::fs::remove_file(log.to_str().unwrap().replace("-wal", "-shm")).unwrap();
}

#[tokio::test]
async fn a_database_without_its_log_is_noticed_each_time() {
    let place = OnDisk::new();
    put(&*place.open().await, &[("/a", "1")]).await;
    let copy = place.0.path().join("copy.db");
    std::fs::copy(place.path(), &copy).unwrap();
    remove_with_index(&log_of(&place.path()));
    for path in [&copy, &place.path()] {
        assert_refused(path, "is missing").await;
        assert_refused(path, "is missing").await;
    }
}

#[tokio::test]
async fn a_database_with_another_ones_log_is_noticed() {
    let place = OnDisk::new();
    let old = place.0.path().join("old.db");
    for n in 0..3 {
        let store = place.open().await;
        put(&*store, &[("/a", &n.to_string())]).await;
        store.maintain().await.unwrap();
        if n == 0 {
            std::fs::copy(place.path(), &old).unwrap();
        }
    }
    std::fs::rename(&old, place.path()).unwrap();
    assert_refused(&place.path(), "belongs to another database").await;
}

#[tokio::test]
async fn what_another_program_moved_into_the_file_is_whole() {
    let place = OnDisk::new();
    put(&*place.open().await, &[("/a", "1")]).await;
    let shell = Connection::open(place.path()).unwrap();
    shell.query_row("SELECT count(*) FROM entries", [], |_| Ok(())).unwrap();
    // The last one to close the file moves its log into it and removes it.
    drop(shell);
    assert!(!log_of(&place.path()).exists());
    assert_eq!(value(&*place.open().await, "/a").await.as_deref(), Some("1"));
    put(&*place.open().await, &[("/a", "2")]).await;
    remove_with_index(&log_of(&place.path()));
    assert_refused(&place.path(), "is missing").await;
}

/// Also one that earlier versions made, which says nothing about its log.
#[tokio::test]
async fn an_earlier_database_is_taken_over() {
    let place = OnDisk::new();
    put(&*place.open().await, &[("/a", "1")]).await;
    let tables =
        "DROP TABLE file_mark; DROP TABLE log_mark; DROP TABLE origin; DROP TABLE reserve;";
    Connection::open(place.path()).unwrap().execute_batch(tables).unwrap();
    assert_eq!(value(&*place.open().await, "/a").await.as_deref(), Some("1"));
    put(&*place.open().await, &[("/a", "2")]).await;
    place.open().await.maintain().await.unwrap();
    put(&*place.open().await, &[("/a", "3")]).await;
    remove_with_index(&log_of(&place.path()));
    assert_refused(&place.path(), "is missing").await;
}

#[tokio::test]
async fn after_maintenance_the_file_has_everything() {
    let place = OnDisk::new();
    let store = place.open().await;
    put(&*store, &[("/a", "1")]).await;
    store.maintain().await.unwrap();
    let found = |path: &Path| -> i64 {
        let uri = format!("file:{}?immutable=1", path.display().to_string().replace(' ', "%20"));
        let copy = Connection::open(uri).unwrap();
        copy.query_row("SELECT count(*) FROM entries", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(found(&place.path()), 1);
    put(&*store, &[("/b", "1")]).await;
    assert_eq!(found(&place.path()), 1, "the log has it");
    store.maintain().await.unwrap();
    assert_eq!(found(&place.path()), 2);
}

#[tokio::test]
async fn a_backup_is_whole_and_its_owners_alone() {
    let place = OnDisk::new();
    let store = Embedded::open(&place.path()).await.unwrap();
    put(&store, &[("/a", "1"), ("/b", "2")]).await;
    let backup = place.0.path().join("backup.db");
    let copied = store.back_up(&backup).await.unwrap();
    assert_eq!((copied.keys, copied.revision), (2, Revision(1)));
    put(&store, &[("/a", "3")]).await;

    let again = store.back_up(&backup).await.unwrap_err();
    assert!(whole(&again).contains("a file of this name already"), "{}", whole(&again));
    assert_eq!(std::fs::metadata(&backup).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 2, "no drafts are left");
    // Put in a datastore's place, it works as it is.
    let opened = Embedded::open(&backup).await.unwrap();
    assert_eq!(value(&opened, "/a").await.as_deref(), Some("1"));
    put(&opened, &[("/a", "4")]).await;
}

#[tokio::test]
async fn a_restored_backup_is_one_change_in_another_history() {
    let place = OnDisk::new();
    let store = Embedded::open(&place.path()).await.unwrap();
    put(&store, &[("/a", "1")]).await;
    let backup = place.0.path().join("backup.db");
    store.back_up(&backup).await.unwrap();
    let other = place.open().await;
    for _ in 0..5 {
        put(&*other, &[("/a", "2"), ("/b", "2")]).await;
    }
    let before = other.list("/", None, 9).await.unwrap();
    let mut watch = other.watch(&["/a".to_owned()], before.revision).await.unwrap();
    let nothing = tokio::time::timeout(Duration::from_millis(20), watch.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");

    let error = store.restore(&backup, false).await.unwrap_err();
    assert!(whole(&error).contains("not empty (2 keys)"), "{}", whole(&error));
    assert_eq!(value(&*other, "/b").await.as_deref(), Some("2"));
    let restored = store.restore(&backup, true).await.unwrap();
    assert_eq!((restored.keys, restored.revision), (1, Revision(before.revision.0 + 1)));

    let after = other.list("/", None, 9).await.unwrap();
    assert_eq!(after.entries.len(), 1);
    assert_eq!(
        (&*after.entries[0].value, after.entries[0].revision),
        (&b"1"[..], restored.revision)
    );
    assert!(!before.history.goes_on_in(after.history));
    let ended = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap();
    assert!(matches!(ended, Err(Error::Compacted { .. })), "{ended:?}");
    // What was decided by what is gone now is not committed.
    let mut late = Transaction::default();
    late.update("/a".to_owned(), before.entries[0].revision, b"late".to_vec());
    assert_eq!(other.commit(late).await.unwrap(), Outcome::Conflict);
}

#[tokio::test]
async fn what_is_no_whole_backup_is_not_restored() {
    let place = OnDisk::new();
    let store = Embedded::open(&place.path()).await.unwrap();
    let text = "x".repeat(3000);
    for n in 0..50 {
        put(&store, &[(&format!("/{n}"), &text)]).await;
    }
    let file = |name: &str| place.0.path().join(name);
    store.back_up(&file("damaged")).await.unwrap();
    let damaged = std::fs::OpenOptions::new().write(true).open(file("damaged")).unwrap();
    damaged.write_all_at(&[0xff; 40_000], 40_000).unwrap();
    put(&store, &[("/b", "1")]).await;
    std::fs::write(file("text"), "This is a text. ".repeat(500)).unwrap();
    store.maintain().await.unwrap();
    std::fs::copy(place.path(), file("without log")).unwrap();

    let empty = Embedded::open(&file("empty.db")).await.unwrap();
    for (name, reason) in [
        ("damaged", "damaged"),
        ("text", "no database"),
        ("missing", "No such file"),
        ("without log", "is missing"),
    ] {
        let error = empty.restore(&file(name), false).await.unwrap_err();
        assert!(whole(&error).contains(reason), "{name}: {}", whole(&error));
        assert!(whole(&error).contains(file(name).to_str().unwrap()), "{}", whole(&error));
        assert!(!log_of(&file(name)).exists(), "nothing is written beside it");
    }
    assert_eq!(empty.restore(&file("without log"), true).await.unwrap().keys, 51);
}

/// Each file in a directory, by name, with what is in it.
fn files_in(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    };
    std::fs::read_dir(directory).unwrap().map(file).collect()
}

/// Whether the log beside it is its own or not, and also while another process has it open.
#[tokio::test]
async fn what_is_restored_from_stays_as_it_is() {
    let place = OnDisk::new();
    let (own, others) = (place.0.path().join("own"), place.0.path().join("other's"));
    let copy = |name: &str, directory: &Path| {
        std::fs::create_dir_all(directory).unwrap();
        let from = place.path().with_file_name(name);
        std::fs::copy(from, directory.join(name)).unwrap();
    };
    let store = place.open().await;
    put(&*store, &[("/a", "0")]).await;
    store.maintain().await.unwrap();
    copy("weir.db", &others);
    for n in 1..3 {
        put(&*store, &[("/a", &n.to_string()), ("/b", "1")]).await;
        store.maintain().await.unwrap();
    }
    put(&*store, &[("/c", "1")]).await;
    copy("weir.db-wal", &others);
    copy("weir.db", &own);
    copy("weir.db-wal", &own);
    let before = [&own, &others].map(|it| files_in(it));

    let target = Embedded::open(&place.0.path().join("target.db")).await.unwrap();
    let error = target.restore(&others.join("weir.db"), false).await.unwrap_err();
    assert!(whole(&error).contains("belongs to another database"), "{}", whole(&error));
    assert_eq!(target.restore(&own.join("weir.db"), false).await.unwrap().keys, 3);
    let restored = target.restore(&others.join("weir.db"), true).await.unwrap();
    assert_eq!(restored.keys, 1, "without the other log");
    assert_eq!(value(&target, "/a").await.as_deref(), Some("0"));
    assert!([&own, &others].map(|it| files_in(it)) == before, "a file was changed");

    let in_use = Connection::open(own.join("weir.db")).unwrap();
    let count = || in_use.query_row("SELECT count(*) FROM entries", [], |row| row.get::<_, i64>(0));
    assert_eq!(count().unwrap(), 3);
    assert_eq!(target.restore(&own.join("weir.db"), true).await.unwrap().keys, 3);
    let mut after = files_in(&own);
    assert!(after.remove("weir.db-shm").is_some(), "the one that has it open made it");
    assert!(after == before[0], "a file was changed");
}

#[tokio::test]
async fn a_replaced_file_is_noticed() {
    let place = OnDisk::new();
    let store = Embedded::open(&place.path()).await.unwrap();
    put(&store, &[("/a", "1"), ("/b", "1")]).await;
    let mut watch = store.watch(&["/".to_owned()], Revision(1)).await.unwrap();
    let backup = place.0.path().join("backup.db");
    store.back_up(&backup).await.unwrap();
    put(&store, &[("/a", "2")]).await;
    watch.next().await.unwrap();

    remove_with_index(&log_of(&place.path()));
    std::fs::rename(&backup, place.path()).unwrap();
    // What is committed goes to the file that is there now.
    put(&store, &[("/b", "3")]).await;
    assert_eq!(value(&*place.open().await, "/a").await.as_deref(), Some("1"));
    assert_eq!(value(&*place.open().await, "/b").await.as_deref(), Some("3"));
    let ended = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap();
    assert!(matches!(ended, Err(Error::Compacted { .. })), "{ended:?}");

    remove_with_index(&log_of(&place.path()));
    std::fs::remove_file(place.path()).unwrap();
    let change = Transaction { compares: vec![], writes: vec![suite::put_of("/a", b"4")] };
    let error = store.commit(change).await.unwrap_err();
    assert!(whole(&error).contains("was removed"), "{}", whole(&error));
    assert!(!place.path().exists(), "it does not begin with an empty one by itself");
}

/// Each call says what is wrong with the file, until the right one is there.
#[tokio::test]
async fn a_replacement_that_does_not_open_is_tried_again() {
    let place = OnDisk::new();
    let store = Embedded::open(&place.path()).await.unwrap();
    put(&store, &[("/a", "1")]).await;
    let mut watch = store.watch(&["/a".to_owned()], Revision(1)).await.unwrap();
    let directory = place.path().parent().unwrap().to_owned();
    let away = place.0.path().join("away");
    for replacement in [None, Some("This is a text. ".repeat(500))] {
        std::fs::rename(&directory, &away).unwrap();
        std::fs::create_dir(&directory).unwrap();
        let reason = if replacement.is_some() { "no database" } else { "was removed" };
        if let Some(text) = replacement {
            std::fs::write(place.path(), text).unwrap();
        }
        let change = Transaction { compares: vec![], writes: vec![suite::put_of("/a", b"2")] };
        let failures = [
            store.commit(change).await.unwrap_err(),
            store.list("/", None, 9).await.unwrap_err(),
            store.check_writable().await.unwrap_err(),
            store.maintain().await.unwrap_err(),
            store.back_up(&place.0.path().join("backup.db")).await.unwrap_err(),
        ];
        for failure in failures {
            assert!(whole(&failure).contains(reason), "{}", whole(&failure));
            assert!(whole(&failure).contains(place.path().to_str().unwrap()), "{failure}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
        std::fs::rename(&away, &directory).unwrap();
        assert_eq!(value(&store, "/a").await.as_deref(), Some("1"));
        put(&store, &[("/a", "1")]).await;
    }
    let ended = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap();
    assert!(matches!(ended, Err(Error::Compacted { .. })), "{ended:?}");
}

#[tokio::test]
async fn a_backup_is_of_the_file_that_is_there_now() {
    let place = OnDisk::new();
    let store = Embedded::open(&place.path()).await.unwrap();
    put(&store, &[("/a", "1")]).await;
    let file = |name: &str| place.0.path().join(name);
    store.back_up(&file("earlier.db")).await.unwrap();
    put(&store, &[("/b", "1")]).await;
    remove_with_index(&log_of(&place.path()));
    std::fs::rename(file("earlier.db"), place.path()).unwrap();
    assert_eq!(store.back_up(&file("backup.db")).await.unwrap().keys, 1);
}

/// Two processes wait for each other's commits in turn: one wake-up missed, and
/// both wait for ever.
#[tokio::test]
async fn watches_are_woken_by_other_processes() {
    const TURNS: usize = 500;
    let place = OnDisk::new();
    let store = place.open().await;
    let mut watch = store.watch(&["/answer".to_owned()], Revision(0)).await.unwrap();
    let other = Process::start("answer", &place.path(), &TURNS.to_string());
    for turn in 1..=TURNS {
        put(&*store, &[("/question", &turn.to_string())]).await;
        let events = tokio::time::timeout(Duration::from_secs(20), watch.next()).await;
        let events = events.unwrap_or_else(|_| panic!("not woken in turn {turn}")).unwrap();
        let [Event::Put(entry)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(entry.value, turn.to_string().as_bytes());
    }
    other.assert_success();
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    for umask in [0o000, 0o022, 0o777] {
        let place = OnDisk::new();
        let umask: u32 = umask;
        Process::start("put with umask", &place.path(), &umask.to_string()).assert_success();
        for (suffix, expected) in [("", 0o600), ("-wal", 0o600), ("-shm", 0o600)] {
            let file = format!("{}{suffix}", place.path().display());
            let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777;
            assert_eq!(mode, expected, "{file} with umask {umask:o}");
        }
        let directory = place.path().parent().unwrap().to_owned();
        let mode = std::fs::metadata(directory).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o755, "with umask {umask:o}");
    }
}

#[test]
fn a_file_system_without_a_size_has_room() {
    for kind in ["ramfs:", "tmpfs:size=0"] {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("weir.db");
        let mut process = Process::start("put in a mount", &database, kind);
        assert_eq!(process.line().as_deref(), Some("committed on 0 blocks"), "{kind}");
    }
}

#[test]
fn files_of_others_are_denied() {
    let place = OnDisk::new();
    let directory = place.0.path();
    let set_mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    std::fs::write(directory.join("closed"), "").unwrap();
    set_mode(&directory.join("closed"), 0o000);
    set_mode(directory, 0o555);
    for name in ["closed", "missing", "missing/too"] {
        let mut process = Process::start("open as nobody", &directory.join(name), "");
        assert_eq!(process.line().as_deref(), Some("denied"), "{name}");
    }
    set_mode(directory, 0o755);
}

#[tokio::test]
async fn a_lock_is_waited_for_within_the_limit() {
    let place = OnDisk::new();
    let limit = Duration::from_millis(30);
    let store = Embedded::open_with_lock_timeout(&place.path(), limit).await.unwrap();
    put(&store, &[("/a", "1")]).await;
    let other = Connection::open(place.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let change = || Transaction { compares: vec![], writes: vec![suite::put_of("/a", b"2")] };
    let error = store.commit(change()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(whole(&error).contains("locked"), "{}", whole(&error));
    assert_eq!(value(&store, "/a").await.as_deref(), Some("1"));

    let patient = Embedded::open(&place.path()).await.unwrap();
    let (outcome, ()) = tokio::join!(patient.commit(change()), async {
        other.execute_batch("ROLLBACK").unwrap();
    });
    assert!(matches!(outcome.unwrap(), Outcome::Committed(_)));
}

#[tokio::test]
async fn what_is_no_database_of_weirs_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("text"), "This is a text. ".repeat(500)).unwrap();
    assert_refused(&path("text"), "damaged or no database").await;
    std::fs::write(path("empty"), "").unwrap();
    assert_refused(&path("empty"), "not a database of Weir's").await;
    Connection::open(path("foreign")).unwrap().execute_batch("CREATE TABLE t (c)").unwrap();
    assert_refused(&path("foreign"), "not a database of Weir's").await;
    std::fs::create_dir(path("directory")).unwrap();
    assert_refused(&path("directory"), "unable to open").await;
    std::fs::write(path("file in the way"), "").unwrap();
    assert_refused(&path("file in the way/weir.db"), "Not a directory").await;
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let place = OnDisk::new();
    put(&*place.open().await, &[("/a", "1")]).await;
    let newer = SCHEMA_VERSION + 1;
    Connection::open(place.path()).unwrap().pragma_update(None, "user_version", newer).unwrap();
    assert_refused(&place.path(), "upgrade").await;
}

#[tokio::test]
async fn a_log_without_its_database_is_not_mixed_into_a_new_one() {
    let place = OnDisk::new();
    put(&*place.open().await, &[("/a", "1")]).await;
    std::fs::remove_file(place.path()).unwrap();
    assert_refused(&place.path(), "weir.db-wal").await;
}
