//! The node's name.

use std::path::PathBuf;

use super::super::environment::is_identifier;
use super::super::error::Error;
use super::value::{absolute, invalid};
use super::written::WrittenConfiguration;

/// How the node's name is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeName {
    /// It is this.
    Given(String),
    /// It is the content of this file, which must be there.
    File(PathBuf),
    /// It is looked for: in this file, if one is named and there, then in the files of
    /// Weir and of Calico; else it is the host's name.
    Search(Option<PathBuf>),
}

impl WrittenConfiguration {
    pub(super) fn node_name(&self) -> Result<NodeName, Error> {
        let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        if let Some(name) = given(&self.nodename).or_else(|| given(&self.hostname)) {
            if !is_identifier(&name) {
                let advice = "write letters, digits, '_', '.', '-'";
                return Err(invalid("nodename", &name, advice));
            }
            return Ok(NodeName::Given(name));
        }
        Ok(match absolute("nodename_file", self.nodename_file.as_deref())? {
            Some(file) if !self.nodename_file_optional => NodeName::File(file),
            file => NodeName::Search(file),
        })
    }
}
