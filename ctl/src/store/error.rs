//! Why a resource could not be read or changed.

use ipnet::IpNet;
use weir_common::resources::{self, Kind, LabelError, PatchError};

/// Why a resource could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A resource of that kind and name is there.
    #[error("resource already exists: {kind}({name})")]
    AlreadyExists {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// No resource of that kind and name is there.
    #[error("resource does not exist: {kind}({name})")]
    DoesNotExist {
        /// The kind asked for.
        kind: Kind,
        /// The name asked for.
        name: String,
    },
    /// The resource is not as it was when the document was read from it.
    #[error(
        "update conflict: {kind}({name}) has resourceVersion {current}, the document has {given}"
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
    #[error("IPPool({name}) {cidr} has {addresses} address(es) in use{}", besides(*tunnels))]
    PoolInUse {
        /// The pool.
        name: String,
        /// Its addresses.
        cidr: IpNet,
        /// How many of them are in use, but for those of tunnels.
        addresses: usize,
        /// How many of them nodes' IPIP tunnels have.
        tunnels: usize,
    },
    /// A pool was disabled to be deleted, and neither that nor enabling it
    /// again went through.
    #[error(
        "IPPool({name}) is not deleted; the pool was left disabled; run the same command again"
    )]
    LeftDisabled {
        /// The pool.
        name: String,
        /// Why it is not deleted.
        #[source]
        cause: Box<StoreError>,
    },
    /// Someone is moving the datastore.
    #[error("the datastore is locked: its ClusterInformation says datastoreReady: false")]
    Locked,
    /// Others changed the same things again and again.
    #[error("{kind}({name}) was changed by others {attempts} times in a row; try again")]
    Contended {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// How often it was tried.
        attempts: usize,
    },
    /// A stored value cannot be read.
    #[error("the value under {key} cannot be read")]
    Unreadable {
        /// The key.
        key: String,
        /// What is wrong with it.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The datastore failed.
    #[error(transparent)]
    Datastore(#[from] weir_common::datastore::Error),
}

impl StoreError {
    /// What to do next, where the message does not say it already.
    pub fn advice(&self) -> Option<String> {
        Some(match self {
            Self::AlreadyExists { kind, name } => format!(
                "look at it with: weirctl get {} {name}; change it with: weirctl apply -f FILE",
                alias(*kind)
            ),
            Self::DoesNotExist { kind, .. } => {
                format!("list what there is with: weirctl get {}", alias(*kind))
            }
            Self::Outdated { kind, name, .. } => format!(
                "read it again with: weirctl get {} {name} -o yaml; \
                 or leave resourceVersion out of the document",
                alias(*kind)
            ),
            Self::PoolInUse { name, tunnels, .. } => format!(
                "list them with: weirctl ipam show --show-addresses --pool={name}; \
                 remove the containers that use them, then delete the pool again{}; \
                 or release them with it: weirctl delete ippool {name} --force",
                if *tunnels > 0 { " (the tunnels' addresses go with it)" } else { "" }
            ),
            Self::Locked => "wait until the migration is over, or end it with: \
                             calicoctl datastore migrate unlock"
                .to_owned(),
            _ => return None,
        })
    }
}

/// What a pool has in use besides containers' addresses.
fn besides(tunnels: usize) -> String {
    if tunnels == 0 { String::new() } else { format!(", besides {tunnels} of nodes' tunnels") }
}

/// What the command line calls a kind.
fn alias(kind: Kind) -> &'static str {
    kind.aliases().first().copied().unwrap_or_default()
}
