//! Commands of calicoctl that Weir does not have: they say what to do instead.

use clap::Args;

use crate::session::{CommandResult, Failure};

/// Whatever is written behind such a command.
#[derive(Args, Clone, Debug)]
#[command(after_help = "weirctl does not have this command; run it to see what to do instead.")]
pub struct OtherArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

/// What to do instead of `ipam split`.
///
/// # Errors
/// Always.
pub fn ipam_split() -> CommandResult {
    refuse(
        "weirctl does not split pools. Create other pools for new containers (weirctl create -f \
         pool.yaml), take this one out of use (weirctl patch ippool NAME -p 'spec: {disabled: \
         true}'), and when weirctl ipam show says that it is empty, delete it and create its parts",
    )
}

/// What to do instead of `datastore migrate export` and `import`.
///
/// # Errors
/// Always.
pub fn migrate() -> CommandResult {
    refuse(
        "weirctl does not move a cluster between etcd and Kubernetes. To copy a datastore: weirctl \
         datastore lock, weirctl datastore backup FILE, and weirctl datastore restore FILE",
    )
}

fn refuse(message: &str) -> CommandResult {
    Err(Failure::new(message))
}
