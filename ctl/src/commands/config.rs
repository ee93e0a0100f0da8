//! `weirctl config`: settings of the cluster's BGP, as calicoctl 2.6 has them
//! (`projectcalico/calicoctl`, `calicoctl/commands/config.go`).

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use weir_common::resources::bgp::{BGP_DEFAULT_NAME, BgpConfiguration};
use weir_common::resources::{DEFAULT_AS_NUMBER, Kind, Resource, parse_as_number};

use super::change::ChangeArgs;
use super::completion::Suggested;
use super::report;
use crate::session::{CommandResult, Failure, Session};
use crate::store::{self, StoreError};

/// The names of the settings.
fn settings() -> Suggested {
    Suggested(vec!["nodeToNodeMesh", "asNumber"])
}

/// The commands about the cluster's BGP.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Change a setting
    #[command(after_help = "Examples:\n  weirctl config set nodeToNodeMesh off\n  \
                            weirctl config set asNumber 64513")]
    Set(SetArgs),
    /// Give a setting its default again
    #[command(after_help = "Example:\n  weirctl config unset asNumber")]
    Unset(UnsetArgs),
    /// Show a setting
    #[command(after_help = "Example:\n  weirctl config get nodeToNodeMesh")]
    Get {
        /// nodeToNodeMesh or asNumber
        #[arg(value_parser = settings(), hide_possible_values = true)]
        name: String,
    },
}

/// Arguments of `weirctl config set`.
#[derive(Args, Clone, Debug)]
pub struct SetArgs {
    /// nodeToNodeMesh or asNumber
    #[arg(value_parser = settings(), hide_possible_values = true)]
    pub name: String,
    /// on or off; an AS number
    #[arg(value_parser = Suggested(vec!["on", "off"]), hide_possible_values = true)]
    pub value: String,
    /// How the change is made.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// Arguments of `weirctl config unset`.
#[derive(Args, Clone, Debug)]
pub struct UnsetArgs {
    /// nodeToNodeMesh or asNumber
    #[arg(value_parser = settings(), hide_possible_values = true)]
    pub name: String,
    /// How the change is made.
    #[command(flatten)]
    pub change: ChangeArgs,
}

impl ConfigCommand {
    /// How the change is made, if it is one.
    pub fn change(&self) -> ChangeArgs {
        match self {
            Self::Set(SetArgs { change, .. }) | Self::Unset(UnsetArgs { change, .. }) => *change,
            Self::Get { .. } => ChangeArgs::default(),
        }
    }
}

/// A setting.
#[derive(Clone, Copy)]
enum Setting {
    NodeToNodeMesh,
    AsNumber,
}

impl Setting {
    fn parse(name: &str) -> Result<Self, Failure> {
        Err(match name.to_ascii_lowercase().as_str() {
            "nodetonodemesh" => return Ok(Self::NodeToNodeMesh),
            "asnumber" => return Ok(Self::AsNumber),
            "loglevel" => Failure::new(
                "logLevel is a field of the cluster's BGP configuration; write: weirctl patch \
                 bgpconfig default -p '{\"spec\": {\"logSeverityScreen\": \"Warning\"}}'",
            ),
            "ipip" => Failure::new(
                "IPIP is switched on for each pool by itself; write: weirctl patch ippool NAME -p \
                 '{\"spec\": {\"ipipMode\": \"Always\"}}'",
            ),
            _ => Failure::new(format!(
                "unrecognised config name '{name}'; write nodeToNodeMesh or asNumber"
            )),
        })
    }

    /// The field in the spec of the BGP configuration.
    fn key(self) -> &'static str {
        match self {
            Self::NodeToNodeMesh => "nodeToNodeMeshEnabled",
            Self::AsNumber => "asNumber",
        }
    }

    fn read(self, value: &str) -> Result<Value, Failure> {
        match self {
            Self::NodeToNodeMesh => match value {
                "on" => Ok(json!(true)),
                "off" => Ok(json!(false)),
                _ => Err(Failure::new(format!("invalid value '{value}'; write on or off"))),
            },
            Self::AsNumber => match parse_as_number(value) {
                Some(number) => Ok(json!(number)),
                None => Err(Failure::new(format!(
                    "the supplied AS number '{value}' is not valid; write a number, as 64512, or \
                     its two halves, as 1.10"
                ))),
            },
        }
    }

    fn show(self, configuration: &BgpConfiguration) -> String {
        match self {
            Self::NodeToNodeMesh => match configuration.node_to_node_mesh.unwrap_or(true) {
                true => "on\n".to_owned(),
                false => "off\n".to_owned(),
            },
            Self::AsNumber => {
                format!("{}\n", configuration.as_number.unwrap_or(DEFAULT_AS_NUMBER))
            }
        }
    }
}

/// Shows or changes a setting.
///
/// # Errors
/// [`Failure`] when name or value are unknown, the stored configuration breaks a rule or
/// would, or the datastore fails.
pub async fn run(command: ConfigCommand, session: &Session<'_>) -> CommandResult {
    match command {
        ConfigCommand::Get { name } => get(Setting::parse(&name)?, session).await,
        ConfigCommand::Set(arguments) => {
            let setting = Setting::parse(&arguments.name)?;
            set(setting, &setting.read(&arguments.value)?, session).await
        }
        ConfigCommand::Unset(arguments) => unset(Setting::parse(&arguments.name)?, session).await,
    }
}

async fn get(setting: Setting, session: &Session<'_>) -> CommandResult {
    let read = store::get(session.datastore, Kind::BgpConfiguration, BGP_DEFAULT_NAME).await;
    let configuration = match read {
        Ok(resource) => BgpConfiguration::from_object(&resource.object).map_err(Into::into),
        Err(StoreError::DoesNotExist { .. }) => Ok(BgpConfiguration::default()),
        Err(error) => Err(error),
    };
    match configuration {
        Ok(configuration) => Ok(setting.show(&configuration)),
        Err(error) => Err(Failure::new(report::with_advice(&error))),
    }
}

/// Changes the cluster's configuration, which is made when it is not there.
async fn set(setting: Setting, value: &Value, session: &Session<'_>) -> CommandResult {
    let change = |old: &Resource| {
        let mut new = old.clone();
        let spec = new.object.entry("spec").or_insert_with(|| json!({}));
        if let Value::Object(spec) = spec {
            spec.insert(setting.key().to_owned(), value.clone());
        }
        Ok(new)
    };
    let empty = Resource::new(Kind::BgpConfiguration, Map::new()).renamed(BGP_DEFAULT_NAME);
    let birth = session.environment.birth();
    finish(store::modify_or_create(session.datastore, &empty, change, &birth).await)?;
    session.ensure_cluster_guid().await;
    Ok(String::new())
}

async fn unset(setting: Setting, session: &Session<'_>) -> CommandResult {
    let change = |old: &Resource| {
        let mut new = old.clone();
        if let Some(Value::Object(spec)) = new.object.get_mut("spec") {
            spec.shift_remove(setting.key());
        }
        Ok((new, ()))
    };
    let kind = Kind::BgpConfiguration;
    match store::modify(session.datastore, kind, BGP_DEFAULT_NAME, change).await {
        Err(StoreError::DoesNotExist { .. }) => Ok(String::new()),
        changed => finish(changed),
    }
}

/// Says nothing about what is done, as calicoctl 2.6.
fn finish(changed: Result<(), StoreError>) -> CommandResult {
    changed.map_err(|error| Failure::new(report::with_advice(&error)))?;
    Ok(String::new())
}
