//! The configuration as written, and the values of it that Weir cannot fulfil.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::error::{Code, Error};
use super::super::result::CniRoute;
use super::value::{Flag, unsupported};
use crate::null::null_is_default;
use crate::strict::Strict;

/// Keys whose values are never shown.
const SECRET: [&str; 1] = ["etcd_password"];

/// The configuration as written. Only keys that Weir reads are named.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WrittenConfiguration {
    #[serde(rename = "type")]
    pub(super) plugin: Option<String>,
    pub(super) ipam: Option<WrittenIpam>,
    pub(super) args: Option<WrittenArgs>,
    #[serde(rename = "runtimeConfig")]
    pub(super) runtime_config: Option<Requested>,
    pub(super) mtu: Option<i64>,
    pub(super) nodename: Option<String>,
    pub(super) hostname: Option<String>,
    pub(super) nodename_file: Option<PathBuf>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) nodename_file_optional: bool,
    pub(super) ipam_lock_file: Option<PathBuf>,
    pub(super) datastore_type: Option<String>,
    pub(super) datastore_path: Option<PathBuf>,
    pub(super) etcd_endpoints: Option<String>,
    pub(super) etcd_authority: Option<String>,
    pub(super) etcd_scheme: Option<String>,
    pub(super) etcd_discovery_srv: Option<String>,
    pub(super) etcd_key_file: Option<PathBuf>,
    pub(super) etcd_cert_file: Option<PathBuf>,
    pub(super) etcd_ca_cert_file: Option<PathBuf>,
    pub(super) etcd_username: Option<String>,
    pub(super) etcd_password: Option<String>,
    pub(super) log_level: Option<String>,
    pub(super) log_file_path: Option<PathBuf>,
    pub(super) log_file_max_size: Option<u32>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) container_settings: ContainerSettings,
    pub(super) device_type: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) dataplane_options: Map<String, Value>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) include_default_routes: bool,
    pub(super) source_check: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) allowed_source_prefixes: Vec<String>,
    pub(super) dns: Option<Map<String, Value>>,
    #[serde(rename = "prevResult")]
    pub(super) prev_result: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WrittenIpam {
    #[serde(rename = "type")]
    pub(super) plugin: Option<String>,
    pub(super) subnet: Option<String>,
    pub(super) assign_ipv4: Option<Flag>,
    pub(super) assign_ipv6: Option<Flag>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) ipv4_pools: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) ipv6_pools: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) gateways: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) routes: Vec<CniRoute>,
    /// Calico's choice of pools by their labels.
    #[serde(deserialize_with = "null_is_default")]
    pub(super) ip_pools_label_selector_keys: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WrittenArgs {
    pub(super) cni: Option<Requested>,
}

/// What the user of a runtime asks for this container (CONVENTIONS.md, `ips`
/// and `mac`; Weir's own `allowed_source_prefixes`).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Requested {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) ips: Vec<String>,
    pub(super) mac: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub(super) allowed_source_prefixes: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ContainerSettings {
    #[serde(deserialize_with = "null_is_default")]
    pub(super) allow_ip_forwarding: bool,
}

pub(super) fn decode(json: &Map<String, Value>) -> Result<WrittenConfiguration, Error> {
    let json = Value::Object(json.clone());
    serde_path_to_error::deserialize(Strict(&json)).map_err(|error| {
        let key = error.path().to_string();
        // serde's text has the value in it.
        let flaw = if SECRET.contains(&key.as_str()) {
            "write text, in quotation marks".to_owned()
        } else {
            error.inner().to_string()
        };
        Error::new(Code::Decode, format!("{key} in the network configuration is wrong: {flaw}"))
    })
}

impl WrittenConfiguration {
    pub(super) fn refuse_unsupported(&self) -> Result<(), Error> {
        // The name of another program that would connect the container
        // (`cni-plugin/pkg/dataplane/dataplane.go`, GetDataplane).
        if let Some(dataplane) = self.dataplane_options.get("type") {
            let advice = "Weir connects containers itself: leave it out";
            let name = dataplane.as_str().map_or_else(|| dataplane.to_string(), str::to_owned);
            return Err(unsupported("dataplane_options.type", &name, advice));
        }
        let ipam = self.ipam.as_ref();
        if ipam.is_some_and(|ipam| !ipam.ip_pools_label_selector_keys.is_empty()) {
            let key = "ipam.ip_pools_label_selector_keys";
            let advice = "name the pools in ipv4_pools and ipv6_pools, or choose them by their \
                          nodeSelector";
            return Err(unsupported(key, "[…]", advice));
        }
        match self.device_type.as_deref().filter(|device| *device != "veth") {
            None => Ok(()),
            Some(device) => {
                let advice = "Weir makes veth pairs: write veth, or leave it out";
                Err(unsupported("device_type", device, advice))
            }
        }
    }
}
