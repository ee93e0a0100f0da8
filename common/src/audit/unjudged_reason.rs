//! The reasons for which an audit does not judge an address.

use serde::Serialize;

/// Why an address is not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnjudgedReason {
    /// It is another node's: only that node's kernel tells.
    OtherNode,
    /// It was made on this machine, under another node name.
    FormerName,
    /// It is another machine's, which has this node's name.
    OtherMachine,
    /// This network namespace is not that of the node.
    OtherNamespace,
    /// It names no node, or no handle, as Calico 2 left it.
    Incomplete,
    /// Calico assigned it: it names no interface, and the node has no route to it.
    Calicos,
    /// Its network is one that this audit does not judge.
    OtherNetwork,
    /// No file describes its network.
    UnknownNetwork,
    /// It is neither a container's nor a tunnel's.
    OtherUse,
    /// It is of a container of Docker's, and dockerd does not answer.
    DockerSilent,
}

/// Why an allocation is not judged, and the node or network that has it.
pub(super) type Unjudgeable<'a> = (UnjudgedReason, Option<&'a str>);
