//! Files that the configuration names, or that other programs write.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// The largest of them that is read, in bytes.
const MAX_SIZE: u64 = 1 << 20;

/// The text of a file. What is not a regular file (a fifo, which would be waited for) is
/// refused.
///
/// # Errors
/// It cannot be opened, is not a regular file, or is not UTF-8.
pub(crate) fn read_configured(path: &Path) -> io::Result<String> {
    let flags = OFlag::O_NONBLOCK.bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    file.take(MAX_SIZE).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifo_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("file"), "n1\n").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in ["file", "link"] {
            assert_eq!(read_configured(&at(name)).unwrap(), "n1\n");
        }
        for name in ["fifo", ".", "missing"] {
            assert!(read_configured(&at(name)).is_err(), "{name}");
        }
    }
}
