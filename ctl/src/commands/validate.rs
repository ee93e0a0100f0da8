//! `weirctl validate`

use clap::Args;
use weir_common::resources::{self, IpPool, Kind, Resource, check_overlap, check_range};

use super::input::FileArgs;
use super::range;
use super::report::{ChangeReport, Verb};
use crate::session::{CommandResult, HostEnvironment};

/// Arguments of `weirctl validate`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  weirctl validate -f pool.yaml\n  \
                  weirctl validate -R -f pools/")]
pub struct ValidateArgs {
    /// The resources.
    #[command(flatten)]
    pub files: FileArgs,
}

/// Checks resources by themselves and against those before them in the same
/// input. Needs no datastore.
///
/// # Errors
/// [`Failure`](crate::session::Failure) when the input is wrong or a resource
/// breaks a rule.
pub async fn run(arguments: &ValidateArgs, environment: &dyn HostEnvironment) -> CommandResult {
    let resources = arguments.files.read(environment)?;
    let mut report = ChangeReport::new(Verb { infinitive: "validate", participle: "validated" });
    let (mut pools, mut good): (Vec<IpPool>, _) = (Vec::new(), Vec::new());
    for resource in &resources {
        let checked = check(resource, &mut pools);
        if checked.is_ok() {
            good.push(resource);
        }
        report.add(resource, checked.map_err(Into::into));
    }
    range::warn_of_alone(&good, environment).await;
    report.finish()
}

/// Checks one resource; a good pool joins those that later ones must not
/// overlap.
fn check(resource: &Resource, pools: &mut Vec<IpPool>) -> Result<(), resources::Error> {
    resource.check()?;
    if resource.kind == Kind::IpPool {
        let pool = resource.pool()?;
        check_range(&pool).map_err(resources::Error::Invalid)?;
        check_overlap(&pool, pools).map_err(resources::Error::Invalid)?;
        pools.push(pool);
    }
    Ok(())
}
