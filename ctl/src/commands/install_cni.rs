//! `weirctl install-cni`: the plugins and the network's file of a node, put there from a container
//! image.
//!
//! `network.rs` decides what the network's file says, without input or output. `files.rs` puts
//! files in their places.

mod files;
mod network;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use weir_process::NODE_NAME_FILE;

use crate::commands::doctor::is_weirs;
use crate::location::read_network_directory;
use crate::session::{CommandResult, Failure};
use files::{Draft, FileError, WantedFile};
use network::{check, fill};

/// Arguments of `weirctl install-cni`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "The network is the file of --conf, else the text in CNI_NETWORK_CONFIG. In it, \
                  __NAME__ stands for the variable NAME. It is put into --cni-directory last: with \
                  it the node counts as ready.\n\n\
                  Examples:\n  weirctl install-cni --conf /etc/weir/10-weir.conflist\n  \
                  weirctl install-cni --remove"
)]
pub struct InstallArgs {
    /// Directory with the programs weir and weir-ipam; without it, that of weirctl
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
    /// Directory in which the runtime looks for plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub bin_directory: PathBuf,
    /// File with the network
    #[arg(long, value_name = "FILE", env = "CNI_NETWORK_CONFIG_FILE", hide_env_values = true)]
    pub conf: Option<PathBuf>,
    /// The name that it gets
    #[arg(
        long,
        value_name = "NAME",
        env = "CNI_CONF_NAME",
        hide_env_values = true,
        default_value = "10-weir.conflist"
    )]
    pub conf_name: String,
    /// Directory with etcd-ca, etcd-cert and etcd-key, each if it is needed; they get into the
    /// directory weir-tls beside the network's file
    #[arg(long, value_name = "DIR", env = "TLS_ASSETS_DIR", hide_env_values = true)]
    pub certificates: Option<PathBuf>,
    /// Take the network's file away, then the plugins and certificates; addresses stay
    #[arg(long)]
    pub remove: bool,
}

/// The plugins, in the order in which they are replaced.
const PROGRAMS: [&str; 2] = ["weir", "weir-ipam"];

/// The certificates, as Calico calls them (`cni-plugin/pkg/install/install.go`).
const CERTIFICATES: [&str; 3] = ["etcd-ca", "etcd-cert", "etcd-key"];

/// Where they are, beside the network's file.
const CERTIFICATE_DIRECTORY: &str = "weir-tls";

/// The variable with the network itself, as Calico calls it.
const NETWORK_VARIABLE: &str = "CNI_NETWORK_CONFIG";

/// Installs, or removes. Answers a line for each file: changed, unchanged, removed, absent, or
/// left because it is another program's.
///
/// # Arguments
/// - `networks`: the directory of the CNI configuration
/// - `variables`: the environment
///
/// # Errors
/// [`Failure`] with the lines of what was done before. Whatever can be wrong with what is to be
/// installed is found before the first file is replaced.
pub fn run(
    arguments: &InstallArgs,
    networks: &Path,
    variables: &BTreeMap<String, String>,
) -> CommandResult {
    let places = Places { programs: &arguments.bin_directory, networks };
    let result = places.name(&arguments.conf_name).and_then(|file| match arguments.remove {
        true => remove(&places, &file),
        false => install(arguments, &places, file, variables),
    });
    result.map_err(|(output, error)| Failure { output, ..error.into() })
}

/// What went wrong, and the lines of what was done before.
type Stopped = (String, FileError);

fn stopped(error: FileError) -> Stopped {
    (String::new(), error)
}

/// Where things are put.
struct Places<'a> {
    programs: &'a Path,
    networks: &'a Path,
}

impl Places<'_> {
    /// The network's file of this name.
    fn name(&self, name: &str) -> Result<PathBuf, Stopped> {
        let path = self.networks.join(name);
        let is_network =
            [".conflist", ".conf"].iter().any(|end| name.len() > end.len() && name.ends_with(end));
        match path.file_name() {
            Some(found) if found == name && is_network => Ok(path),
            _ => Err(stopped(FileError::Name { name: name.to_owned() })),
        }
    }

    fn certificates(&self) -> PathBuf {
        self.networks.join(CERTIFICATE_DIRECTORY)
    }
}

/// Holds off other installers of the node, whichever container they are in.
fn lock(directory: &Path) -> Result<File, FileError> {
    let file = File::open(directory).map_err(|cause| FileError::unwritable(directory, cause))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(FileError::Busy { path: directory.to_owned() }),
        Err(TryLockError::Error(cause)) => Err(FileError::unwritable(directory, cause)),
    }
}

/// Writes everything beside its place first, so that a full disk changes nothing.
fn install(
    arguments: &InstallArgs,
    places: &Places<'_>,
    network: PathBuf,
    variables: &BTreeMap<String, String>,
) -> Result<String, Stopped> {
    let wanted = wanted(arguments, places, network, variables).map_err(stopped)?;
    files::check_directory(places.programs, "--bin-directory").map_err(stopped)?;
    files::check_directory(places.networks, "--cni-directory").map_err(stopped)?;
    let _lock = lock(places.programs).map_err(stopped)?;
    if wanted.iter().any(|it| it.path.starts_with(places.certificates())) {
        files::make_private_directory(&places.certificates()).map_err(stopped)?;
    }
    let drafts: Result<Vec<_>, _> = wanted.iter().map(Draft::write).collect();
    let mut lines = String::new();
    for draft in drafts.map_err(stopped)? {
        match draft.place() {
            Ok(line) => lines.push_str(&line),
            Err(error) => return Err((lines, error)),
        }
    }
    if wanted.iter().all(|it| it.path.parent() != Some(places.networks)) {
        lines.push_str(&format!(
            "No network was given, and none is changed; give one with --conf or \
             {NETWORK_VARIABLE}\n"
        ));
    }
    Ok(lines)
}

/// The files, in the order in which they are replaced: the network's comes last, because the
/// node counts as ready with it.
fn wanted(
    arguments: &InstallArgs,
    places: &Places<'_>,
    network: PathBuf,
    variables: &BTreeMap<String, String>,
) -> Result<Vec<WantedFile>, FileError> {
    let from = match &arguments.from {
        Some(directory) => directory.clone(),
        None => {
            own_directory().map_err(|cause| FileError::unreadable(Path::new("weirctl"), cause))?
        }
    };
    let mut wanted = Vec::new();
    for name in PROGRAMS {
        let bytes = files::read(&from.join(name))?;
        if !is_weirs_program(&bytes) {
            return Err(FileError::NotWeirs { path: from.join(name) });
        }
        wanted.push(WantedFile { path: places.programs.join(name), bytes, mode: 0o755 });
    }
    if let Some(directory) = &arguments.certificates {
        for name in CERTIFICATES {
            if !directory.join(name).exists() {
                continue;
            }
            let bytes = files::read(&directory.join(name))?;
            wanted.push(WantedFile { path: places.certificates().join(name), bytes, mode: 0o600 });
        }
    }
    let template = match &arguments.conf {
        Some(file) => Some(files::read_text(file)?),
        None => variables.get(NETWORK_VARIABLE).filter(|text| !text.is_empty()).cloned(),
    };
    if let Some(template) = template {
        let text = fill(&template, variables)?;
        check(&network, &text)?;
        wanted.push(WantedFile { path: network, bytes: text.into_bytes(), mode: 0o600 });
    }
    for file in &wanted {
        require_own(file)?;
    }
    Ok(wanted)
}

fn own_directory() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.parent().unwrap_or(Path::new("/")).to_owned())
}

/// Refuses to replace what another program has put there.
fn require_own(file: &WantedFile) -> Result<(), FileError> {
    match files::existing(&file.path)? {
        Some(bytes) if bytes != file.bytes && !is_own(&file.path, &bytes) => {
            Err(FileError::NotWeirs { path: file.path.clone() })
        }
        _ => Ok(()),
    }
}

/// Whether Weir has put a file there.
fn is_own(path: &Path, bytes: &[u8]) -> bool {
    match path.file_name().and_then(|name| name.to_str()) {
        Some(name) if PROGRAMS.contains(&name) => is_weirs_program(bytes),
        // Their directory has Weir's name.
        Some(name) if CERTIFICATES.contains(&name) => true,
        _ => std::str::from_utf8(bytes).is_ok_and(is_weirs),
    }
}

/// Whether a program is one of Weir's, of whichever version: all of them name the file that
/// keeps the node's name.
fn is_weirs_program(bytes: &[u8]) -> bool {
    let mark = NODE_NAME_FILE.as_bytes();
    bytes.windows(mark.len()).any(|part| part == mark)
}

/// Takes away what is Weir's, the network's file first: without it, no container is started
/// that would miss its plugin. Plugins stay where another network names them.
fn remove(places: &Places<'_>, network: &Path) -> Result<String, Stopped> {
    let _lock = match places.programs.is_dir() {
        true => Some(lock(places.programs).map_err(stopped)?),
        false => None,
    };
    let mut lines = take_away(network).map_err(stopped)?;
    let others = read_network_directory(places.networks);
    if let Some((path, _)) = others.iter().find(|(_, text)| is_weirs(text)) {
        lines.push_str(&format!("left the plugins: {} has them\n", path.display()));
        return Ok(lines);
    }
    let certificates = places.certificates();
    let programs = PROGRAMS.map(|name| places.programs.join(name));
    for path in programs.into_iter().chain(CERTIFICATES.map(|name| certificates.join(name))) {
        match take_away(&path) {
            Ok(line) => lines.push_str(&line),
            Err(error) => return Err((lines, error)),
        }
    }
    // What else may be in it stays.
    let _ = fs::remove_dir(&certificates);
    Ok(lines)
}

/// Removes a file of Weir's, and what an installer that was killed has left of it.
fn take_away(path: &Path) -> Result<String, FileError> {
    files::remove_draft(path)?;
    let word = match files::existing(path)? {
        None => "absent",
        Some(bytes) if is_own(path, &bytes) => {
            fs::remove_file(path).map_err(|cause| FileError::unwritable(path, cause))?;
            "removed"
        }
        Some(_) => return Ok(format!("left {}: it is not Weir's\n", path.display())),
    };
    Ok(format!("{word} {}\n", path.display()))
}

#[cfg(test)]
mod tests;
