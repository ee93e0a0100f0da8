//! The name of this node: where it is found, and the file that keeps it.
//!
//! A node's blocks, its routes and its containers' addresses hang on its name, and a host's
//! name may change (from `n1` to `n1.example.org`, say). So the name in use is kept in a
//! file, together with the machine's identity: on a copy of the machine it does not count.

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use weir_common::cni::{Code, Error, NodeName, is_identifier};
use weir_common::ipam::MachineId;
use weir_common::shell_word;

use crate::configured_file::read_configured;
use crate::files;
use crate::machine::machine_id;

/// Where Weir keeps the node's name: the name, and on a second line the machine.
pub const NODE_NAME_FILE: &str = "/var/lib/weir/nodename";

/// Where Calico's node agent writes the node's name, so that a node keeps it when it moves
/// over.
const CALICO_FILE: &str = "/var/lib/calico/nodename";

/// What the second line of Weir's file begins with.
const MACHINE: &str = "machine ";

/// A node's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundName {
    /// The name.
    pub name: String,
    /// Where it comes from.
    pub source: NameSource,
}

/// Where a node's name comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameSource {
    /// The network configuration gives it.
    NetworkConfiguration,
    /// The command line or the environment gives it.
    Argument,
    /// It is the content of a file.
    File(PathBuf),
    /// It is the host's.
    Host,
}

impl fmt::Display for NameSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NetworkConfiguration => {
                formatter.write_str("nodename in the network configuration")
            }
            Self::Argument => formatter.write_str("--node or NODENAME"),
            Self::File(path) => write!(formatter, "the file {}", path.display()),
            Self::Host => formatter.write_str("the host's name"),
        }
    }
}

/// Why the node's name is not known.
#[derive(Debug, thiserror::Error)]
pub enum NodeNameError {
    /// The file that holds it cannot be read.
    #[error(
        "nodename_file {path:?} cannot be read; write the node's name into it, or set nodename"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What reading met.
        #[source]
        cause: io::Error,
    },
    /// What was found cannot be a node's name.
    #[error(
        "the node's name {name:?}, from {source_of_name}, is invalid; set nodename to letters, digits, '_', '.', '-'"
    )]
    Invalid {
        /// What was found.
        name: String,
        /// Where it was found.
        source_of_name: NameSource,
    },
}

impl From<NodeNameError> for Error {
    fn from(error: NodeNameError) -> Self {
        Self::caused(Code::InvalidConfiguration, &error)
    }
}

/// Finds the node's name as the configuration says. The host's own name is taken
/// in lower case, as Calico does (`libcalico-go/lib/names/hostname.go`).
///
/// # Errors
/// [`NodeNameError`] when there is none that can be used.
pub fn node_name(configured: &NodeName) -> Result<FoundName, NodeNameError> {
    let host = || nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    find(configured, machine_id, read_configured, host)
}

fn find(
    configured: &NodeName,
    machine: impl FnOnce() -> Option<MachineId>,
    read: impl Fn(&Path) -> io::Result<String>,
    host: impl FnOnce() -> String,
) -> Result<FoundName, NodeNameError> {
    let in_file = |path: &Path| match read(path) {
        Ok(text) => check(text.trim(), NameSource::File(path.to_owned())),
        Err(cause) => Err(NodeNameError::Unreadable { path: path.to_owned(), cause }),
    };
    let if_there = |path: &Path| match in_file(path) {
        Err(NodeNameError::Unreadable { cause, .. }) if cause.kind() == ErrorKind::NotFound => None,
        found => Some(found),
    };
    let kept = || {
        let name = kept_in(&read(Path::new(NODE_NAME_FILE)).ok()?, machine().as_ref())?;
        Some(Ok(FoundName { name, source: NameSource::File(NODE_NAME_FILE.into()) }))
    };
    match configured {
        NodeName::Given(name) => {
            Ok(FoundName { name: name.clone(), source: NameSource::NetworkConfiguration })
        }
        NodeName::File(path) => in_file(path),
        NodeName::Search(named) => {
            let found = named.as_deref().and_then(if_there).or_else(kept);
            let found = found.or_else(|| if_there(Path::new(CALICO_FILE)));
            found.unwrap_or_else(|| check(&host().trim().to_lowercase(), NameSource::Host))
        }
    }
}

fn check(name: &str, source: NameSource) -> Result<FoundName, NodeNameError> {
    let name = name.to_owned();
    if is_identifier(&name) {
        return Ok(FoundName { name, source });
    }
    Err(NodeNameError::Invalid { name, source_of_name: source })
}

/// The name in Weir's file, if the file counts on this machine.
fn kept_in(text: &str, machine: Option<&MachineId>) -> Option<String> {
    let (name, rest) = text.split_once('\n').unwrap_or((text, ""));
    let kept_for = rest.trim().strip_prefix(MACHINE).and_then(MachineId::parse);
    let counts = is_identifier(name.trim()) && kept_for.as_ref() == machine;
    counts.then(|| name.trim().to_owned())
}

/// What Weir's file has to say.
fn text_of(name: &str, machine: Option<&MachineId>) -> String {
    let machine = machine.map(|machine| format!("{MACHINE}{machine}\n")).unwrap_or_default();
    format!("{name}\n{machine}")
}

/// What becomes of Weir's file.
#[derive(Debug, PartialEq, Eq)]
enum Keeping {
    /// It stays as it is.
    Nothing,
    /// It stays as it is, but names this node.
    Contradicted(String),
    /// This is written.
    Write(String),
}

/// Decides what becomes of Weir's file, which has this `text`, when `found` is in use.
fn keeping(found: &FoundName, text: Option<&str>, machine: Option<&MachineId>) -> Keeping {
    match text.and_then(|text| kept_in(text, machine)) {
        Some(kept) if kept == found.name => Keeping::Nothing,
        Some(kept) => Keeping::Contradicted(kept),
        // Many machines are called so, until they get a name of their own.
        None if found.name.starts_with("localhost") => Keeping::Nothing,
        None => Keeping::Write(text_of(&found.name, machine)),
    }
}

/// Keeps the name that this node uses in Weir's file, unless that keeps one already: then
/// another name is only warned of. Where the file cannot be written, that is warned of, too.
pub fn keep_node_name(found: &FoundName) {
    let path = Path::new(NODE_NAME_FILE);
    if found.source == NameSource::File(path.to_owned()) {
        return;
    }
    match keeping(found, read_configured(path).ok().as_deref(), machine_id().as_ref()) {
        Keeping::Nothing => {}
        Keeping::Contradicted(kept) => tracing::warn!(
            "this node is called {name} by {}, but {kept} in {NODE_NAME_FILE}; if the node has \
             another name now: weirctl node rename {} {}",
            found.source,
            shell_word(&kept),
            shell_word(&found.name),
            name = found.name,
        ),
        Keeping::Write(text) => {
            if let Err(error) = write(path, &text) {
                let advice = "should the host's name change, set nodename";
                tracing::warn!(
                    "the node's name cannot be kept in {NODE_NAME_FILE}: {error}; {advice}"
                );
            }
        }
    }
}

/// Writes `new` into Weir's file if it keeps the name `old` for this machine. Answers
/// whether it does.
///
/// # Errors
/// The file cannot be written.
pub fn rename_kept_name(old: &str, new: &str) -> io::Result<bool> {
    let (path, machine) = (Path::new(NODE_NAME_FILE), machine_id());
    let text = read_configured(path).unwrap_or_default();
    let is_old = kept_in(&text, machine.as_ref()).as_deref() == Some(old);
    if is_old {
        write(path, &text_of(new, machine.as_ref()))?;
    }
    Ok(is_old)
}

/// Puts a file with this text, for everybody to read, in the place of `path`.
fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        // As it was made by earlier versions, or under a strict umask.
        if fs::metadata(directory)?.permissions().mode() & 0o777 == 0o700 {
            fs::set_permissions(directory, Permissions::from_mode(0o755))?;
        }
    }
    let new = PathBuf::from(format!("{}.new-{}", path.display(), std::process::id()));
    // What is there is of a process that was killed and had this id.
    let written = files::remove(&new)
        .and_then(|()| files::write_new(&new, text.as_bytes(), 0o644))
        .and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = files::remove(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn machine(source: &str) -> Option<MachineId> {
        Some(MachineId::from_source(source))
    }

    /// The name and its source on machine `m`, whose host is called `Host.Example`.
    fn found(configured: &NodeName, files: &[(&str, &str)]) -> String {
        let files: BTreeMap<_, _> = files.iter().copied().collect();
        let read = |path: &Path| match files.get(path.to_str().unwrap()) {
            Some(text) => Ok((*text).to_owned()),
            None => Err(ErrorKind::NotFound.into()),
        };
        match find(configured, || machine("m"), read, || "Host.Example".to_owned()) {
            Ok(FoundName { name, source }) => format!("{name} by {source}"),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn the_sources_count_in_their_order() {
        let (kept, others) =
            (text_of("kept", machine("m").as_ref()), text_of("other", machine("x").as_ref()));
        let (own, named) = ((NODE_NAME_FILE, kept.as_str()), ("/named", "named\n"));
        let (cloned, calico) = ((NODE_NAME_FILE, others.as_str()), (CALICO_FILE, "calico\n"));
        let given = NodeName::Given("given".to_owned());
        let (required, optional) =
            (NodeName::File("/named".into()), NodeName::Search(Some("/named".into())));
        let search = NodeName::Search(None);
        for (configured, files, expected) in [
            (&given, &[own, named, calico][..], "given by nodename in the network configuration"),
            (&required, &[own, named, calico], "named by the file /named"),
            (&required, &[own, calico], "error: nodename_file \"/named\" cannot be read"),
            (&optional, &[own, named, calico], "named by the file /named"),
            (&optional, &[own, calico], "kept by the file /var/lib/weir/nodename"),
            (&optional, &[("/named", "a/b")], "error: the node's name \"a/b\", from the file /n"),
            (&search, &[own, named, calico], "kept by the file /var/lib/weir/nodename"),
            (&search, &[cloned, calico], "calico by the file /var/lib/calico/nodename"),
            (&search, &[(NODE_NAME_FILE, "kept\n"), calico], "calico by the file /var/lib/calico"),
            (&search, &[(NODE_NAME_FILE, ""), calico], "calico by the file /var/lib/calico"),
            (&search, &[(CALICO_FILE, "\n")], "error: the node's name \"\", from the file /var"),
            (&search, &[cloned], "host.example by the host's name"),
            (&optional, &[], "host.example by the host's name"),
        ] {
            let found = found(configured, files);
            assert!(found.starts_with(expected), "{configured:?} {files:?}: {found}");
        }
    }

    #[test]
    fn the_file_is_written_once_on_each_machine() {
        let found = |name: &str| FoundName { name: name.to_owned(), source: NameSource::Host };
        let with_id = text_of("n1", machine("m").as_ref());
        let id = machine("m").unwrap();
        assert_eq!(with_id, format!("n1\nmachine {id}\n"));
        let writes = |text: &str| Keeping::Write(text.to_owned());
        for (name, text, machine, expected) in [
            ("n1", None, Some(&id), writes(&with_id)),
            ("n1", None, None, writes("n1\n")),
            ("n1", Some(with_id.as_str()), Some(&id), Keeping::Nothing),
            ("n1", Some("n1\n"), None, Keeping::Nothing),
            ("n2", Some("n1\n"), None, Keeping::Contradicted("n1".to_owned())),
            ("n2", Some(with_id.as_str()), Some(&id), Keeping::Contradicted("n1".to_owned())),
            ("n2", Some(with_id.as_str()), None, writes("n2\n")),
            ("n1", Some("n1\nmachine 0123456789abcdef\n"), Some(&id), writes(&with_id)),
            ("n1", Some(""), Some(&id), writes(&with_id)),
            ("localhost", None, Some(&id), Keeping::Nothing),
            ("localhost.localdomain", None, Some(&id), Keeping::Nothing),
            ("localhost", Some("n1\n"), None, Keeping::Contradicted("n1".to_owned())),
        ] {
            assert_eq!(keeping(&found(name), text, machine), expected, "{name} {text:?}");
        }
    }

    #[test]
    fn the_file_is_everybodys_to_read_and_nothing_is_left_beside_it() {
        let above = tempfile::tempdir().unwrap();
        let directory = above.path().join("weir");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let file = directory.join("nodename");
        for made in [false, true] {
            if made {
                fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
            }
            write(&file, "n1\n").unwrap();
            assert_eq!((mode(&directory), mode(&file)), (0o755, 0o644));
            assert_eq!(fs::read_to_string(&file).unwrap(), "n1\n");
            assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        }
        fs::create_dir(directory.join("a")).unwrap();
        assert!(write(&directory.join("a"), "n1\n").is_err());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
    }
}
