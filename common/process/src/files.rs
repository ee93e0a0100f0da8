//! Files of Weir's own in `/run` and `/var/lib`: locks, the state file, hints, Docker's networks.
//!
//! They are opened by programs that run as root, so that what somebody else may have put
//! in their place is refused: links are not followed, and directory and file must be this
//! user's, the file a regular one.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

/// The largest file that is read, in bytes: what is known of a cluster of ten thousand
/// blocks takes about two megabytes.
const MAX_SIZE: u64 = 64 << 20;

/// The mode bits by which others than the owner may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Opens a file to read and write, and makes it (mode 0600) and its directory (0700) when
/// they are missing.
///
/// # Errors
/// It cannot be opened, or is not a regular file of this user's in a directory of this
/// user's.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    check_directory(path)?;
    open_with(path, OpenOptions::new().read(true).write(true).create(true))
}

/// The text of a file.
///
/// # Errors
/// There is none; it cannot be opened, or is not a regular file of this user's; it is not UTF-8.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    existing(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// A file that is there, to be read.
///
/// # Errors
/// There is none; it cannot be opened, or is not a regular file of this user's.
pub(crate) fn existing(path: &Path) -> io::Result<io::Take<File>> {
    Ok(open_with(path, OpenOptions::new().read(true))?.take(MAX_SIZE))
}

/// Puts a file with this text in the place of another one, in one step. Of several
/// writers at once all but one fail or are replaced: their order is the caller's concern.
///
/// # Errors
/// It cannot be opened or written, or is not a regular file of this user's in a directory of
/// this user's. The other one stays.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    check_directory(path)?;
    let new = PathBuf::from(format!("{}.new", path.display()));
    let mut file = open_with(&new, OpenOptions::new().write(true).create(true).truncate(true))?;
    file.write_all(text.as_bytes())?;
    // Costs nothing in `/run`. Elsewhere a file must not be empty after the power fails.
    file.sync_all()?;
    fs::rename(new, path)
}

/// Makes a file that is not there yet, of these permissions, and flushes it to the disk: it may be
/// renamed to its place. Until it is whole, its owner alone can open it.
///
/// # Errors
/// Something is there; it cannot be made or written.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// Removes a file that may be missing.
///
/// # Errors
/// It is there and cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A fifo is opened without waiting for its other end; what is not a regular file is refused.
fn open_with(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = options.mode(0o600).custom_flags(flags.bits()).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || found.uid() != geteuid().as_raw() {
        return Err(refused("it is not a regular file of the user that Weir runs as; remove it"));
    }
    Ok(file)
}

fn check_directory(path: &Path) -> io::Result<()> {
    let Some(directory) = path.parent() else { return Ok(()) };
    let found = match fs::symlink_metadata(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            fs::symlink_metadata(directory)?
        }
        found => found?,
    };
    let is_own = found.is_dir() && found.uid() == geteuid().as_raw();
    if !is_own || found.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(refused(
            "its directory is a link, another user's, or writable by others; make it a \
             directory that only the user writes to that Weir runs as",
        ));
    }
    Ok(())
}

fn refused(why: &str) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, why)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_its_owners_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/state.json");
        replace(&path, "{}").unwrap();
        replace(&path, "{\"a\":1}").unwrap();
        assert_eq!(read(&path).unwrap(), "{\"a\":1}");
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_stands_in_a_files_place_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("secret"), "kept").unwrap();
        symlink(at("secret"), at("link")).unwrap();
        symlink(at("nothing"), at("dangling")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::create_dir(at("directory")).unwrap();
        for name in ["link", "dangling", "fifo", "directory"] {
            assert!(open(&at(name)).is_err(), "{name}");
            assert!(read(&at(name)).is_err(), "{name}");
        }
        symlink(at("secret"), at("state.new")).unwrap();
        assert!(replace(&at("state"), "{}").is_err());
        assert_eq!(fs::read_to_string(at("secret")).unwrap(), "kept");
        assert!(!at("nothing").exists());
    }

    #[test]
    fn a_new_file_takes_no_place_and_has_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        write_new(&at("new"), b"text", 0o755).unwrap();
        assert_eq!((fs::read(at("new")).unwrap(), mode(&at("new"))), (b"text".to_vec(), 0o755));
        symlink(at("secret"), at("dangling")).unwrap();
        for name in ["new", "dangling"] {
            let error = write_new(&at(name), b"other", 0o644).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{name}");
            remove(&at(name)).unwrap();
            remove(&at(name)).unwrap();
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        remove(directory.path()).unwrap_err();
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let open_to_all = directory.path().join("open");
        fs::create_dir(&open_to_all).unwrap();
        fs::set_permissions(&open_to_all, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(open(&open_to_all.join("ipam.lock")).is_err());
        let link = directory.path().join("link");
        symlink(directory.path(), &link).unwrap();
        assert!(open(&link.join("ipam.lock")).is_err());
    }
}
