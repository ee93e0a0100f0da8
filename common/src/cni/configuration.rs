//! The network configuration: as written in a conflist, and as validated.
//!
//! Keys have Calico's names and meaning (`cni-plugin/pkg/types/types.go`), so
//! that a conflist written for Calico works with the two types changed. Weir's
//! own keys are `datastore_path`, `etcd_username`, `etcd_password`,
//! `ipam.gateways` and `ipam.routes`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::environment::is_identifier;
use super::valid_attachments::valid_attachments;
use super::{AddResult, Arguments, Code, Error, Route, SpecVersion};
use crate::datastore::{self, EtcdConfiguration};
use crate::ipam::assign::Want;
use crate::ipam::collect::AttachmentName;
use crate::ipam::{Family, PoolReference};
use crate::network::{InvalidMac, MAXIMUM_MTU, MINIMUM_MTU_V4, MacAddress};

/// Where Calico's node agent writes the node's name. Read when the
/// configuration names neither a node nor a file, so that a node keeps its name
/// when it moves over.
pub const DEFAULT_NODE_NAME_FILE: &str = "/var/lib/calico/nodename";

/// How large a log file may become in MB, where the configuration does not say.
const DEFAULT_LOG_MEGABYTES: u32 = 100;

/// Keys of Calico that have no meaning in Weir: accepted and logged.
const WITHOUT_MEANING: [&str; 20] = [
    "calico_api_group",
    "dataplane_options",
    "endpoint_status_dir",
    "feature_control",
    "kubernetes",
    "log_file_max_age",
    "log_file_max_count",
    "mode",
    "num_queues",
    "policy",
    "policy_setup_timeout_seconds",
    "qps",
    "burst",
    "readiness_gates",
    "require_mtu_file",
    "windows_disable_host_subnet_nat_policy",
    "windows_loopback_dsr",
    "windows_pod_deletion_timestamp_timeout",
    "windows_use_single_network",
    "etcd_discovery_srv",
];

/// The keys that DEL goes by, besides those of etcd.
const FOR_REMOVAL: [&str; 4] = ["datastore_path", "datastore_type", "ipam", "ipam_lock_file"];

/// The keys that GC goes by, besides those of DEL: whose addresses and links these
/// are.
const FOR_COLLECTION: [&str; 5] =
    ["type", "nodename", "hostname", "nodename_file", "nodename_file_optional"];

/// The configuration as written. Only keys that Weir reads are named.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Written {
    #[serde(rename = "type")]
    plugin: Option<String>,
    ipam: Option<WrittenIpam>,
    args: Option<WrittenArgs>,
    #[serde(rename = "runtimeConfig")]
    runtime_config: Option<Requested>,
    mtu: Option<i64>,
    nodename: Option<String>,
    hostname: Option<String>,
    nodename_file: Option<PathBuf>,
    nodename_file_optional: bool,
    ipam_lock_file: Option<PathBuf>,
    datastore_type: Option<String>,
    datastore_path: Option<PathBuf>,
    etcd_endpoints: Option<String>,
    etcd_authority: Option<String>,
    etcd_scheme: Option<String>,
    etcd_discovery_srv: Option<String>,
    etcd_key_file: Option<PathBuf>,
    etcd_cert_file: Option<PathBuf>,
    etcd_ca_cert_file: Option<PathBuf>,
    etcd_username: Option<String>,
    etcd_password: Option<String>,
    log_level: Option<String>,
    log_file_path: Option<PathBuf>,
    log_file_max_size: Option<u32>,
    container_settings: ContainerSettings,
    device_type: Option<String>,
    include_default_routes: bool,
    dns: Option<Value>,
    #[serde(rename = "prevResult")]
    prev_result: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WrittenIpam {
    #[serde(rename = "type")]
    plugin: Option<String>,
    subnet: Option<String>,
    assign_ipv4: Option<Flag>,
    assign_ipv6: Option<Flag>,
    ipv4_pools: Vec<String>,
    ipv6_pools: Vec<String>,
    gateways: Vec<String>,
    routes: Vec<Route>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WrittenArgs {
    cni: Option<Requested>,
}

/// What the user of a runtime asks for this container (CONVENTIONS.md, `ips`
/// and `mac`).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Requested {
    ips: Vec<String>,
    mac: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerSettings {
    allow_ip_forwarding: bool,
}

/// A boolean, which Calico writes as text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Flag {
    Boolean(bool),
    Text(String),
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Only failures.
    Error,
    /// And what may need attention.
    Warning,
    /// And what was done.
    #[default]
    Info,
    /// And how.
    Debug,
}

/// A file to log to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// Its path, which is absolute: plugins run in whatever directory the runtime
    /// is in.
    pub path: PathBuf,
    /// How large it may become, in bytes, before it is set aside.
    pub max_size: u64,
}

/// How the node's name is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeName {
    /// It is this.
    Given(String),
    /// It is the content of this file, which must be there.
    File(PathBuf),
    /// It is the content of this file, else the host's name.
    FileOrHost(PathBuf),
}

/// The part of the configuration that the IPAM plugin goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpamConfiguration {
    /// The IPAM plugin to delegate to.
    pub plugin: String,
    /// The addresses the attachment wants.
    pub wants: Vec<Want>,
    /// The gateways that main plugins other than `weir` are told of, with the
    /// prefix lengths of their subnets. They are given to no container.
    pub gateways: Vec<IpNet>,
    /// The routes that the main plugin is to give the container.
    pub routes: Vec<Route>,
    /// The lock that keeps calls on one host from overtaking each other.
    pub lock_file: Option<PathBuf>,
}

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
        key => FOR_REMOVAL.contains(&key) || more.contains(&key) || key.starts_with("etcd_"),
    });
    if let Some(Value::Object(ipam)) = needed.get_mut("ipam") {
        ipam.retain(|key, _| key == "type");
    }
    needed
}

fn decode(json: &Map<String, Value>) -> Result<Written, Error> {
    serde_path_to_error::deserialize(Value::Object(json.clone())).map_err(|error| {
        let (key, value) = (error.path().to_string(), error.inner());
        Error::new(Code::Decode, format!("{key} in the network configuration is wrong: {value}"))
    })
}

impl Written {
    fn refuse_unsupported(&self) -> Result<(), Error> {
        let unsupported = |key: &str, value: &str, advice: &str| {
            let message = format!("{key} {value:?} is not supported; {advice}");
            Err(Error::new(Code::UnsupportedField, message))
        };
        if let Some(device) = self.device_type.as_deref().filter(|device| *device != "veth") {
            return unsupported(
                "device_type",
                device,
                "Weir makes veth pairs: write veth, or leave it out",
            );
        }
        if let Some(service) = &self.etcd_discovery_srv
            && self.etcd_endpoints.is_none()
        {
            return unsupported(
                "etcd_discovery_srv",
                service,
                "list the servers in etcd_endpoints",
            );
        }
        Ok(())
    }

    fn datastore(&self) -> Result<datastore::Configuration, Error> {
        let endpoints = self.endpoints();
        match self.datastore_type.as_deref() {
            None if endpoints.is_empty() => Ok(self.embedded()),
            Some("embedded") => Ok(self.embedded()),
            None | Some("etcdv3") => self.etcd(endpoints),
            Some(other) => Err(Error::new(
                Code::UnsupportedField,
                format!("datastore_type {other:?} is not supported; write etcdv3 or embedded"),
            )),
        }
    }

    fn embedded(&self) -> datastore::Configuration {
        self.datastore_path.as_ref().map_or_else(datastore::Configuration::default, |path| {
            datastore::Configuration::Embedded { path: path.clone() }
        })
    }

    fn endpoints(&self) -> Vec<String> {
        if let Some(endpoints) = &self.etcd_endpoints {
            let trimmed =
                endpoints.split(',').map(str::trim).filter(|endpoint| !endpoint.is_empty());
            return trimmed.map(str::to_owned).collect();
        }
        let scheme = self.etcd_scheme.as_deref().unwrap_or("http");
        self.etcd_authority.iter().map(|authority| format!("{scheme}://{authority}")).collect()
    }

    fn etcd(&self, endpoints: Vec<String>) -> Result<datastore::Configuration, Error> {
        let given =
            |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
        let (certificate, key) = (given(&self.etcd_cert_file), given(&self.etcd_key_file));
        let client_certificate = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                return Err(invalid("etcd_key_file", "", "a certificate needs its key"));
            }
            (None, Some(_)) => {
                return Err(invalid("etcd_cert_file", "", "a key needs its certificate"));
            }
        };
        let credentials = match (&self.etcd_username, &self.etcd_password) {
            (Some(user), Some(password)) => Some((user.clone(), password.clone())),
            (None, None) => None,
            (Some(_), None) => return Err(invalid("etcd_password", "", "a user needs a password")),
            (None, Some(_)) => return Err(invalid("etcd_username", "", "a password needs a user")),
        };
        if endpoints.is_empty() {
            let advice = "name at least one server, for example http://127.0.0.1:2379";
            return Err(invalid("etcd_endpoints", "", advice));
        }
        let is_url = |endpoint: &&String| {
            let rest =
                endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
            rest.is_none_or(str::is_empty)
        };
        if let Some(endpoint) = endpoints.iter().find(is_url) {
            return Err(invalid(
                "etcd_endpoints",
                endpoint,
                "write http://HOST:PORT or https://HOST:PORT",
            ));
        }
        // Endpoints are named in messages and logs.
        if endpoints.iter().any(|endpoint| endpoint.contains('@')) {
            let advice = "write user and password as etcd_username and etcd_password, not in a URL";
            return Err(invalid("etcd_endpoints", "…@…", advice));
        }
        Ok(datastore::Configuration::Etcd(EtcdConfiguration {
            ca_cert_file: given(&self.etcd_ca_cert_file),
            client_certificate,
            credentials,
            ..EtcdConfiguration::new(endpoints)
        }))
    }

    fn node_name(&self) -> Result<NodeName, Error> {
        let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        if let Some(name) = given(&self.nodename).or_else(|| given(&self.hostname)) {
            if !is_identifier(&name) {
                let advice = "write letters, digits, '_', '.', '-'";
                return Err(invalid("nodename", &name, advice));
            }
            return Ok(NodeName::Given(name));
        }
        Ok(match &self.nodename_file {
            Some(file) if !self.nodename_file_optional => NodeName::File(file.clone()),
            Some(file) => NodeName::FileOrHost(file.clone()),
            None => NodeName::FileOrHost(DEFAULT_NODE_NAME_FILE.into()),
        })
    }

    fn log_file(&self) -> Result<Option<LogFile>, Error> {
        let Some(path) = self.log_file_path.clone().filter(|path| !path.as_os_str().is_empty())
        else {
            return Ok(None);
        };
        if !path.is_absolute() {
            let path = path.display().to_string();
            return Err(invalid("log_file_path", &path, "write a path that begins with '/'"));
        }
        let megabytes = match self.log_file_max_size {
            None | Some(0) => DEFAULT_LOG_MEGABYTES,
            Some(megabytes) => megabytes,
        };
        Ok(Some(LogFile { path, max_size: u64::from(megabytes) << 20 }))
    }

    /// What was asked for this container, the strongest source first
    /// (as the plugins static and bridge have it: runtimeConfig, args, CNI_ARGS).
    fn requested(&self) -> impl Iterator<Item = (&'static str, &Requested)> {
        let args = self.args.as_ref().and_then(|args| args.cni.as_ref());
        let runtime = self.runtime_config.as_ref().map(|requested| ("runtimeConfig", requested));
        runtime.into_iter().chain(args.map(|requested| ("args.cni", requested)))
    }

    fn addresses(&self, arguments: &Arguments) -> Result<Vec<IpAddr>, Error> {
        if let Some((source, requested)) =
            self.requested().find(|(_, requested)| !requested.ips.is_empty())
        {
            let key = format!("{source}.ips");
            return requested.ips.iter().map(|text| parse_address(&key, text)).collect();
        }
        let texts = arguments.ip.iter().flat_map(|list| list.split(','));
        texts.map(|text| parse_address("CNI_ARGS IP", text)).collect()
    }

    fn mac(&self, arguments: &Arguments) -> Result<Option<MacAddress>, Error> {
        let written = self.requested().find_map(|(source, requested)| {
            Some((format!("{source}.mac"), requested.mac.clone()?))
        });
        let argument = || Some(("CNI_ARGS MAC".to_owned(), arguments.mac.clone()?));
        written.or_else(argument).map(|(key, text)| parse_mac(&key, &text)).transpose()
    }

    fn ipam(&self, arguments: &Arguments) -> Result<Option<IpamConfiguration>, Error> {
        let Some(ipam) = &self.ipam else {
            return Ok(None);
        };
        let plugin = ipam.plugin.clone().unwrap_or_default();
        if plugin.is_empty() || plugin.contains('/') {
            return Err(invalid("ipam.type", &plugin, "name a plugin, for example weir-ipam"));
        }
        let mut addresses = self.addresses(arguments)?;
        let mut asked = BTreeSet::new();
        addresses.retain(|address| asked.insert(*address));
        let lock_file = self.ipam_lock_file.clone();
        Ok(Some(IpamConfiguration {
            wants: ipam.wants(addresses)?,
            gateways: ipam.gateways()?,
            routes: ipam.routes.clone(),
            plugin,
            lock_file,
        }))
    }
}

impl WrittenIpam {
    /// Addresses asked for take the place of those that a family would get by
    /// itself.
    fn wants(&self, addresses: Vec<IpAddr>) -> Result<Vec<Want>, Error> {
        let mut wants = Vec::new();
        for (family, key, flag, pools) in [
            (Family::V4, "ipam.assign_ipv4", &self.assign_ipv4, &self.ipv4_pools),
            (Family::V6, "ipam.assign_ipv6", &self.assign_ipv6, &self.ipv6_pools),
        ] {
            let asked = addresses.iter().filter(|address| Family::of(**address) == family);
            let exactly: Vec<Want> = asked.map(|address| Want::Exactly(*address)).collect();
            if exactly.is_empty() && read_flag(key, flag, family == Family::V4)? {
                let pools = self.pools_of(family, pools)?;
                wants.push(Want::Any { family, pools });
            }
            wants.extend(exactly);
        }
        if wants.is_empty() {
            let advice = "switch on at least one of assign_ipv4 and assign_ipv6";
            return Err(invalid("ipam.assign_ipv4", "false", advice));
        }
        Ok(wants)
    }

    fn gateways(&self) -> Result<Vec<IpNet>, Error> {
        let advice = "write addresses with their subnets' lengths, for example 10.7.0.1/24";
        let gateways = self
            .gateways
            .iter()
            .map(|text| text.parse().map_err(|_| invalid("ipam.gateways", text, advice)));
        gateways.collect()
    }

    fn pools_of(&self, family: Family, pools: &[String]) -> Result<Vec<PoolReference>, Error> {
        let mut references: Vec<PoolReference> = Vec::new();
        if let Some(subnet) = &self.subnet {
            let cidr: IpNet = subnet.parse().map_err(|_| {
                invalid("ipam.subnet", subnet, "write the CIDR of a configured pool")
            })?;
            if Family::of(cidr.addr()) == family {
                references.push(PoolReference::Cidr(cidr));
            }
        }
        let named = pools.iter().map(|pool| match pool.parse() {
            Ok(reference) => reference,
            Err(never) => match never {},
        });
        references.extend(named);
        Ok(references)
    }
}

fn invalid(key: &str, value: &str, advice: &str) -> Error {
    Error::new(Code::InvalidConfiguration, format!("{key} {value:?} is invalid: {advice}"))
}

fn read_flag(key: &str, flag: &Option<Flag>, default: bool) -> Result<bool, Error> {
    match flag {
        None => Ok(default),
        Some(Flag::Boolean(value)) => Ok(*value),
        Some(Flag::Text(text)) => match text.to_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(invalid(key, text, "write \"true\" or \"false\"")),
        },
    }
}

/// An address, with or without a prefix length.
fn parse_address(key: &str, text: &str) -> Result<IpAddr, Error> {
    let text = text.trim();
    let address = text.parse::<IpNet>().map(|net| net.addr()).or_else(|_| text.parse());
    address.map_err(|_| invalid(key, text, "write an address, for example 10.0.0.7"))
}

fn parse_mac(key: &str, text: &str) -> Result<MacAddress, Error> {
    text.parse().map_err(|error: InvalidMac| invalid(key, text, error.reason))
}

fn check_mtu(mtu: Option<i64>) -> Result<Option<u32>, Error> {
    let allowed = MINIMUM_MTU_V4..=MAXIMUM_MTU;
    match mtu {
        None | Some(0) => Ok(None),
        Some(mtu) => match u32::try_from(mtu) {
            Ok(mtu) if allowed.contains(&mtu) => Ok(Some(mtu)),
            _ => Err(invalid(
                "mtu",
                &mtu.to_string(),
                &format!(
                    "write {MINIMUM_MTU_V4} to {MAXIMUM_MTU}, or leave it out to take the node's"
                ),
            )),
        },
    }
}

fn log_level(text: Option<&str>) -> Result<LogLevel, Error> {
    match text.unwrap_or("info").to_lowercase().as_str() {
        "error" | "fatal" | "panic" | "none" => Ok(LogLevel::Error),
        "warning" | "warn" => Ok(LogLevel::Warning),
        "info" | "" => Ok(LogLevel::Info),
        "debug" | "trace" => Ok(LogLevel::Debug),
        _ => Err(invalid(
            "log_level",
            text.unwrap_or_default(),
            "write error, warning, info or debug",
        )),
    }
}

fn facts(arguments: &Arguments) -> BTreeMap<String, String> {
    let known = [("namespace", &arguments.pod_namespace), ("pod", &arguments.pod_name)];
    let given = known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)));
    given.collect()
}

fn without_meaning(json: &Map<String, Value>) -> Vec<String> {
    json.keys().filter(|key| WITHOUT_MEANING.contains(&key.as_str())).cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn validate(json: Value) -> Result<Configuration, Error> {
        validate_with(json, &Arguments::default())
    }

    fn validate_with(json: Value, arguments: &Arguments) -> Result<Configuration, Error> {
        let json = json.as_object().unwrap().clone();
        Configuration::validate("pods".to_owned(), SpecVersion::V1_0_0, &json, arguments)
    }

    #[test]
    fn defaults() {
        let configuration = validate(json!({"ipam": {"type": "weir-ipam"}})).unwrap();
        assert_eq!(configuration.datastore, Ok(datastore::Configuration::default()));
        let any = Want::Any { family: Family::V4, pools: vec![] };
        assert_eq!(configuration.ipam.unwrap().wants, [any]);
        assert_eq!(configuration.node_name, NodeName::FileOrHost(DEFAULT_NODE_NAME_FILE.into()));
    }

    #[test]
    fn calicos_etcd_conflist() {
        let configuration = validate(json!({
            "log_level": "info",
            "etcd_endpoints": "https://10.0.0.1:2379, https://10.0.0.2:2379",
            "etcd_key_file": "/k", "etcd_cert_file": "/c", "etcd_ca_cert_file": "/ca",
            "mtu": 1440,
            "nodename": "node-1.example",
            "policy": {"type": "k8s"},
            "kubernetes": {"kubeconfig": "/x"},
            "ipam": {"type": "weir-ipam", "assign_ipv4": "true", "assign_ipv6": "TRUE",
                     "ipv4_pools": ["10.0.0.0/16", "blue"]},
        }))
        .unwrap();
        let Ok(datastore::Configuration::Etcd(etcd)) = configuration.datastore else {
            panic!("not etcd")
        };
        assert_eq!(etcd.endpoints, ["https://10.0.0.1:2379", "https://10.0.0.2:2379"]);
        assert_eq!(etcd.client_certificate, Some(("/c".into(), "/k".into())));
        assert_eq!(configuration.mtu, Some(1440));
        assert_eq!(configuration.without_meaning, ["policy", "kubernetes"]);
        let pools = vec![
            PoolReference::Cidr("10.0.0.0/16".parse().unwrap()),
            PoolReference::Name("blue".to_owned()),
        ];
        assert_eq!(
            configuration.ipam.unwrap().wants,
            [
                Want::Any { family: Family::V4, pools },
                Want::Any { family: Family::V6, pools: vec![] }
            ]
        );
    }

    #[test]
    fn addresses_asked_for_replace_a_familys_own() {
        let arguments = Arguments { ip: Some("10.0.0.9".to_owned()), ..Arguments::default() };
        let both = json!({"type": "weir-ipam", "assign_ipv6": true});
        let wants = |json| validate_with(json, &arguments).unwrap().ipam.unwrap().wants;
        let address = |text: &str| Want::Exactly(text.parse().unwrap());
        let six = Want::Any { family: Family::V6, pools: vec![] };
        assert_eq!(wants(json!({"ipam": both})), [address("10.0.0.9"), six.clone()]);
        let args = json!({"cni": {"ips": ["10.0.0.8/24"]}});
        assert_eq!(wants(json!({"ipam": both, "args": args})), [address("10.0.0.8"), six.clone()]);
        let runtime = json!({"ips": ["10.0.0.7", "10.0.0.7/24"]});
        assert_eq!(
            wants(json!({"ipam": both, "args": args, "runtimeConfig": runtime})),
            [address("10.0.0.7"), six]
        );
    }

    #[test]
    fn hardware_addresses() {
        let mac = |text: &str| validate(json!({"runtimeConfig": {"mac": text}}));
        assert_eq!(mac("02:00:00:00:00:07").unwrap().mac, Some(MacAddress([2, 0, 0, 0, 0, 7])));
        for text in ["", "02:00", "01:00:00:00:00:01", "00:00:00:00:00:00", "2:0:0:0:0:7"] {
            assert_eq!(mac(text).unwrap_err().code, Code::InvalidConfiguration, "{text:?}");
        }
    }

    #[test]
    fn a_mistake_does_not_stand_in_the_way_of_removal() {
        let json = json!({
            "mtu": "big", "log_level": "loud", "nodename": "a/b", "prevResult": 3,
            "datastore_type": "cloud", "runtimeConfig": {"ips": ["ten"]},
            "ipam": {"type": "weir-ipam", "assign_ipv4": "maybe", "subnet": "x"},
        });
        let json = json.as_object().unwrap();
        let removal = Configuration::for_removal("pods".to_owned(), SpecVersion::V1_0_0, json);
        let configuration = removal.unwrap();
        assert_eq!(configuration.ipam.unwrap().plugin, "weir-ipam");
        assert_eq!(configuration.datastore.unwrap_err().code, Code::UnsupportedField);
    }

    fn for_collection(json: Value) -> Result<Configuration, Error> {
        let json = json.as_object().unwrap();
        Configuration::for_collection("pods".to_owned(), SpecVersion::V1_1_0, json)
    }

    #[test]
    fn a_collection_is_not_stopped_by_a_mistake_but_knows_its_host() {
        // The list means nothing to other commands.
        assert!(validate(json!({"cni.dev/valid-attachments": 3})).is_ok());
        let json = json!({
            "type": "weir", "mtu": "big", "log_level": "loud", "log_file_path": "here",
            "nodename": "n1", "ipam": {"type": "weir-ipam", "assign_ipv4": "maybe"},
        });
        let configuration = for_collection(json).unwrap();
        assert_eq!(configuration.node_name, NodeName::Given("n1".to_owned()));
        assert_eq!((configuration.main_plugin.as_str(), configuration.log_file), ("weir", None));
        assert_eq!(configuration.valid_attachments, None);
        let error = for_collection(json!({"nodename": "a/b"})).unwrap_err();
        assert_eq!(error.code, Code::InvalidConfiguration);
    }

    #[test]
    fn log_files() {
        let log_file = |json| validate(json).unwrap().log_file;
        let at = |path: &str, megabytes: u64| {
            Some(LogFile { path: path.into(), max_size: megabytes << 20 })
        };
        assert_eq!(
            log_file(json!({"log_file_path": "/var/log/weir.log"})),
            at("/var/log/weir.log", 100)
        );
        let json = json!({"log_file_path": "/l", "log_file_max_size": 3});
        assert_eq!(log_file(json), at("/l", 3));
        assert_eq!(log_file(json!({"log_file_path": ""})), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, code, key, value) in [
            (json!({"mtu": 20}), Code::InvalidConfiguration, "mtu", "20"),
            (json!({"mtu": "big"}), Code::Decode, "mtu", "big"),
            (
                json!({"datastore_type": "kubernetes"}),
                Code::UnsupportedField,
                "datastore_type",
                "kubernetes",
            ),
            (json!({"datastore_type": "etcdv3"}), Code::InvalidConfiguration, "etcd_endpoints", ""),
            (
                json!({"etcd_endpoints": "host:1"}),
                Code::InvalidConfiguration,
                "etcd_endpoints",
                "host:1",
            ),
            (
                json!({"etcd_endpoints": "http://root:pw@host:2379"}),
                Code::InvalidConfiguration,
                "etcd_endpoints",
                "etcd_password",
            ),
            (json!({"log_file_path": "here"}), Code::InvalidConfiguration, "log_file_path", "here"),
            (
                json!({"etcd_discovery_srv": "x.org"}),
                Code::UnsupportedField,
                "etcd_discovery_srv",
                "x.org",
            ),
            (json!({"device_type": "netkit"}), Code::UnsupportedField, "device_type", "netkit"),
            (json!({"nodename": "a/b"}), Code::InvalidConfiguration, "nodename", "a/b"),
            (json!({"log_level": "loud"}), Code::InvalidConfiguration, "log_level", "loud"),
            (json!({"ipam": {"type": "../x"}}), Code::InvalidConfiguration, "ipam.type", "../x"),
            (
                json!({"ipam": {"type": "x", "assign_ipv4": "maybe"}}),
                Code::InvalidConfiguration,
                "ipam.assign_ipv4",
                "maybe",
            ),
            (
                json!({"ipam": {"type": "x", "assign_ipv4": "false"}}),
                Code::InvalidConfiguration,
                "ipam.assign_ipv4",
                "false",
            ),
            (
                json!({"ipam": {"type": "x", "subnet": "usePodCidr"}}),
                Code::InvalidConfiguration,
                "ipam.subnet",
                "usePodCidr",
            ),
            (
                json!({"ipam": {"type": "x", "gateways": ["10.7.0.1"]}}),
                Code::InvalidConfiguration,
                "ipam.gateways",
                "10.7.0.1",
            ),
            (
                json!({"ipam": {"type": "x"}, "runtimeConfig": {"ips": ["ten"]}}),
                Code::InvalidConfiguration,
                "runtimeConfig.ips",
                "ten",
            ),
        ] {
            let error = validate(json.clone()).unwrap_err();
            assert_eq!(error.code, code, "{json}: {error}");
            assert!(error.message.contains(key) && error.message.contains(value), "{error}");
        }
    }
}
