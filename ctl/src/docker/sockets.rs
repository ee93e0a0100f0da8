//! The sockets on which dockerd finds the driver.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use tokio::net::{UnixListener, UnixStream};

use super::front::Front;
use crate::session::Failure;

/// Where dockerd looks for plugins' sockets.
pub const PLUGIN_DIRECTORY: &str = "/run/docker/plugins";

/// Whether dockerd finds the driver on this machine, whether it runs now or not.
pub fn is_driver_installed() -> bool {
    Path::new(PLUGIN_DIRECTORY).join(format!("{}.sock", Front::Weir.name())).exists()
}

/// A socket on which dockerd asks.
#[derive(Debug)]
pub struct PluginSocket {
    /// The socket.
    pub listener: UnixListener,
    /// The driver that answers on it.
    pub front: Front,
    /// Its file, where the driver made it.
    pub made: Option<MadeSocket>,
}

/// The file of a socket that the driver made: not systemd's, which stays.
#[derive(Debug)]
pub struct MadeSocket {
    path: PathBuf,
    /// Device and number of the file.
    file: (u64, u64),
}

impl MadeSocket {
    /// Removes it, unless another program's is in its place by now. As long as the listener is
    /// open, no other file has its number.
    pub fn remove(self) {
        let is_own = |found: fs::Metadata| (found.dev(), found.ino()) == self.file;
        if fs::symlink_metadata(&self.path).is_ok_and(is_own)
            && let Err(error) = fs::remove_file(&self.path)
        {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the socket is left; the next driver replaces it");
        }
    }
}

/// The sockets that systemd has opened, else those of `fronts` in `directory`.
///
/// # Errors
/// [`Failure`] when one cannot be had, another driver answers on it, or systemd hands over one
/// of another name.
pub async fn open(fronts: &[Front], directory: &Path) -> Result<Vec<PluginSocket>, Failure> {
    let mut inherited = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..inherited.len() {
        let taken = inherited.take_unix_listener(index);
        let failed = |error| Failure::new(format!("socket {index} of systemd's: {error}"));
        if let Some(socket) = taken.map_err(failed)? {
            sockets.push(of_systemd(socket)?);
        }
    }
    if sockets.is_empty() {
        for front in fronts {
            sockets.push(bind(*front, directory).await?);
        }
    }
    let opened: Vec<Front> = sockets.iter().map(|socket| socket.front).collect();
    for name in without_socket(fronts, &opened) {
        tracing::warn!(
            "dockerd finds no driver {name:?}: systemd opens the sockets; add \
             ListenStream={PLUGIN_DIRECTORY}/{name}.sock (systemctl edit weir-docker.socket)"
        );
    }
    Ok(sockets)
}

/// The names of fronts that are asked for and have no socket.
fn without_socket(fronts: &[Front], opened: &[Front]) -> Vec<&'static str> {
    fronts.iter().filter(|front| !opened.contains(front)).map(|front| front.name()).collect()
}

/// The front of a socket of systemd's, by its path.
fn of_systemd(socket: StdListener) -> Result<PluginSocket, Failure> {
    let address = socket.local_addr().ok();
    let path = address.as_ref().and_then(|it| it.as_pathname()).unwrap_or(Path::new(""));
    let front = path.file_stem().and_then(|it| it.to_str()).and_then(Front::of_name);
    let front = front.ok_or_else(|| {
        Failure::new(format!(
            "systemd's socket {} is not one of Weir's; its file is weir.sock, calico.sock or \
             calico-ipam.sock",
            path.display()
        ))
    })?;
    let failed = |error: io::Error| Failure::new(format!("socket {}: {error}", path.display()));
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(PluginSocket {
        listener: UnixListener::from_std(socket).map_err(failed)?,
        front,
        made: None,
    })
}

/// Makes the socket of a front, which only root can open. One that nobody answers on is replaced.
async fn bind(front: Front, directory: &Path) -> Result<PluginSocket, Failure> {
    let path = directory.join(format!("{}.sock", front.name()));
    let failed = |error: io::Error| {
        Failure::new(format!("{} cannot be made: {error}; run this as root", path.display()))
    };
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed)?;
    if UnixStream::connect(&path).await.is_ok() {
        return Err(Failure::new(format!(
            "another driver answers on {}; end it first",
            path.display()
        )));
    }
    // Made under another name: nobody opens it before it is root's alone.
    let new = PathBuf::from(format!("{}.new", path.display()));
    for old in [&new, &path] {
        remove_socket(old).map_err(failed)?;
    }
    let listener = UnixListener::bind(&new).map_err(failed)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let found = fs::symlink_metadata(&new).map_err(failed)?;
    fs::rename(&new, &path).map_err(failed)?;
    let made = MadeSocket { path, file: (found.dev(), found.ino()) };
    Ok(PluginSocket { listener, front, made: Some(made) })
}

/// Removes a socket that is there; anything else stays.
fn remove_socket(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        Ok(_) => Err(io::Error::other("something that is not a socket is in its place; remove it")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_socket_of_systemds_is_named() {
        let asked = [Front::Weir, Front::Calico, Front::CalicoIpam];
        assert_eq!(without_socket(&asked, &[Front::Weir]), ["calico", "calico-ipam"]);
        assert!(without_socket(&asked, &asked).is_empty());
        assert!(without_socket(&[Front::Weir], &asked).is_empty(), "more is no fault");
    }

    #[tokio::test]
    async fn a_socket_is_roots_alone_and_ends_with_its_driver() {
        let directory = tempfile::tempdir().unwrap();
        let open = || open(&[Front::Weir], directory.path());
        let path = directory.path().join("weir.sock");
        let first = open().await.unwrap().pop().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(open().await.unwrap_err().message.contains("another driver answers"));
        // As after a kill: nobody answers on the file that is there.
        drop(first);
        let second = open().await.unwrap().pop().unwrap();
        fs::rename(&path, directory.path().join("away")).unwrap();
        let other = open().await.unwrap().pop().unwrap();
        second.made.unwrap().remove();
        assert!(path.exists(), "it is the other one's");
        other.made.unwrap().remove();
        assert!(!path.exists());
        fs::write(&path, "").unwrap();
        assert!(open().await.unwrap_err().message.contains("not a socket"));
    }
}
