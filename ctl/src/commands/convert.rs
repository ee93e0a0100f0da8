//! `weirctl convert`

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::input::FileArgs;
use crate::output::{json, yaml};
use crate::session::{CommandResult, Failure, HostEnvironment};

/// Arguments of `weirctl convert`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Prints pools and BGP peers of the old form (apiVersion: v1) in the present \
                        one. It needs no datastore.\n\n\
                        Examples:\n  weirctl convert -f pool-v1.yaml\n  \
                        weirctl convert -f pool-v1.yaml -o json"
)]
pub struct ConvertArgs {
    /// The resources.
    #[command(flatten)]
    files: FileArgs,
    /// How they are printed
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: ConvertFormat,
    /// Print also what breaks a rule
    #[arg(long)]
    ignore_validation: bool,
}

/// How converted resources are printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ConvertFormat {
    #[value(alias = "yml")]
    Yaml,
    Json,
}

/// Prints resources in the present form.
///
/// # Errors
/// [`Failure`] when the input cannot be read, has a kind that Weir does not know, or breaks a
/// rule.
pub fn run(arguments: &ConvertArgs, environment: &dyn HostEnvironment) -> CommandResult {
    let resources = arguments.files.read(environment)?;
    if !arguments.ignore_validation {
        for resource in &resources {
            resource.check().map_err(|error| {
                Failure::new(format!(
                    "{} '{}' cannot be converted: {}; correct it, or see the outcome with \
                     --ignore-validation",
                    resource.kind.name(),
                    resource.name(),
                    error.to_string().trim_end()
                ))
            })?;
        }
    }
    let mut objects: Vec<_> =
        resources.into_iter().map(|resource| Value::Object(resource.exported().object)).collect();
    let document = match objects.len() {
        1 => objects.remove(0),
        _ => Value::Array(objects),
    };
    Ok(match arguments.output {
        ConvertFormat::Yaml => yaml::document(&document),
        ConvertFormat::Json => json::document(&document),
    })
}
