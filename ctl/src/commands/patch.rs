//! `weirctl patch`

use clap::{Args, ValueEnum};
use weir_common::resources::{Kind, Patch, PatchType};
use weir_common::shell_word;

use super::change::ChangeArgs;
use super::completion::Suggested;
use super::report;
use crate::session::{CommandResult, Failure, Session};
use crate::store::{self, StoreError};

/// Arguments of `weirctl patch`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  weirctl patch ippool blue -p '{\"spec\": {\"natOutgoing\": true}}'\n  \
                  weirctl patch ippool 10.7.0.0/16 -p 'spec: {disabled: true}'\n  \
                  weirctl patch ippool blue -t json \\\n    \
                  -p '[{\"op\": \"add\", \"path\": \"/spec/disabled\", \"value\": true}]'"
)]
pub struct PatchArgs {
    /// Kind of the resource: ippool, ipreservation, node, ipamconfig
    #[arg(value_parser = Suggested::kinds(), hide_possible_values = true)]
    pub kind: String,
    /// Name of the resource; for a pool also its CIDR
    pub name: String,
    /// What to change, in JSON or YAML
    #[arg(short, long, value_name = "PATCH")]
    pub patch: String,
    /// Form of the patch
    #[arg(
        short = 't',
        long = "type",
        value_name = "TYPE",
        value_enum,
        default_value = "strategic"
    )]
    pub form: PatchFlag,
    /// How the change is made.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// The forms of patches.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PatchFlag {
    /// A part of the resource; $patch and $retainKeys are understood
    Strategic,
    /// A list of operations (RFC 6902)
    Json,
    /// A part of the resource, null removes a field (RFC 7386)
    Merge,
}

/// Changes a part of one resource.
///
/// # Errors
/// [`Failure`] when the kind or the patch is wrong,
/// or the resource is not there or could not become what the patch makes of
/// it.
pub async fn run(arguments: PatchArgs, session: &Session<'_>) -> CommandResult {
    let kind = super::parse_kind(&arguments.kind)?;
    let patched = async {
        let form = match arguments.form {
            PatchFlag::Strategic => PatchType::Strategic,
            PatchFlag::Json => PatchType::Json,
            PatchFlag::Merge => PatchType::Merge,
        };
        let patch = Patch::parse(&arguments.patch, form)?;
        let name = super::resolve_name(session, kind, &arguments.name).await?;
        let change = |resource: &_| Ok((patch.apply(resource)?, ()));
        store::modify(session.datastore, kind, &name, change).await
    };
    match patched.await {
        Ok(()) => Ok(format!("Successfully patched 1 '{kind}' resource\n")),
        Err(error) => Err(failure(kind, &arguments.name, &error)),
    }
}

/// The error in calicoctl's words; of a patch that does not fit, with the
/// command that shows what it has to fit.
fn failure(kind: Kind, name: &str, error: &StoreError) -> Failure {
    let alias = kind.alias();
    let advice = match error {
        StoreError::Patch(_) => {
            format!("\nlook at the resource with: weirctl get {alias} {} -o yaml", shell_word(name))
        }
        _ => String::new(),
    };
    let error = report::in_brackets(error);
    Failure::new(format!("failed to patch '{kind}' resource: {error}{advice}"))
}
