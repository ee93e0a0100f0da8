//! Why a resource could not be read or changed.

use ipnet::IpNet;
use weir_common::datastore::{Contended, Unreadable};
use weir_common::ipam;
use weir_common::resources::{self, Kind, LabelError, PatchError};
use weir_common::{printable, shell_word};

/// Why a resource could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A resource of that kind and name is there.
    #[error("resource already exists: {kind}({})", printable(name))]
    AlreadyExists {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// No resource of that kind and name is there.
    #[error("resource does not exist: {kind}({})", printable(name))]
    DoesNotExist {
        /// The kind asked for.
        kind: Kind,
        /// The name asked for.
        name: String,
    },
    /// The resource is not as it was when the document was read from it.
    #[error(
        "update conflict: {kind}({}) has resourceVersion {current}, the document has {}",
        printable(name),
        printable(given)
    )]
    Outdated {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// The version in the document.
        given: String,
        /// The version it has.
        current: String,
    },
    /// Fields have values that they cannot have.
    #[error(transparent)]
    Invalid(#[from] resources::Error),
    /// A patch cannot be read or applied.
    #[error(transparent)]
    Patch(#[from] PatchError),
    /// A label cannot be changed.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// A pool to be deleted has addresses in use.
    #[error(
        "IPPool({}) {cidr} has {addresses} address(es) in use{}",
        printable(name),
        besides(*tunnels)
    )]
    PoolInUse {
        /// The pool.
        name: String,
        /// Its addresses.
        cidr: IpNet,
        /// How many of them are in use, but for those of tunnels.
        addresses: usize,
        /// How many of them nodes' tunnels have.
        tunnels: usize,
    },
    /// A pool was disabled to be deleted, and neither that nor enabling it
    /// again went through.
    #[error(
        "IPPool({}) is not deleted; the pool was left disabled; run the same command again",
        printable(name)
    )]
    LeftDisabled {
        /// The pool.
        name: String,
        /// Why it is not deleted.
        #[source]
        cause: Box<StoreError>,
    },
    /// What was asked for cannot be, which the text explains together with what to do.
    #[error("{0}")]
    Refused(String),
    /// Someone is moving the datastore.
    #[error("the datastore is locked: its ClusterInformation says datastoreReady: false")]
    Locked,
    /// Others changed the same keys again and again.
    #[error(transparent)]
    Contended(#[from] Contended),
    /// A stored value cannot be read.
    #[error("the value under {} cannot be read: {}", printable(&.0.key), .0.reason)]
    Unreadable(Unreadable),
    /// The datastore failed.
    #[error(transparent)]
    Datastore(#[from] weir_common::datastore::Error),
}

impl From<Unreadable> for StoreError {
    fn from(unreadable: Unreadable) -> Self {
        Self::Unreadable(unreadable)
    }
}

impl From<ipam::Error> for StoreError {
    fn from(error: ipam::Error) -> Self {
        match error {
            ipam::Error::NotReady => Self::Locked,
            ipam::Error::Malformed { key, reason } => Unreadable { key, reason }.into(),
            ipam::Error::Contended(contended) => contended.into(),
            ipam::Error::Datastore(error) => error.into(),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl StoreError {
    /// What to do next, where the message does not say it already.
    pub fn advice(&self) -> Option<String> {
        Some(match self {
            Self::AlreadyExists { kind, name } => format!(
                "look at it with: weirctl get {} {}; change it with: weirctl apply -f FILE",
                kind.alias(),
                shell_word(name)
            ),
            Self::DoesNotExist { kind, .. } => {
                format!("list what there is with: weirctl get {}", kind.alias())
            }
            Self::Outdated { kind, name, .. } => format!(
                "read it again with: weirctl get {} {} -o yaml; \
                 or leave resourceVersion out of the document",
                kind.alias(),
                shell_word(name)
            ),
            Self::PoolInUse { name, tunnels, .. } => format!(
                "list them with: weirctl ipam show --show-addresses --pool={0}; \
                 remove the containers that use them, then delete the pool again{1}; \
                 or release them with it: weirctl delete ippool {0} --force",
                shell_word(name),
                if *tunnels > 0 { " (the tunnels' addresses go with it)" } else { "" }
            ),
            Self::Locked => "wait until the migration is over, or end it with: \
                             weirctl datastore unlock"
                .to_owned(),
            Self::Unreadable(Unreadable { key, .. }) => unreadable(key),
            Self::Datastore(_) => "see which datastore that is, and who named it, with: \
                                   weirctl get ippool -v"
                .to_owned(),
            Self::Invalid(error) if !error.has_advice() => {
                "put it right, then check the document with: weirctl validate -f FILE".to_owned()
            }
            // Their own texts, or the commands that meet them, say it.
            Self::Invalid(_)
            | Self::Patch(_)
            | Self::Label(_)
            | Self::LeftDisabled { .. }
            | Self::Contended(_)
            | Self::Refused(_) => return None,
        })
    }
}

/// What to do about a value that cannot be read.
fn unreadable(key: &str) -> String {
    // What damage these have, and what rests on them, `ipam check` knows.
    let checked = [Kind::IpPool, Kind::IpamConfig];
    let named = Kind::ALL
        .iter()
        .filter(|kind| !checked.contains(kind))
        .find_map(|kind| Some((kind.alias(), kind.name_of(key)?)));
    match named {
        Some((alias, name)) => {
            format!("delete it, then create it again: weirctl delete {alias} {}", shell_word(name))
        }
        None => "find all that cannot be read, and what to do, with: weirctl ipam check".to_owned(),
    }
}

/// What a pool has in use besides containers' addresses.
fn besides(tunnels: usize) -> String {
    if tunnels == 0 { String::new() } else { format!(", besides {tunnels} of nodes' tunnels") }
}

#[cfg(test)]
mod tests {
    use weir_common::datastore;
    use weir_common::resources::{Error, FieldError, LabelChange, Patch, PatchType};

    use super::*;
    use crate::commands::report::with_advice;

    fn one_of_each() -> Vec<StoreError> {
        let (kind, name) = (Kind::Node, String::from("n1"));
        let invalid = || Error::Invalid(vec![FieldError::new("Spec", "wrong").value(5)]);
        let unreadable =
            |key: String| StoreError::from(Unreadable { key, reason: "no JSON".into() });
        let failed = || datastore::Error::Unavailable {
            location: "127.0.0.1:2379".into(),
            cause: "refused".into(),
        };
        let cidr = "10.7.0.0/24".parse().unwrap();
        let cause = Box::new(StoreError::Datastore(failed()));
        vec![
            StoreError::AlreadyExists { kind, name: name.clone() },
            StoreError::DoesNotExist { kind, name: name.clone() },
            StoreError::Outdated {
                kind,
                name: name.clone(),
                given: "1".into(),
                current: "2".into(),
            },
            StoreError::Invalid(invalid()),
            StoreError::Patch(Patch::parse("5", PatchType::Json).unwrap_err()),
            StoreError::Label(LabelChange::set("a", false).unwrap_err()),
            StoreError::PoolInUse { name: name.clone(), cidr, addresses: 1, tunnels: 0 },
            StoreError::LeftDisabled { name: name.clone(), cause },
            StoreError::Refused("first: weirctl get nodes".into()),
            StoreError::Locked,
            Contended::new(vec![kind.key(&name)]).into(),
            unreadable(Kind::Node.key("n1")),
            unreadable(Kind::IpPool.key("blue")),
            StoreError::Datastore(failed()),
        ]
    }

    /// Each says which command comes next.
    #[test]
    fn every_error_says_what_to_do() {
        for error in one_of_each() {
            // What the list above has to have one of.
            match error {
                StoreError::AlreadyExists { .. }
                | StoreError::DoesNotExist { .. }
                | StoreError::Outdated { .. }
                | StoreError::Invalid(_)
                | StoreError::Label(_)
                | StoreError::PoolInUse { .. }
                | StoreError::Refused(_)
                | StoreError::Contended { .. }
                | StoreError::Unreadable { .. }
                | StoreError::Datastore(_) => {
                    assert!(with_advice(&error).contains("weirctl "), "{error:?}");
                }
                StoreError::Patch(_) => assert!(with_advice(&error).contains("for example")),
                StoreError::LeftDisabled { .. } => {
                    assert!(with_advice(&error).contains("run the same command again"));
                }
                StoreError::Locked => {
                    assert!(with_advice(&error).contains("weirctl datastore unlock"))
                }
            }
        }
    }
}
