//! `weirctl get`

mod format;
mod table;

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};
use weir_common::resources::{API_VERSION, Kind, Resource};

use self::format::Format;
use super::input::FileArgs;
use super::report;
use crate::output::{json as json_output, yaml};
use crate::session::{CommandResult, Failure, Session};
use crate::store::{self, List};

/// Arguments of `weirctl get`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  weirctl get ippool -o wide\n  weirctl get ippool blue -o yaml\n  \
                  weirctl get ippool -o custom-columns=NAME,CIDR,NAT\n  \
                  weirctl get ippool -o yaml > backup.yaml\n  weirctl get -f pool.yaml"
)]
pub struct GetArgs {
    /// Kind of the resources: ippool, ipreservation, node, ipamconfig
    #[arg(conflicts_with = "filename", required_unless_present = "filename")]
    pub kind: Option<String>,
    /// Names of the resources, for pools also their CIDRs; all without any
    pub names: Vec<String>,
    /// ps, wide, yaml, json, name or custom-columns=COLUMN,…
    #[arg(short, long, default_value = "ps", value_name = "FORMAT")]
    pub output: String,
    /// The resources.
    #[command(flatten)]
    pub files: FileArgs,
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
    let Some(alias) = &arguments.kind else {
        return get_of_files(&arguments, session).await;
    };
    let kind = super::parse_kind(alias)
        .map_err(|failure| Failure::new(format!("failed to get resources: {}", failure.message)))?;
    let format = Format::parse(&arguments.output, kind)?;
    let found = if arguments.names.is_empty() {
        Found::All(store::list(session.datastore, kind).await.map_err(as_failure)?)
    } else {
        let mut resources = Vec::new();
        for argument in &arguments.names {
            let name = super::resolve_name(session, kind, argument).await.map_err(as_failure)?;
            resources.push(get_one(&arguments, kind, &name, session).await?);
        }
        Found::Named(resources)
    };
    show(&format, kind, &found, session).await
}

/// Shows the resources that the files name, each kind by itself.
async fn get_of_files(arguments: &GetArgs, session: &Session<'_>) -> CommandResult {
    let mut resources: BTreeMap<Kind, Vec<Resource>> = BTreeMap::new();
    for written in arguments.files.read(session.surroundings)? {
        let written = super::resolve(session, written).await.map_err(as_failure)?;
        let resource = get_one(arguments, written.kind, written.name(), session).await?;
        resources.entry(resource.kind).or_default().push(resource);
    }
    let kinds: Vec<Kind> = resources.keys().copied().collect();
    if let [kind, _, ..] = kinds[..]
        && let format @ (Format::Yaml | Format::Json) = Format::parse(&arguments.output, kind)?
    {
        let all = Found::Named(resources.into_values().flatten().collect());
        return show(&format, kind, &all, session).await;
    }
    let mut text = String::new();
    for (kind, resources) in resources {
        let format = Format::parse(&arguments.output, kind)?;
        text.push_str(&show(&format, kind, &Found::Named(resources), session).await?);
    }
    Ok(text)
}

async fn get_one(
    arguments: &GetArgs,
    kind: Kind,
    name: &str,
    session: &Session<'_>,
) -> Result<Resource, Failure> {
    let resource = store::get(session.datastore, kind, name).await.map_err(as_failure)?;
    Ok(if arguments.export { resource.exported() } else { resource })
}

async fn show(format: &Format, kind: Kind, found: &Found, session: &Session<'_>) -> CommandResult {
    Ok(match format {
        Format::Yaml => yaml::document(&found.to_value(kind)),
        Format::Json => json_output::document(&found.to_value(kind)),
        Format::Name => names(kind, found.resources()),
        Format::Columns(columns) => {
            let as_number = table::cluster_as_number(session.datastore, columns).await?;
            table::text(columns, found.resources(), as_number, session.style)
        }
    })
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
