//! The network configuration: as written in a conflist, and as validated.
//!
//! Keys have Calico's names and meaning (`cni-plugin/pkg/types/types.go`), so
//! that a conflist written for Calico works with the two types changed. Weir's
//! own keys are `datastore_path`, `etcd_username`, `etcd_password`, `source_check`,
//! `allowed_source_prefixes`, `ipam.gateways` and `ipam.routes`.

mod ipam;
mod keys;
mod location;
mod log;
mod node_name;
#[cfg(test)]
mod tests;
mod value;
mod written;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::arguments::Arguments;
use super::error::{Code, Error};
use super::result::AddResult;
use super::valid_attachments::valid_attachments;
use super::version::SpecVersion;
use crate::datastore;
use crate::ipam::collect::AttachmentName;
use crate::ipam::docker::DOCKER_NETWORK;
use crate::link::{MacAddress, SourceCheck};

pub use ipam::IpamConfiguration;
pub use log::{LogFile, LogLevel, Logging};
pub use node_name::NodeName;

use keys::{misspelt, without_meaning};
use log::is_usable;
use value::{check_mtu, source_check};
use written::{WrittenConfiguration, decode};

/// The keys that DEL goes by, besides those of the datastore and the node's name.
const FOR_REMOVAL: [&str; 2] = ["ipam", LOCK_FILE];

const LOCK_FILE: &str = "ipam_lock_file";

/// The keys that say how the node's name is found.
const NODE_NAME: [&str; 4] = ["hostname", "nodename", "nodename_file", "nodename_file_optional"];

/// The key that GC goes by, besides those of DEL: whose links say what lives.
const FOR_COLLECTION: [&str; 1] = ["type"];

/// A configuration in which everything has been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfiguration {
    /// The network's name.
    pub network: String,
    /// The version of the specification to answer in.
    pub version: SpecVersion,
    /// The main plugin that the configuration is for; empty if it does not say.
    pub main_plugin: String,
    /// The `ipam` section; `None` when there is none, or a wrong one, which
    /// [`NetworkConfiguration::require_ipam`] tells.
    pub ipam: Option<IpamConfiguration>,
    /// Why the `ipam` section that is written cannot be used; likewise.
    wrong_ipam: Option<Error>,
    /// Where the datastore is. Wrong only in what [`NetworkConfiguration::for_removal`] and
    /// [`NetworkConfiguration::for_collection`] give: what is to be removed first does not
    /// depend on it.
    pub datastore: Result<datastore::DatastoreConfiguration, Error>,
    /// How the node's name is found; wrong likewise.
    pub node_name: Result<NodeName, Error>,
    /// The MTU asked for, in bytes; `None` to take the node's.
    pub mtu: Option<u32>,
    /// The hardware address asked for.
    pub mac: Option<MacAddress>,
    /// Whether the container may forward packets.
    pub allow_ip_forwarding: bool,
    /// Whether the container gets a default route besides the routes that the
    /// IPAM plugin gives it.
    pub include_default_routes: bool,
    /// What the container may give as the source of its packets.
    pub source_check: SourceCheck,
    /// What it may give besides its own addresses; nothing where it may give any.
    pub allowed_sources: BTreeSet<IpNet>,
    /// Facts about the container to record: `namespace`, `pod`.
    pub facts: BTreeMap<String, String>,
    /// Replaces the DNS settings of the IPAM plugin.
    pub dns: Option<Value>,
    /// The result of the plugins before, or of ADD.
    pub prev_result: Option<AddResult>,
    /// What is logged, and where.
    pub logging: Logging,
    /// The attachments of the network that live; `None` when the runtime did not
    /// say. Only what [`NetworkConfiguration::for_collection`] gives has them.
    pub valid_attachments: Option<BTreeSet<AttachmentName>>,
    /// Keys of Calico in the configuration that have no meaning here.
    pub without_meaning: Vec<String>,
}

/// Refuses the name under which Docker's containers have their addresses.
fn refuse_dockers(network: &str) -> Result<(), Error> {
    if network != DOCKER_NETWORK {
        return Ok(());
    }
    let message = format!(
        "name {network:?} is that of the addresses of Docker's containers (weirctl docker run); \
         give the network another one"
    );
    Err(Error::new(Code::InvalidConfiguration, message))
}

impl NetworkConfiguration {
    /// Checks a configuration. `name` and `version` have been looked at by the
    /// skeleton.
    ///
    /// # Errors
    /// [`Code::Decode`] for a value of the wrong type,
    /// [`Code::UnsupportedField`] for one that Weir cannot fulfil,
    /// [`Code::InvalidConfiguration`] for any other invalid one, for a key that is
    /// close to one that Weir reads, and for Docker's name. All name the key; all but the
    /// misspelt ones the value.
    pub fn validate(
        network: String,
        version: SpecVersion,
        json: &Map<String, Value>,
        arguments: &Arguments,
    ) -> Result<Self, Error> {
        refuse_dockers(&network)?;
        if let Some(key) = misspelt(json).first() {
            return Err(key.error());
        }
        let configuration = Self::build(network, version, json, arguments)?;
        configuration.datastore.clone()?;
        configuration.node_name.clone()?;
        configuration.wrong_ipam.clone().map_or(Ok(()), Err)?;
        Ok(configuration)
    }

    /// The `ipam` section, without which there is no plugin to get addresses from
    /// and nothing for it to go by.
    ///
    /// # Errors
    /// [`Code::InvalidConfiguration`] when there is none; what is wrong with it.
    pub fn require_ipam(&self) -> Result<&IpamConfiguration, Error> {
        let none = || {
            Error::new(
                Code::InvalidConfiguration,
                "the network configuration has no ipam section; write \"ipam\": \
                 {\"type\": \"weir-ipam\"}",
            )
        };
        self.ipam.as_ref().ok_or_else(|| self.wrong_ipam.clone().unwrap_or_else(none))
    }

    /// The result of ADD that CHECK compares with.
    ///
    /// # Errors
    /// [`Code::InvalidConfiguration`] when the runtime did not pass it.
    pub fn require_prev_result(&self) -> Result<&AddResult, Error> {
        let missing = "prevResult is missing: CHECK compares with the result of ADD";
        let error = || Error::new(Code::InvalidConfiguration, missing);
        self.prev_result.as_ref().ok_or_else(error)
    }

    /// A configuration to remove an attachment by. Only what that needs is looked
    /// at: a mistake elsewhere, made since or in what the runtime was asked for,
    /// must not keep DEL from tearing down. A mistake in what it needs is met by
    /// whoever comes to need it.
    ///
    /// # Errors
    /// None that a configuration is known to have.
    pub fn for_removal(
        network: String,
        version: SpecVersion,
        json: &Map<String, Value>,
    ) -> Result<Self, Error> {
        let lenient = Self::lenient(network, version, json, &[])?;
        // It tells which addresses another IPAM plugin had assigned; DEL goes on without.
        let prev_result = json.get("prevResult").and_then(|json| prev_result(json, version).ok());
        Ok(Self { prev_result, ..lenient })
    }

    /// A configuration to remove by what belongs to no attachment. As with
    /// [`NetworkConfiguration::for_removal`], a mistake elsewhere is not an obstacle.
    ///
    /// # Errors
    /// [`Code::Decode`] for a list of attachments that cannot be read: it is never
    /// taken for an empty one. [`Code::InvalidConfiguration`] for Docker's name: its list
    /// would not have Docker's containers.
    pub fn for_collection(
        network: String,
        version: SpecVersion,
        json: &Map<String, Value>,
    ) -> Result<Self, Error> {
        refuse_dockers(&network)?;
        let valid_attachments = valid_attachments(json)?;
        let lenient = Self::lenient(network, version, json, &FOR_COLLECTION)?;
        Ok(Self { valid_attachments, ..lenient })
    }

    /// A configuration in which a value of the wrong type is as wrong as any other,
    /// and is so only for what goes by it. So is a misspelt key of the datastore: without it
    /// another datastore would be looked in.
    fn lenient(
        network: String,
        version: SpecVersion,
        written: &Map<String, Value>,
        more: &[&str],
    ) -> Result<Self, Error> {
        let mut json = needed(written, more);
        let mistyped = take_mistyped(&mut json);
        let mut lenient = Self::build(network, version, &json, &Arguments::default())?;
        if let Some(key) = misspelt(written).iter().find(|key| is_of_datastore(key.meant)) {
            lenient.datastore = Err(key.error());
        }
        for (key, error) in mistyped {
            match key.as_str() {
                "ipam" => lenient.wrong_ipam = Some(error),
                key if NODE_NAME.contains(&key) => lenient.node_name = Err(error),
                key if is_of_datastore(key) => lenient.datastore = Err(error),
                // Without the lock's file and the main plugin's type it works as well.
                _ => {}
            }
        }
        Ok(lenient)
    }

    fn build(
        network: String,
        version: SpecVersion,
        json: &Map<String, Value>,
        arguments: &Arguments,
    ) -> Result<Self, Error> {
        let written: WrittenConfiguration = decode(json)?;
        written.refuse_unsupported()?;
        let (ipam, wrong_ipam) = match written.ipam(arguments) {
            Ok(ipam) => (ipam, None),
            Err(error) => (None, Some(error)),
        };
        let prev_result = written.prev_result.as_ref().map(|json| prev_result(json, version));
        let source_check = source_check(written.source_check.as_deref())?;
        Ok(Self {
            network,
            version,
            datastore: written.datastore(),
            node_name: written.node_name(),
            mtu: check_mtu(written.mtu)?,
            mac: written.mac(arguments)?,
            allow_ip_forwarding: written.container_settings.allow_ip_forwarding,
            include_default_routes: written.include_default_routes,
            source_check,
            allowed_sources: written.allowed_sources(source_check)?,
            facts: facts(arguments),
            logging: written.logging()?,
            without_meaning: without_meaning(json),
            ipam,
            wrong_ipam,
            prev_result: prev_result.transpose()?,
            dns: written.dns.map(Value::Object),
            main_plugin: written.plugin.unwrap_or_default(),
            valid_attachments: None,
        })
    }
}

fn prev_result(json: &Value, version: SpecVersion) -> Result<AddResult, Error> {
    AddResult::parse(json, version).map_err(|error| {
        let message = format!("prevResult in the network configuration is wrong: {error}");
        Error { message, ..error }
    })
}

/// The keys that a removal goes by, and `more`; of those of the log what can be
/// used.
fn needed(json: &Map<String, Value>, more: &[&str]) -> Map<String, Value> {
    let mut needed = json.clone();
    needed.retain(|key, value| {
        let is_needed = || {
            // As one of the wrong type: without it the lock is the default one.
            let is_relative = |path: &str| !path.is_empty() && !path.starts_with('/');
            if key == LOCK_FILE && value.as_str().is_some_and(is_relative) {
                return false;
            }
            [&FOR_REMOVAL[..], &NODE_NAME, more].iter().any(|keys| keys.contains(&key.as_str()))
                || is_of_datastore(key)
        };
        is_usable(key, value).unwrap_or_else(is_needed)
    });
    if let Some(Value::Object(ipam)) = needed.get_mut("ipam") {
        ipam.retain(|key, _| key == "type");
    }
    needed
}

fn is_of_datastore(key: &str) -> bool {
    key.starts_with("etcd_") || key.starts_with("datastore_")
}

/// Takes out the values of the wrong type, and answers what is wrong with each.
fn take_mistyped(json: &mut Map<String, Value>) -> Vec<(String, Error)> {
    let mut mistyped = Vec::new();
    json.retain(|key, value| {
        let alone = Map::from_iter([(key.clone(), value.clone())]);
        let wrong = decode(&alone).err();
        let is_right = wrong.is_none();
        mistyped.extend(wrong.map(|error| (key.clone(), error)));
        is_right
    });
    mistyped
}

fn facts(arguments: &Arguments) -> BTreeMap<String, String> {
    let known = [("namespace", &arguments.pod_namespace), ("pod", &arguments.pod_name)];
    let given = known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)));
    given.collect()
}
