//! The file to log to.
//!
//! Several processes write to it at once, each line in one write to its end.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};
use weir_common::cni::LogFile;

/// Opens the file, with its directory made where it is missing. One that has
/// become too large is renamed to end in `.1` first, in the place of what was so
/// renamed before.
///
/// # Errors
/// It cannot be opened.
pub fn open(log: &LogFile) -> Result<File> {
    let file = append(&log.path)?;
    if file.metadata()?.len() < log.max_size {
        return Ok(file);
    }
    // Who cannot have the lock leaves it to the one that has it.
    let locked = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(locked) => locked,
        Err((file, _)) => return Ok(file),
    };
    if is_at(&locked, &log.path)? {
        std::fs::rename(&log.path, aside(&log.path))?;
    }
    append(&log.path)
}

/// Whether the file is still the one of that name.
fn is_at(file: &File, path: &Path) -> Result<bool> {
    let open = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

fn append(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    // A pipe that nobody reads must not make a plugin wait.
    options.append(true).create(true).mode(0o600).custom_flags(OFlag::O_NONBLOCK.bits());
    match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let directory = path.parent().ok_or_else(|| Error::from(ErrorKind::NotFound))?;
            DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
            options.open(path)
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_appended_to_up_to_its_size_and_then_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/weir.log");
        let log = LogFile { path: path.clone(), max_size: 10 };
        let write = |line: &str| open(&log).unwrap().write_all(line.as_bytes()).unwrap();
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        write("one\n");
        write("two, and more\n");
        assert_eq!(read(&path), "one\ntwo, and more\n");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        write("three\n");
        assert_eq!(read(&path), "three\n");
        assert_eq!(read(&aside(&path)), "one\ntwo, and more\n");
        // Who opened it before goes on in the old one, and does not rename the new.
        let (first, second) = (append(&path).unwrap(), append(&path).unwrap());
        assert!(is_at(&first, &path).unwrap());
        std::fs::rename(&path, aside(&path)).unwrap();
        assert!(!is_at(&second, &path).unwrap());
        write("four\n");
        assert!(!is_at(&second, &path).unwrap());
    }

    #[test]
    fn a_pipe_without_a_reader_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open(&LogFile { path, max_size: 1 }).is_err());
    }
}
