//! The name of this node.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use weir_common::cni::{Code, Error, NodeName, is_identifier};

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
        cause: std::io::Error,
    },
    /// What was found cannot be a node's name.
    #[error(
        "the node's name {name:?}, from {source_of_name}, is invalid; set nodename to letters, digits, '_', '.', '-'"
    )]
    Invalid {
        /// What was found.
        name: String,
        /// Where it was found.
        source_of_name: String,
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
pub fn node_name(configured: &NodeName) -> Result<String, NodeNameError> {
    match configured {
        NodeName::Given(name) => Ok(name.clone()),
        NodeName::File(path) => read(path),
        NodeName::FileOrHost(path) => match read(path) {
            Err(NodeNameError::Unreadable { cause, .. }) if cause.kind() == ErrorKind::NotFound => {
                host_name()
            }
            found => found,
        },
    }
}

fn read(path: &Path) -> Result<String, NodeNameError> {
    let text = std::fs::read_to_string(path)
        .map_err(|cause| NodeNameError::Unreadable { path: path.to_owned(), cause })?;
    check(text.trim(), &path.display().to_string())
}

fn host_name() -> Result<String, NodeNameError> {
    let name = nix::unistd::gethostname().unwrap_or_default();
    check(&name.to_string_lossy().trim().to_lowercase(), "the host's name")
}

fn check(name: &str, source_of_name: &str) -> Result<String, NodeNameError> {
    if is_identifier(name) {
        return Ok(name.to_owned());
    }
    let source_of_name = source_of_name.to_owned();
    Err(NodeNameError::Invalid { name: name.to_owned(), source_of_name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_sources_in_turn() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("nodename");
        let missing = directory.path().join("missing");
        std::fs::write(&file, "node-1\n").unwrap();
        assert_eq!(node_name(&NodeName::File(file.clone())).unwrap(), "node-1");
        assert_eq!(node_name(&NodeName::FileOrHost(file.clone())).unwrap(), "node-1");
        assert!(node_name(&NodeName::FileOrHost(missing.clone())).is_ok());
        let error = node_name(&NodeName::File(missing)).unwrap_err();
        assert!(error.to_string().contains("nodename_file"), "{error}");
        std::fs::write(&file, "a/b").unwrap();
        let error = node_name(&NodeName::FileOrHost(file)).unwrap_err();
        assert!(error.to_string().contains("\"a/b\""), "{error}");
    }
}
