//! `weirctl get`

mod format;
mod table;

use clap::Args;
use serde_json::{Value, json};
use weir_common::resources::{API_VERSION, Kind, Resource};

use self::format::Format;
use super::report;
use crate::output::{json as json_output, yaml};
use crate::session::{CommandResult, Failure, Session};
use crate::store::{self, List};

/// Arguments of `weirctl get`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  weirctl get ippool -o wide\n  weirctl get ippool blue -o yaml\n  \
                  weirctl get ippool -o custom-columns=NAME,CIDR,NAT"
)]
pub struct GetArgs {
    /// Kind of the resources: ippool, ipreservation, node, ipamconfig
    pub kind: String,
    /// Names of the resources, for pools also their CIDRs; all without any
    pub names: Vec<String>,
    /// ps, wide, yaml, json, name or custom-columns=COLUMN,…
    #[arg(short, long, default_value = "ps", value_name = "FORMAT")]
    pub output: String,
    /// Leave out UID, time of creation and version of resources asked for by
    /// name
    #[arg(long)]
    pub export: bool,
}

/// Shows resources.
///
/// # Errors
/// [`Failure`] when kind or format are unknown, or a resource is not there.
pub async fn run(arguments: GetArgs, session: &Session<'_>) -> CommandResult {
    let kind = super::parse_kind(&arguments.kind)
        .map_err(|failure| Failure::new(format!("failed to get resources: {}", failure.message)))?;
    let format = Format::parse(&arguments.output, kind)?;
    let found = if arguments.names.is_empty() {
        Found::All(store::list(session.datastore, kind).await.map_err(as_failure)?)
    } else {
        Found::Named(get_named(&arguments, kind, session).await?)
    };
    match format {
        Format::Yaml => Ok(yaml::document(&found.to_value(kind))),
        Format::Json => Ok(json_output::document(&found.to_value(kind))),
        Format::Name => Ok(names(kind, found.resources())),
        Format::Columns(columns) => {
            let as_number = table::cluster_as_number(session.datastore, &columns).await?;
            Ok(table::text(&columns, found.resources(), as_number))
        }
    }
}

async fn get_named(
    arguments: &GetArgs,
    kind: Kind,
    session: &Session<'_>,
) -> Result<Vec<Resource>, Failure> {
    let mut resources = Vec::new();
    for argument in &arguments.names {
        let name = super::resolve_name(session, kind, argument).await.map_err(as_failure)?;
        let resource = store::get(session.datastore, kind, &name).await.map_err(as_failure)?;
        resources.push(if arguments.export { resource.exported() } else { resource });
    }
    Ok(resources)
}

fn as_failure(error: store::StoreError) -> Failure {
    Failure::new(report::with_advice(&error))
}

/// What was asked for.
enum Found {
    /// All resources of the kind.
    All(List),
    /// Some by name. Never empty.
    Named(Vec<Resource>),
}

impl Found {
    fn resources(&self) -> &[Resource] {
        match self {
            Self::All(list) => &list.resources,
            Self::Named(resources) => resources,
        }
    }

    /// As a document: one resource by itself, several in a list, all of them
    /// in a resource list that says at which revision they were read.
    fn to_value(&self, kind: Kind) -> Value {
        let items: Vec<Value> =
            self.resources().iter().map(|resource| resource.object.clone().into()).collect();
        match (self, <[Value; 1]>::try_from(items)) {
            (Self::Named(_), Ok([item])) => item,
            (Self::Named(_), Err(items)) => items.into(),
            (Self::All(list), items) => json!({
                "kind": format!("{kind}List"),
                "apiVersion": API_VERSION,
                "metadata": {"resourceVersion": list.revision.to_string()},
                "items": items.map_or_else(Value::from, |[item]| json!([item])),
            }),
        }
    }
}

fn names(kind: Kind, resources: &[Resource]) -> String {
    let alias = kind.aliases().first().copied().unwrap_or_default();
    resources.iter().map(|resource| format!("{alias}/{}\n", resource.name())).collect()
}
