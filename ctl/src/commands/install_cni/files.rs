//! Files that are replaced while others use them.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use weir_process::files::write_new;

/// Why a file is not installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// No name of a network's file.
    #[error(
        "--conf-name {name:?} is not the name of a file that ends in .conflist or .conf; write for example 10-weir.conflist"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Something that is to be installed cannot be read.
    #[error("{path} cannot be read: {cause}; name what is there: --from, --conf, --certificates", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        cause: io::Error,
    },
    /// The place is no directory.
    #[error("{path} {what}", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// Another program's file is in the way.
    #[error(
        "{path} is not a file of Weir's; move it away, or name another place",
        path = path.display()
    )]
    NotWeirs {
        /// The file.
        path: PathBuf,
    },
    /// Nothing can be written there.
    #[error("{path} cannot be written: {cause}; {advice}", path = path.display())]
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// What the kernel says.
        cause: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// Another installer holds the lock.
    #[error("another install-cni is at work in {path}; run it again when that has ended", path = path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// A template names a variable that is not set.
    #[error("the network has __{name}__, and the variable {name} is not set; set it")]
    Variable {
        /// Its name.
        name: String,
    },
    /// The network would not work.
    #[error("the network for {path} is refused: {what}", path = path.display())]
    Network {
        /// Where it was to be.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
}

impl FileError {
    /// Of a path at which the kernel refused a change.
    pub fn unwritable(path: &Path, cause: io::Error) -> Self {
        let advice = match cause.kind() {
            ErrorKind::ReadOnlyFilesystem => {
                "mount the node's directory there so that it can be written"
            }
            ErrorKind::PermissionDenied => "run it as root, in a container that may write there",
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free space there",
            _ => "correct that, and run it again",
        };
        Self::Unwritable { path: path.to_owned(), cause, advice }
    }

    /// Of a path that cannot be read.
    pub fn unreadable(path: &Path, cause: io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), cause }
    }
}

/// A file as it is to be.
pub struct WantedFile {
    /// Its place.
    pub path: PathBuf,
    /// Its contents.
    pub bytes: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
}

/// A file that is on the disk beside its place, under a name of its own that no runtime reads.
/// It goes away if it is not put there.
pub struct Draft<'a> {
    place: &'a Path,
    is_written: bool,
}

impl<'a> Draft<'a> {
    /// Writes a file beside its place, unless the place has it already.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn write(wanted: &'a WantedFile) -> Result<Self, FileError> {
        let place = wanted.path.as_path();
        remove_draft(place)?;
        let mut draft = Self { place, is_written: false };
        if is_there(wanted)? {
            return Ok(draft);
        }
        draft.is_written = true;
        write_new(&beside(place), &wanted.bytes, wanted.mode)
            .map_err(|cause| FileError::unwritable(place, cause))?;
        Ok(draft)
    }

    /// Puts it in its place: whoever has the old file open keeps that. Answers what was done, in
    /// a line.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn place(mut self) -> Result<String, FileError> {
        let path = self.place;
        if !self.is_written {
            return Ok(format!("unchanged {}\n", path.display()));
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        let placed = fs::rename(beside(path), path).and_then(|()| {
            self.is_written = false;
            File::open(directory)?.sync_all()
        });
        placed.map_err(|cause| FileError::unwritable(path, cause))?;
        Ok(format!("changed {}\n", path.display()))
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if self.is_written {
            // The next installer removes what stays.
            let _ = remove_draft(self.place);
        }
    }
}

/// Where a file is before it gets into its place. No runtime takes the name for a network's or a
/// plugin's.
fn beside(place: &Path) -> PathBuf {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    place.with_file_name(format!(".{name}.new"))
}

/// Removes what an installer that was killed has left.
///
/// # Errors
/// The kernel refuses it.
pub fn remove_draft(place: &Path) -> Result<(), FileError> {
    let draft = beside(place);
    match fs::remove_file(&draft) {
        Err(cause) if !is_missing(&cause) => Err(FileError::unwritable(&draft, cause)),
        _ => Ok(()),
    }
}

fn is_missing(cause: &io::Error) -> bool {
    matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn is_there(wanted: &WantedFile) -> Result<bool, FileError> {
    let Some(bytes) = existing(&wanted.path)? else { return Ok(false) };
    let found =
        fs::metadata(&wanted.path).map_err(|cause| FileError::unreadable(&wanted.path, cause))?;
    Ok(bytes == wanted.bytes && found.permissions().mode() & 0o7777 == wanted.mode)
}

/// What is in a file that may be missing.
///
/// # Errors
/// [`FileError::NotWeirs`] for a link, a directory or the like: Weir puts files there. The kernel
/// refuses to read it.
pub fn existing(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::symlink_metadata(path) {
        Err(cause) if is_missing(&cause) => Ok(None),
        Err(cause) => Err(FileError::unreadable(path, cause)),
        Ok(found) if !found.is_file() => Err(FileError::NotWeirs { path: path.to_owned() }),
        Ok(_) => read(path).map(Some),
    }
}

/// What is in a file.
///
/// # Errors
/// The kernel refuses to read it.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(|cause| FileError::unreadable(path, cause))
}

/// The text of a file.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(|cause| FileError::unreadable(path, cause))
}

/// Checks that a path is a directory, and no link to one: of a link nobody knows where it leads
/// outside of the container.
///
/// # Arguments
/// - `flag`: the flag that names the directory
///
/// # Errors
/// [`FileError::Directory`].
pub fn check_directory(path: &Path, flag: &str) -> Result<(), FileError> {
    let refused = |what: String| Err(FileError::Directory { path: path.to_owned(), what });
    match fs::symlink_metadata(path) {
        Err(cause) if is_missing(&cause) => refused(format!(
            "is missing; make it on the node and mount it there, or name another one with {flag}"
        )),
        Err(cause) => Err(FileError::unreadable(path, cause)),
        Ok(found) if found.is_symlink() => {
            refused(format!("is a symbolic link; name the directory that it leads to with {flag}"))
        }
        Ok(found) if !found.is_dir() => {
            refused(format!("is not a directory; name one with {flag}"))
        }
        Ok(_) => Ok(()),
    }
}

/// Makes a directory that its owner alone can read, unless it is there.
///
/// # Errors
/// It cannot be made, or something else is there.
pub fn make_private_directory(path: &Path) -> Result<(), FileError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(cause) if cause.kind() != ErrorKind::AlreadyExists => {
            Err(FileError::unwritable(path, cause))
        }
        _ => check_directory(path, "--cni-directory"),
    }
}
