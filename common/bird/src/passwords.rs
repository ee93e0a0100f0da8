//! The passwords of sessions, in files: `/etc/weir/secrets/<name>/<key>`. Never in the datastore,
//! never in a log.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use weir_common::printable;
use weir_common::resources::bgp::SecretReference;

/// Where the files are.
pub const PASSWORD_FOLDER: &str = "/etc/weir/secrets";

/// The most bytes of a file; a password has at most 80.
const LARGEST_FILE: u64 = 1024;

/// The longest name of a file.
const LONGEST_NAME: usize = 253;

/// A password that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The reference is not a path.
    #[error(
        "the password {}: a name of a secret and of its key has letters, digits and . _ - only, \
         and does not begin with a dot", printable(&.0.to_string())
    )]
    Name(SecretReference),
    /// The file cannot be read.
    #[error("the password {secret} cannot be read from {folder}/{secret}: {cause}")]
    File {
        /// The password.
        secret: SecretReference,
        /// Where the files are.
        folder: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Something else is there.
    #[error("{folder}/{secret} is not a regular file; put the password into one")]
    NotRegular {
        /// The password.
        secret: SecretReference,
        /// Where the files are.
        folder: String,
    },
    /// Others may read or write it.
    #[error(
        "{folder}/{secret} belongs to user {owner} and has mode {mode:04o}; passwords are root's \
         alone: chown root and chmod 600 it"
    )]
    Exposed {
        /// The password.
        secret: SecretReference,
        /// Where the files are.
        folder: String,
        /// Whose it is.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// It is not a password.
    #[error("{folder}/{secret} is not a text of at most {LARGEST_FILE} bytes")]
    NotText {
        /// The password.
        secret: SecretReference,
        /// Where the files are.
        folder: String,
    },
}

/// Reads the passwords that are there; without the newline at the end.
pub fn read_passwords<'a>(
    folder: &Path,
    secrets: impl IntoIterator<Item = &'a SecretReference>,
) -> (BTreeMap<SecretReference, String>, Vec<PasswordError>) {
    let (mut passwords, mut errors) = (BTreeMap::new(), Vec::new());
    for secret in secrets.into_iter().collect::<BTreeSet<_>>() {
        match read(folder, secret) {
            Ok(password) => drop(passwords.insert(secret.clone(), password)),
            Err(error) => errors.push(error),
        }
    }
    (passwords, errors)
}

fn read(folder: &Path, secret: &SecretReference) -> Result<String, PasswordError> {
    if ![&secret.name, &secret.key].into_iter().all(|name| is_name(name)) {
        return Err(PasswordError::Name(secret.clone()));
    }
    let at = folder.display().to_string();
    let (secret, place) = (secret.clone(), at.clone());
    let file = match open(folder, &secret) {
        Ok(file) => file,
        Err(cause) => return Err(PasswordError::File { secret, folder: place, cause }),
    };
    let status = match fstat(file.as_fd()) {
        Ok(status) => status,
        Err(cause) => {
            return Err(PasswordError::File { secret, folder: place, cause: cause.into() });
        }
    };
    if SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits()) != SFlag::S_IFREG {
        return Err(PasswordError::NotRegular { secret, folder: place });
    }
    let mode = status.st_mode & 0o7777;
    if status.st_uid != 0 || mode & 0o077 != 0 {
        let owner = status.st_uid;
        return Err(PasswordError::Exposed { secret, folder: place, owner, mode });
    }
    let mut bytes = Vec::new();
    if let Err(cause) = File::from(file).take(LARGEST_FILE + 1).read_to_end(&mut bytes) {
        return Err(PasswordError::File { secret, folder: place, cause });
    }
    let is_small = bytes.len() as u64 <= LARGEST_FILE;
    match String::from_utf8(bytes) {
        Ok(text) if is_small => {
            let line = text.strip_suffix('\n').unwrap_or(&text);
            Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
        }
        _ => Err(PasswordError::NotText { secret, folder: place }),
    }
}

/// Opens the file, through no link below the folder.
fn open(folder: &Path, secret: &SecretReference) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let below = flags | OFlag::O_NOFOLLOW;
    let directory = OFlag::O_DIRECTORY;
    let folder = openat(AT_FDCWD, folder, flags | directory, Mode::empty())?;
    let of_secret = openat(&folder, secret.name.as_str(), below | directory, Mode::empty())?;
    Ok(openat(&of_secret, secret.key.as_str(), below, Mode::empty())?)
}

/// Whether a text is the name of a file, as Kubernetes has names of secrets and keys.
fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=LONGEST_NAME).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn reference(name: &str, key: &str) -> SecretReference {
        SecretReference { name: name.to_owned(), key: key.to_owned() }
    }

    fn put(folder: &Path, key: &str, contents: &[u8], mode: u32) {
        fs::create_dir_all(folder.join("bgp")).unwrap();
        let path = folder.join("bgp").join(key);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_files_that_are_roots_alone_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        put(at, "good", b"se cret\n", 0o600);
        put(at, "bare", b"\nx\n\n", 0o400);
        put(at, "group", b"x", 0o640);
        put(at, "others", b"x", 0o604);
        put(at, "large", &[b'x'; 1025], 0o600);
        put(at, "bytes", b"\xff", 0o600);
        fs::create_dir(at.join("bgp/folder")).unwrap();
        symlink(at.join("bgp/good"), at.join("bgp/link")).unwrap();
        symlink(at.join("bgp"), at.join("linked")).unwrap();
        nix::unistd::mkfifo(&at.join("bgp/pipe"), Mode::S_IRUSR).unwrap();
        put(at, "users", b"x", 0o600);
        nix::unistd::chown(&at.join("bgp/users"), Some(1000.into()), None).unwrap();
        let read = |name: &str, key: &str| super::read(at, &reference(name, key));
        assert_eq!(read("bgp", "good").unwrap(), "se cret");
        assert_eq!(read("bgp", "bare").unwrap(), "\nx\n");
        for key in ["group", "others", "users"] {
            assert!(matches!(read("bgp", key), Err(PasswordError::Exposed { .. })), "{key}");
        }
        for key in ["folder", "pipe"] {
            assert!(matches!(read("bgp", key), Err(PasswordError::NotRegular { .. })), "{key}");
        }
        for key in ["large", "bytes"] {
            assert!(matches!(read("bgp", key), Err(PasswordError::NotText { .. })), "{key}");
        }
        for (name, key) in [("bgp", "link"), ("linked", "good"), ("bgp", "none"), ("none", "x")] {
            assert!(matches!(read(name, key), Err(PasswordError::File { .. })), "{name}/{key}");
        }
        for (name, key) in
            [("..", "bgp"), ("bgp", "../bgp"), ("", "x"), ("bgp", "a/b"), ("bgp", "a\0")]
        {
            assert!(matches!(read(name, key), Err(PasswordError::Name(_))), "{name:?}/{key:?}");
        }
    }

    #[test]
    fn one_that_cannot_be_read_keeps_no_other_from_it_and_is_not_told() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "good", b"one", 0o600);
        put(folder.path(), "bad", b"two-secret", 0o644);
        let (good, bad) = (reference("bgp", "good"), reference("bgp", "bad"));
        let (passwords, errors) = read_passwords(folder.path(), [&bad, &good, &bad]);
        assert_eq!(passwords, BTreeMap::from([(good, "one".to_owned())]));
        let [error] = &errors[..] else { panic!("{errors:?}") };
        let text = format!("{error} {error:?}");
        assert!(text.contains("bad") && text.contains("0644") && !text.contains("two"), "{text}");
    }
}
