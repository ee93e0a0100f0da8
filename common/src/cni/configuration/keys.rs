//! The names of the keys: which are read, which have no meaning here, which are misspelt.

use serde::de::value::Error as NoValue;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};
use serde_json::{Map, Value};

use super::super::error::{Code, Error};
use super::written::{ContainerSettings, WrittenConfiguration, WrittenIpam};
use super::{LOCK_FILE, NODE_NAME, is_of_datastore};
use crate::nearest::nearest;

/// Keys of Calico that have no meaning in Weir (`cni-plugin/pkg/types/types.go`): accepted
/// and logged.
const WITHOUT_MEANING: [&str; 24] = [
    "burst",
    "calico_api_group",
    "dataplane_options",
    "endpoint_status_dir",
    "etcd_discovery_srv",
    "feature_control",
    "kubernetes",
    "log_file_max_age",
    "log_file_max_count",
    "mode",
    "num_queues",
    "policy",
    "policy_setup_timeout_seconds",
    "qps",
    "readiness_gates",
    "require_mtu_file",
    "vxlan_mac_prefix",
    "vxlan_vni",
    "windows_disable_default_deny_all_policy",
    "windows_disable_host_subnet_nat_policy",
    "windows_loopback_DSR",
    "windows_loopback_dsr",
    "windows_pod_deletion_timestamp_timeout",
    "windows_use_single_network",
];

/// Keys that libcni (`pkg/types/types.go`, `libcni/api.go`) and Multus (`pkg/types/types.go`,
/// `conf.go`) write into the configuration of any plugin, and that Weir does not read here.
const OF_RUNTIMES: [&str; 17] = [
    "RuntimeConfig",
    "capabilities",
    "cni.dev/attachments",
    "cni.dev/valid-attachments",
    "cniVersion",
    "cniVersions",
    "deviceID",
    "disableCheck",
    "disableGC",
    "ifnameRequest",
    "ipRequest",
    "loadOnlyInlinedPlugins",
    "logFile",
    "logLevel",
    "name",
    "pciBusID",
    "resourceName",
];

/// Calico's keys of the `ipam` section that Weir does not read.
const OF_IPAM: [&str; 1] = ["name"];

/// How far a key may be from the one that was meant.
const FARTHEST: usize = 2;

/// The main plugin that reads all these keys; under others `weir-ipam` reads a few.
const MAIN_PLUGIN: &str = "weir";

/// A key that is read nowhere, and the one that was probably meant.
pub(super) struct MisspeltKey {
    /// As written, with the section it stands in.
    written: String,
    /// The key that Weir reads.
    pub(super) meant: &'static str,
    /// What to do.
    advice: String,
}

impl MisspeltKey {
    /// Says so. The value may be secret.
    pub(super) fn error(&self) -> Error {
        let Self { written, advice, .. } = self;
        Error::new(
            Code::InvalidConfiguration,
            format!("the key {written:?} of the network configuration is unknown: {advice}"),
        )
    }
}

/// The keys that would be passed over although they are close to one that Weir reads. Only
/// sections that are Weir's are looked at: the keys of another main plugin are its own, but
/// for those that `weir-ipam` finds the datastore and the node's name by.
pub(super) fn misspelt(json: &Map<String, Value>) -> Vec<MisspeltKey> {
    let section = |name: &str| json.get(name).and_then(Value::as_object);
    let all = read_keys::<WrittenConfiguration>();
    let is_weirs = json.get("type").is_some_and(|main| main == MAIN_PLUGIN);
    let is_of_ipam =
        |key: &&str| is_of_datastore(key) || NODE_NAME.contains(key) || *key == LOCK_FILE;
    let read = all.iter().copied().filter(|key| is_weirs || is_of_ipam(key)).collect::<Vec<_>>();
    let mut misspelt = in_section("", json, &read, is_known);
    if let Some(ipam) = section("ipam").filter(|ipam| asks_weir_ipam(ipam)) {
        let read = read_keys::<WrittenIpam>();
        misspelt.extend(in_section("ipam.", ipam, read, |key| OF_IPAM.contains(&key)));
        misspelt.extend(misplaced(ipam, all));
    }
    if let Some(settings) = section("container_settings").filter(|_| is_weirs) {
        let read = read_keys::<ContainerSettings>();
        misspelt.extend(in_section("container_settings.", settings, read, |_| false));
    }
    misspelt
}

fn in_section(
    section: &str,
    json: &Map<String, Value>,
    read: &[&'static str],
    is_known: impl Fn(&str) -> bool,
) -> Vec<MisspeltKey> {
    let unknown = json.keys().filter(|key| !read.contains(&key.as_str()) && !is_known(key));
    let near = unknown.filter_map(|key| {
        let of_etcd = || is_about_etcd(key).then_some("etcd_endpoints");
        let meant = nearest(key, read.iter().copied(), FARTHEST).or_else(of_etcd)?;
        let advice = format!("write {meant:?}, or leave it out");
        Some(MisspeltKey { written: format!("{section}{key}"), meant, advice })
    });
    near.collect()
}

/// Whether a key that is not known seems to name the datastore, however it is spelt.
fn is_about_etcd(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["etcd", "datastore", "endpoint"].iter().any(|word| key.contains(word))
}

/// The keys of the datastore in the `ipam` section, where they are not read.
fn misplaced(ipam: &Map<String, Value>, all: &[&'static str]) -> Vec<MisspeltKey> {
    let places = ipam.keys().filter_map(|key| {
        let of_datastore = all.iter().copied().filter(|key| is_of_datastore(key));
        let meant = nearest(key, of_datastore, FARTHEST)?;
        let advice = format!("write {meant:?} beside \"ipam\", not in it");
        Some(MisspeltKey { written: format!("ipam.{key}"), meant, advice })
    });
    places.collect()
}

fn asks_weir_ipam(ipam: &Map<String, Value>) -> bool {
    ipam.get("type").is_some_and(|plugin| plugin == "weir-ipam")
}

fn is_known(key: &str) -> bool {
    let read = read_keys::<WrittenConfiguration>();
    [read, &WITHOUT_MEANING, &OF_RUNTIMES].iter().any(|keys| keys.contains(&key))
}

/// The keys that have no meaning in Weir: Calico's, and those of the main plugin `weir` and of
/// its `ipam` section that nobody knows.
pub(super) fn without_meaning(json: &Map<String, Value>) -> Vec<String> {
    let is_weirs = json.get("type").is_some_and(|main| main == MAIN_PLUGIN);
    let has_none =
        |key: &&String| WITHOUT_MEANING.contains(&key.as_str()) || is_weirs && !is_known(key);
    let ipam = json.get("ipam").and_then(Value::as_object).filter(|ipam| asks_weir_ipam(ipam));
    let of_ipam = ipam
        .into_iter()
        .flat_map(Map::keys)
        .filter(|key| !read_keys::<WrittenIpam>().contains(&key.as_str()) && *key != "name");
    let of_ipam = of_ipam.map(|key| format!("ipam.{key}"));
    json.keys().filter(has_none).cloned().chain(of_ipam).collect()
}

/// The names under which serde reads a structure.
fn read_keys<T: Deserialize<'static>>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // It ends with an error once the names are known: there is nothing to read.
    let _ = T::deserialize(Names(&mut names));
    names
}

struct Names<'a>(&'a mut &'static [&'static str]);

impl Deserializer<'static> for Names<'_> {
    type Error = NoValue;

    fn deserialize_struct<V: Visitor<'static>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, NoValue> {
        *self.0 = names;
        Err(NoValue::custom("only the names are asked for"))
    }

    fn deserialize_any<V: Visitor<'static>>(self, _: V) -> Result<V::Value, NoValue> {
        Err(NoValue::custom("not a structure"))
    }

    forward_to_deserialize_any! {
        <V: Visitor<'static>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
        ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = include_str!("../../../../README.md");

    /// Keys that the CNI specification describes.
    const OF_CNI: [&str; 6] = ["args", "dns", "ipam", "prevResult", "runtimeConfig", "type"];

    fn part(from: &str, to: &str) -> &'static str {
        let begin = README.find(from).unwrap();
        let end = begin + README[begin..].find(to).unwrap();
        &README[begin..end]
    }

    #[test]
    fn the_readme_has_every_key_that_is_read_and_no_other() {
        let keys = part("These are the keys of the `weir` entry", "### Backups");
        let read = |section: &'static str, keys: &[&'static str]| {
            keys.iter().map(|key| format!("{section}{key}")).collect::<Vec<_>>()
        };
        let all = [
            read("", read_keys::<WrittenConfiguration>()),
            read("ipam.", read_keys::<WrittenIpam>()),
            read("container_settings.", read_keys::<ContainerSettings>()),
        ]
        .concat();
        // Sections, and what is read to be refused with advice.
        let others =
            ["container_settings", "dataplane_options", "ipam.ip_pools_label_selector_keys"];
        let is_described = |key: &String| {
            let key = key.as_str();
            keys.contains(&format!("`{key}`")) || OF_CNI.contains(&key) || others.contains(&key)
        };
        let missing: Vec<_> = all.iter().filter(|key| !is_described(key)).collect();
        assert!(missing.is_empty(), "{missing:?}");

        let rows = part("| key | default | meaning |", "A single container").lines().skip(2);
        let names = rows.flat_map(|row| {
            let cell = row.split('|').nth(1).unwrap_or_default();
            cell.split(", ").map(|name| name.trim_matches([' ', '`']).to_owned())
        });
        let unread: Vec<_> = names.filter(|it| !it.is_empty() && !all.contains(it)).collect();
        assert!(unread.is_empty(), "{unread:?}");
    }
}
