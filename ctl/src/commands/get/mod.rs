//! `weirctl get`

mod format;
mod table;

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};
use weir_common::printable;
use weir_common::resources::{API_VERSION, Error, Kind, Resource};

use self::format::Format;
use super::completion::Suggested;
use super::input::FileArgs;
use super::report;
use crate::output::{json as json_output, line, yaml};
use crate::session::{CommandResult, Failure, Session};
use crate::store::{self, List, StoreError};

/// Arguments of `weirctl get`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  weirctl get ippool -o wide\n  weirctl get ippool blue -o yaml\n  \
                  weirctl get ippool -o custom-columns=NAME,CIDR,NAT\n  \
                  weirctl get ippool -o yaml > backup.yaml\n  weirctl get -f pool.yaml"
)]
pub struct GetArgs {
    /// Kind of the resources: ippool, ipreservation, node, ipamconfig, bgpconfig, bgppeer,
    /// bgpfilter, caliconodestatus, felixconfig
    #[arg(
        conflicts_with = "filename", required_unless_present = "filename",
        value_parser = Suggested::kinds(), hide_possible_values = true
    )]
    pub kind: Option<String>,
    /// Names of the resources, for pools also their CIDRs; all without any
    pub names: Vec<String>,
    /// ps, wide, yaml, json, name or custom-columns=COLUMN,…
    #[arg(
        short, long, default_value = "ps", value_name = "FORMAT", hide_possible_values = true,
        value_parser = Suggested(vec!["ps", "wide", "yaml", "json", "name", "custom-columns="])
    )]
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
    if arguments.names.is_empty() {
        let list = store::list(session.datastore, kind).await.map_err(as_failure)?;
        return show(&format, kind, &GetResult::All(list), session).await;
    }
    let mut got = Got::default();
    for argument in &arguments.names {
        let name = super::resolve_name(session, kind, argument).await.map_err(as_failure)?;
        got.add(&arguments, kind, &name, session).await;
    }
    let Got { resources, failed } = got;
    let found = GetResult::Named { resources, asked: arguments.names.len() };
    finish(show(&format, kind, &found, session).await?, &failed)
}

/// Shows the resources that the files name, each kind by itself.
async fn get_of_files(arguments: &GetArgs, session: &Session<'_>) -> CommandResult {
    let (mut got, mut asked) = (Got::default(), BTreeMap::<Kind, usize>::new());
    for written in arguments.files.read(session.environment)? {
        let written = super::resolve(session, written).await.map_err(as_failure)?;
        got.add(arguments, written.kind, written.name(), session).await;
        *asked.entry(written.kind).or_default() += 1;
    }
    let Got { mut resources, failed } = got;
    resources.sort_by_key(|resource| resource.kind);
    let kinds: Vec<Kind> = asked.keys().copied().collect();
    if let [kind, _, ..] = kinds[..]
        && let format @ (Format::Yaml | Format::Json) = Format::parse(&arguments.output, kind)?
    {
        let all = GetResult::Named { resources, asked: asked.values().sum() };
        return finish(show(&format, kind, &all, session).await?, &failed);
    }
    let mut text = String::new();
    for (kind, asked) in asked {
        let format = Format::parse(&arguments.output, kind)?;
        let of_kind = resources.iter().filter(|resource| resource.kind == kind);
        let found = GetResult::Named { resources: of_kind.cloned().collect(), asked };
        text.push_str(&show(&format, kind, &found, session).await?);
    }
    finish(text, &failed)
}

/// What became of the resources that were asked for by name.
#[derive(Default)]
struct Got {
    resources: Vec<Resource>,
    failed: Vec<StoreError>,
}

impl Got {
    async fn add(&mut self, arguments: &GetArgs, kind: Kind, name: &str, session: &Session<'_>) {
        match store::get(session.datastore, kind, name).await {
            Ok(resource) if arguments.export => self.resources.push(resource.exported()),
            Ok(resource) => self.resources.push(resource),
            Err(error) => self.failed.push(error),
        }
    }
}

/// The result with what is there; a failure when something is not.
fn finish(output: String, failed: &[StoreError]) -> CommandResult {
    if failed.is_empty() {
        return Ok(output);
    }
    Err(Failure { output, message: report::all_with_advice(failed) })
}

async fn show(
    format: &Format,
    kind: Kind,
    found: &GetResult,
    session: &Session<'_>,
) -> CommandResult {
    if found.is_nothing() {
        return Ok(String::new());
    }
    for resource in found.resources() {
        warn_of_damage(resource, session);
    }
    Ok(match format {
        Format::Yaml => yaml::document(&found.to_value(kind)),
        Format::Json => json_output::document(&found.to_value(kind)),
        Format::Name => names(kind, found.resources()),
        Format::Columns(columns) => {
            let as_number = table::cluster_as_number(session, columns).await?;
            table::text(columns, found.resources(), as_number, session.style)
        }
    })
}

/// Says of a resource that it counts for nothing as it is, and why. Nodes that break a rule
/// are used as far as they can be.
fn warn_of_damage(resource: &Resource, session: &Session<'_>) {
    if matches!(resource.kind, Kind::Node | Kind::IpReservation | Kind::IpamConfig) {
        return;
    }
    if let Err(error) = resource.check_stored() {
        warn_unusable(session, resource.kind, resource.name(), &error);
    }
}

/// Says that a stored resource breaks a rule.
fn warn_unusable(session: &Session<'_>, kind: Kind, name: &str, error: &Error) {
    let name = printable(name);
    session.environment.warn(&format!("warning: {kind}({name}) cannot be used: {error}"));
}

fn as_failure(error: StoreError) -> Failure {
    Failure::new(report::with_advice(&error))
}

/// What was asked for.
enum GetResult {
    /// All resources of the kind.
    All(List),
    /// Those that are there of some asked for by name.
    Named {
        /// The resources.
        resources: Vec<Resource>,
        /// How many were asked for.
        asked: usize,
    },
}

impl GetResult {
    fn resources(&self) -> &[Resource] {
        match self {
            Self::All(list) => &list.resources,
            Self::Named { resources, .. } => resources,
        }
    }

    /// Whether nothing that was asked for by name is there.
    fn is_nothing(&self) -> bool {
        matches!(self, Self::Named { resources, .. } if resources.is_empty())
    }

    /// As a document: one resource by itself, several in a list, all of them
    /// in a resource list that says at which revision they were read.
    fn to_value(&self, kind: Kind) -> Value {
        let mut items =
            self.resources().iter().map(|resource| Value::from(resource.object.clone()));
        match self {
            Self::Named { asked: 1, .. } => items.next().unwrap_or_default(),
            Self::Named { .. } => items.collect(),
            Self::All(list) => json!({
                "kind": format!("{kind}List"),
                "apiVersion": API_VERSION,
                "metadata": {"resourceVersion": list.revision.to_string()},
                "items": items.collect::<Value>(),
            }),
        }
    }
}

fn names(kind: Kind, resources: &[Resource]) -> String {
    let alias = kind.alias();
    resources.iter().map(|resource| line(&format!("{alias}/{}", resource.name()))).collect()
}
