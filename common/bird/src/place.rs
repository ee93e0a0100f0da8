//! The files of the daemon.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use weir_common::network::BirdConfiguration;

/// The folder of the daemon that Weir keeps; a host's own BIRD has other places.
#[derive(Clone, Debug)]
pub struct Place {
    folder: PathBuf,
}

impl Default for Place {
    fn default() -> Self {
        Self::at("/run/weir/bird")
    }
}

impl Place {
    /// The daemon with its files in this folder.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The configuration that the daemon runs, or is about to.
    pub fn configuration(&self) -> PathBuf {
        self.folder.join("bird.conf")
    }

    /// A configuration that is still to be checked.
    pub fn candidate(&self) -> PathBuf {
        self.folder.join("bird.conf.new")
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("bird.ctl")
    }

    /// The file with the daemon's process id.
    pub fn pid_file(&self) -> PathBuf {
        self.folder.join("bird.pid")
    }

    /// Whether a daemon was started here and not taken down since.
    pub fn is_used(&self) -> bool {
        self.configuration().exists()
    }

    /// The digest of the configuration in its file; `None` where that is not there, or is not
    /// Weir's.
    pub fn digest(&self) -> Option<String> {
        let text = fs::read_to_string(self.configuration()).ok()?;
        BirdConfiguration::digest_in(&text).map(str::to_owned)
    }

    /// The command line of a daemon that something else starts: it ends with its container, and
    /// recovers at every start.
    pub fn command_line(&self) -> String {
        let (configuration, socket) = (self.configuration(), self.socket());
        format!("bird -f -R -c {} -s {}", configuration.display(), socket.display())
    }

    /// Makes the folder, root's alone, and writes the candidate: it has passwords in it.
    pub fn write_candidate(&self, text: &str) -> io::Result<()> {
        if let Some(parent) = self.folder.parent() {
            fs::create_dir_all(parent)?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        fs::set_permissions(&self.folder, Permissions::from_mode(0o700))?;
        let candidate = self.candidate();
        remove(&candidate)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&candidate)?;
        file.write_all(text.as_bytes())
    }

    /// Makes the candidate the configuration.
    pub fn accept_candidate(&self) -> io::Result<()> {
        fs::rename(self.candidate(), self.configuration())
    }

    /// Removes the candidate.
    pub fn drop_candidate(&self) -> io::Result<()> {
        remove(&self.candidate())
    }

    /// Removes every file.
    pub fn clear(&self) -> io::Result<()> {
        [self.candidate(), self.socket(), self.pid_file(), self.configuration()]
            .iter()
            .try_for_each(|file| remove(file))
    }

    /// The process of a daemon that has this socket on its command line.
    pub fn process(&self) -> Option<u32> {
        let pid: u32 = fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let socket = self.socket();
        let socket = socket.to_str()?.as_bytes();
        command.split(|byte| *byte == 0).any(|word| word == socket).then_some(pid)
    }
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
