//! The network configuration: as written in a conflist, and as validated.
//!
//! Keys have Calico's names and meaning (`cni-plugin/pkg/types/types.go`), so
//! that a conflist written for Calico works with the two types changed. Weir's
//! own keys are `datastore_path`, `etcd_username`, `etcd_password`,
//! `ipam.gateways` and `ipam.routes`.

mod ipam;
mod location;
mod log;
mod node_name;
#[cfg(test)]
mod tests;
mod value;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::valid_attachments::valid_attachments;
use super::{AddResult, Arguments, Code, Error, SpecVersion};
use crate::datastore;
use crate::ipam::collect::AttachmentName;
use crate::network::MacAddress;

pub use ipam::IpamConfiguration;
pub use log::{LogFile, LogLevel};
pub use node_name::{DEFAULT_NODE_NAME_FILE, NodeName};

use log::log_level;
use value::check_mtu;
use written::{Written, decode, without_meaning};

/// The keys that DEL goes by, besides those of etcd.
const FOR_REMOVAL: [&str; 4] = ["datastore_path", "datastore_type", "ipam", "ipam_lock_file"];

/// The keys that GC goes by, besides those of DEL: whose addresses and links these
/// are.
const FOR_COLLECTION: [&str; 5] =
    ["type", "nodename", "hostname", "nodename_file", "nodename_file_optional"];

/// A configuration in which everything has been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// The network's name.
    pub network: String,
    /// The version of the specification to answer in.
    pub version: SpecVersion,
    /// The main plugin that the configuration is for; empty if it does not say.
    pub main_plugin: String,
    /// The `ipam` section; `None` when there is none.
    pub ipam: Option<IpamConfiguration>,
    /// Where the datastore is. Wrong only in what [`Configuration::for_removal`]
    /// gives: what is to be removed first does not depend on it.
    pub datastore: Result<datastore::Configuration, Error>,
    /// How the node's name is found.
    pub node_name: NodeName,
    /// The MTU asked for, in bytes; `None` to take the node's.
    pub mtu: Option<u32>,
    /// The hardware address asked for.
    pub mac: Option<MacAddress>,
    /// Whether the container may forward packets.
    pub allow_ip_forwarding: bool,
    /// Whether the container gets a default route besides the routes that the
    /// IPAM plugin gives it.
    pub include_default_routes: bool,
    /// Facts about the container to record: `namespace`, `pod`.
    pub facts: BTreeMap<String, String>,
    /// Replaces the DNS settings of the IPAM plugin.
    pub dns: Option<Value>,
    /// The result of the plugins before, or of ADD.
    pub prev_result: Option<AddResult>,
    /// How much is logged.
    pub log_level: LogLevel,
    /// A file to log to, besides standard error.
    pub log_file: Option<LogFile>,
    /// The attachments of the network that live; `None` when the runtime did not
    /// say. Only what [`Configuration::for_collection`] gives has them.
    pub valid_attachments: Option<BTreeSet<AttachmentName>>,
    /// Keys of Calico in the configuration that have no meaning here.
    pub without_meaning: Vec<String>,
}

impl Configuration {
    /// Checks a configuration. `name` and `version` have been looked at by the
    /// skeleton.
    ///
    /// # Errors
    /// [`Code::Decode`] for a value of the wrong type,
    /// [`Code::UnsupportedField`] for one that Weir cannot fulfil,
    /// [`Code::InvalidConfiguration`] for any other invalid one. All name the
    /// key and the value.
    pub fn validate(
        network: String,
        version: SpecVersion,
        json: &Map<String, Value>,
        arguments: &Arguments,
    ) -> Result<Self, Error> {
        let configuration = Self::build(network, version, json, arguments)?;
        configuration.datastore.clone()?;
        Ok(configuration)
    }

    /// The `ipam` section, without which there is no plugin to get addresses from
    /// and nothing for it to go by.
    ///
    /// # Errors
    /// [`Code::InvalidConfiguration`] when there is none.
    pub fn require_ipam(&self) -> Result<&IpamConfiguration, Error> {
        self.ipam.as_ref().ok_or_else(|| {
            Error::new(
                Code::InvalidConfiguration,
                "the network configuration has no ipam section; write \"ipam\": \
                 {\"type\": \"weir-ipam\"}",
            )
        })
    }

    /// A configuration to remove an attachment by. Only what that needs is looked
    /// at: a mistake elsewhere, made since or in what the runtime was asked for,
    /// must not keep DEL from tearing down.
    ///
    /// # Errors
    /// As [`Configuration::validate`], for the keys that count.
    pub fn for_removal(
        network: String,
        version: SpecVersion,
        json: &Map<String, Value>,
    ) -> Result<Self, Error> {
        Self::build(network, version, &needed(json, &[]), &Arguments::default())
    }

    /// A configuration to remove by what belongs to no attachment. As with
    /// [`Configuration::for_removal`], a mistake elsewhere is no obstacle.
    ///
    /// # Errors
    /// As [`Configuration::validate`], for the keys that count. A list of
    /// attachments that cannot be read is never taken for an empty one.
    pub fn for_collection(
        network: String,
        version: SpecVersion,
        json: &Map<String, Value>,
    ) -> Result<Self, Error> {
        let valid_attachments = valid_attachments(json)?;
        let needed = needed(json, &FOR_COLLECTION);
        let built = Self::build(network, version, &needed, &Arguments::default())?;
        Ok(Self { valid_attachments, ..built })
    }

    fn build(
        network: String,
        version: SpecVersion,
        json: &Map<String, Value>,
        arguments: &Arguments,
    ) -> Result<Self, Error> {
        let written: Written = decode(json)?;
        written.refuse_unsupported()?;
        let prev_result = written.prev_result.as_ref().map(|json| AddResult::parse(json, version));
        Ok(Self {
            network,
            version,
            datastore: written.datastore(),
            node_name: written.node_name()?,
            mtu: check_mtu(written.mtu)?,
            mac: written.mac(arguments)?,
            allow_ip_forwarding: written.container_settings.allow_ip_forwarding,
            include_default_routes: written.include_default_routes,
            facts: facts(arguments),
            log_level: log_level(written.log_level.as_deref())?,
            without_meaning: without_meaning(json),
            ipam: written.ipam(arguments)?,
            prev_result: prev_result.transpose()?,
            log_file: written.log_file()?,
            dns: written.dns,
            main_plugin: written.plugin.unwrap_or_default(),
            valid_attachments: None,
        })
    }
}

/// The keys that a removal goes by, and `more`; of those of the log what can be
/// used.
fn needed(json: &Map<String, Value>, more: &[&str]) -> Map<String, Value> {
    let mut needed = json.clone();
    needed.retain(|key, value| match key.as_str() {
        "log_level" => value.as_str().is_some_and(|text| log_level(Some(text)).is_ok()),
        "log_file_path" => value.as_str().is_some_and(|path| Path::new(path).is_absolute()),
        "log_file_max_size" => value.as_u64().is_some_and(|size| u32::try_from(size).is_ok()),
        key => FOR_REMOVAL.contains(&key) || more.contains(&key) || key.starts_with("etcd_"),
    });
    if let Some(Value::Object(ipam)) = needed.get_mut("ipam") {
        ipam.retain(|key, _| key == "type");
    }
    needed
}

fn facts(arguments: &Arguments) -> BTreeMap<String, String> {
    let known = [("namespace", &arguments.pod_namespace), ("pod", &arguments.pod_name)];
    let given = known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)));
    given.collect()
}
