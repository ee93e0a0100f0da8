//! The node's name.

use std::path::PathBuf;

use super::super::Error;
use super::super::environment::is_identifier;
use super::value::invalid;
use super::written::Written;

/// Where Calico's node agent writes the node's name. Read when the
/// configuration names neither a node nor a file, so that a node keeps its name
/// when it moves over.
pub const DEFAULT_NODE_NAME_FILE: &str = "/var/lib/calico/nodename";

/// How the node's name is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeName {
    /// It is this.
    Given(String),
    /// It is the content of this file, which must be there.
    File(PathBuf),
    /// It is the content of this file, else the host's name.
    FileOrHost(PathBuf),
}

impl Written {
    pub(super) fn node_name(&self) -> Result<NodeName, Error> {
        let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        if let Some(name) = given(&self.nodename).or_else(|| given(&self.hostname)) {
            if !is_identifier(&name) {
                let advice = "write letters, digits, '_', '.', '-'";
                return Err(invalid("nodename", &name, advice));
            }
            return Ok(NodeName::Given(name));
        }
        Ok(match &self.nodename_file {
            Some(file) if !self.nodename_file_optional => NodeName::File(file.clone()),
            Some(file) => NodeName::FileOrHost(file.clone()),
            None => NodeName::FileOrHost(DEFAULT_NODE_NAME_FILE.into()),
        })
    }
}
