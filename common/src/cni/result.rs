//! The result of ADD, in the form of every version of the specification.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use super::error::{Code, Error};
use super::version::SpecVersion;
use crate::null::null_is_default;
use crate::strict::Strict;

/// An interface that ADD made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub mac: String,
    /// The container's network namespace; absent for an interface of the host.
    #[serde(
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub sandbox: String,
    /// Its MTU in bytes; since 1.1.0, as the next two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The path of the socket that stands for it (vhost-user).
    #[serde(
        rename = "socketPath",
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub socket_path: String,
    /// The PCI id of the device that it is.
    #[serde(
        rename = "pciID",
        default,
        skip_serializing_if = "String::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub pci_id: String,
    /// Keys of later versions and other plugins, passed on.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// An address that the container got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpConfiguration {
    /// The address with its prefix length.
    pub address: IpNet,
    /// The gateway of its subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// The index of its interface in the result's list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route that the container got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniRoute {
    /// The destination.
    pub dst: IpNet,
    /// The next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// The path MTU in bytes; since 1.1.0, as all that follow. They are passed on
    /// in every version, as libcni does: absent means the kernel's own choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The maximum segment size in bytes that TCP is told to advertise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// The metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The routing table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// The scope: 0 universe, 253 link, 254 host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
    /// Keys of later versions and other plugins, passed on.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// What ADD did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct AddResult {
    /// The interfaces made; none in the result of an IPAM plugin.
    #[serde(deserialize_with = "null_is_default")]
    pub interfaces: Vec<Interface>,
    /// The addresses.
    #[serde(deserialize_with = "null_is_default")]
    pub ips: Vec<IpConfiguration>,
    /// The routes.
    #[serde(deserialize_with = "null_is_default")]
    pub routes: Vec<CniRoute>,
    /// The resolver's settings: an object, or null.
    #[serde(deserialize_with = "object_or_null")]
    pub dns: Value,
}

fn object_or_null<'de, D: Deserializer<'de>>(from: D) -> Result<Value, D::Error> {
    let object: Option<Map<String, Value>> = Option::deserialize(from)?;
    Ok(object.map_or(Value::Null, Value::Object))
}

/// The result of the versions up to 0.2.0.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OldResult {
    ip4: Option<OldAddress>,
    ip6: Option<OldAddress>,
    #[serde(deserialize_with = "object_or_null")]
    dns: Value,
}

#[derive(Debug, Deserialize)]
struct OldAddress {
    ip: IpNet,
    gateway: Option<IpAddr>,
    #[serde(default, deserialize_with = "null_is_default")]
    routes: Vec<CniRoute>,
}

impl Interface {
    /// The interface as this version knows it.
    fn of(&self, version: SpecVersion) -> Self {
        let known = self.clone();
        if version >= SpecVersion::V1_1_0 {
            return known;
        }
        Self { mtu: None, socket_path: String::new(), pci_id: String::new(), ..known }
    }
}

impl AddResult {
    /// Understands a result. One that names no version is of `version`, that of
    /// the configuration it came with.
    ///
    /// # Errors
    /// [`Code::IncompatibleVersion`], or [`Code::Decode`] for anything but a
    /// result.
    pub fn parse(json: &Value, version: SpecVersion) -> Result<Self, Error> {
        let version = match json.get("cniVersion").and_then(Value::as_str) {
            Some(text) if !text.is_empty() => SpecVersion::parse(text)?,
            _ => version,
        };
        let not_a_result = |error: serde_path_to_error::Error<serde_json::Error>| {
            let (key, flaw) = (error.path().to_string(), error.inner());
            let message = format!("not a result of version {}: {key}: {flaw}", version.as_str());
            Error::new(Code::Decode, message.replace(": .:", ":"))
        };
        if version <= SpecVersion::V0_2_0 {
            let old: Result<OldResult, _> = serde_path_to_error::deserialize(Strict(json));
            old.map(Self::from).map_err(not_a_result)
        } else {
            serde_path_to_error::deserialize(Strict(json)).map_err(not_a_result)
        }
    }

    /// The index of the interface of this name in the container's namespace `netns`
    /// (CNI_NETNS as given); `None` when the result lists none.
    pub fn container_interface(&self, name: &str, netns: &str) -> Option<usize> {
        let mut interfaces = self.interfaces.iter();
        interfaces.position(|interface| interface.name == name && interface.sandbox == netns)
    }

    /// The result as JSON of a version.
    ///
    /// Up to 0.2.0 there is one address a family and no interface; the others
    /// are left out, as skel does.
    ///
    /// # Errors
    /// [`Code::Internal`] when such a version has no address to show.
    pub fn to_json(&self, version: SpecVersion) -> Result<Value, Error> {
        if version <= SpecVersion::V0_2_0 {
            self.to_old_json(version)
        } else {
            Ok(self.to_new_json(version))
        }
    }

    fn to_new_json(&self, version: SpecVersion) -> Value {
        let ips = self.ips.iter().map(|ip| {
            let mut json = json!(ip);
            if version <= SpecVersion::V0_4_0 {
                json["version"] = Value::from(if ip.address.addr().is_ipv4() { "4" } else { "6" });
            }
            json
        });
        let mut json = json!({"cniVersion": version.as_str()});
        if !self.interfaces.is_empty() {
            let interfaces = self.interfaces.iter().map(|interface| interface.of(version));
            json["interfaces"] = json!(interfaces.collect::<Vec<_>>());
        }
        json["ips"] = ips.collect();
        if !self.routes.is_empty() {
            json["routes"] = json!(self.routes);
        }
        json["dns"] = self.dns_json();
        json
    }

    fn to_old_json(&self, version: SpecVersion) -> Result<Value, Error> {
        let mut json = json!({"cniVersion": version.as_str()});
        for (key, is_v4) in [("ip4", true), ("ip6", false)] {
            let of_family = |address: IpAddr| address.is_ipv4() == is_v4;
            let Some(ip) = self.ips.iter().find(|ip| of_family(ip.address.addr())) else {
                continue;
            };
            json[key] = json!({"ip": ip.address});
            if let Some(gateway) = ip.gateway {
                json[key]["gateway"] = json!(gateway);
            }
            let routes: Vec<&CniRoute> =
                self.routes.iter().filter(|route| of_family(route.dst.addr())).collect();
            if !routes.is_empty() {
                json[key]["routes"] = json!(routes);
            }
        }
        json["dns"] = self.dns_json();
        if self.ips.is_empty() {
            let message = format!("a result of version {} needs an address", version.as_str());
            return Err(Error::new(Code::Internal, message));
        }
        Ok(json)
    }

    fn dns_json(&self) -> Value {
        if self.dns.is_null() { json!({}) } else { self.dns.clone() }
    }
}

/// The first of the resolver's settings that say anything; `null` if none does. An
/// empty object is how libcni writes that there are none.
pub fn first_dns(settings: impl IntoIterator<Item = Value>) -> Value {
    let says_something = |dns: &Value| match dns {
        Value::Null => false,
        Value::Object(members) => !members.is_empty(),
        _ => true,
    };
    settings.into_iter().find(says_something).unwrap_or_default()
}

impl From<OldResult> for AddResult {
    fn from(old: OldResult) -> Self {
        let mut result = Self { dns: old.dns, ..Self::default() };
        for address in [old.ip4, old.ip6].into_iter().flatten() {
            let (address, gateway, routes) = (address.ip, address.gateway, address.routes);
            result.ips.push(IpConfiguration { address, gateway, interface: None });
            result.routes.extend(routes);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> AddResult {
        let ip = |address: &str| IpConfiguration {
            address: address.parse().unwrap(),
            gateway: None,
            interface: Some(1),
        };
        let interface = |name: &str, sandbox: &str| Interface {
            name: name.to_owned(),
            mac: "ee:ee:ee:ee:ee:ee".to_owned(),
            sandbox: sandbox.to_owned(),
            mtu: Some(1480),
            socket_path: String::new(),
            pci_id: "0000:00:1f.6".to_owned(),
            unknown: Map::new(),
        };
        AddResult {
            interfaces: vec![interface("weir0", ""), interface("eth0", "/run/netns/c")],
            ips: vec![ip("10.0.0.7/32"), ip("fd00::7/128")],
            routes: vec![],
            dns: Value::Null,
        }
    }

    #[test]
    fn every_version_reads_back() {
        for version in SpecVersion::ALL {
            let json = result().to_json(version).unwrap();
            assert_eq!(json["cniVersion"], version.as_str());
            let again = AddResult::parse(&json, SpecVersion::V1_0_0).unwrap();
            let addresses =
                |result: &AddResult| result.ips.iter().map(|ip| ip.address).collect::<Vec<_>>();
            assert_eq!(addresses(&again), addresses(&result()), "{json}");
        }
    }

    #[test]
    fn forms_differ_by_version() {
        let json = |version| result().to_json(version).unwrap();
        assert_eq!(json(SpecVersion::V0_3_1)["ips"][1]["version"], "6");
        assert_eq!(json(SpecVersion::V1_0_0)["ips"][1].get("version"), None);
        assert_eq!(json(SpecVersion::V0_2_0)["ip6"]["ip"], "fd00::7/128");
        assert_eq!(json(SpecVersion::V0_2_0).get("interfaces"), None);
        assert!(AddResult::default().to_json(SpecVersion::V0_1_0).is_err());
        let interface = |version| json(version)["interfaces"][1].clone();
        assert_eq!(interface(SpecVersion::V1_1_0)["mtu"], 1480);
        assert_eq!(interface(SpecVersion::V1_1_0)["pciID"], "0000:00:1f.6");
        assert_eq!(interface(SpecVersion::V1_1_0).get("socketPath"), None);
        for key in ["mtu", "socketPath", "pciID"] {
            assert_eq!(interface(SpecVersion::V1_0_0).get(key), None, "{key}");
        }
    }

    #[test]
    fn what_a_route_says_is_passed_on() {
        let route = json!({"dst": "10.0.0.0/8", "gw": "10.0.0.1", "mtu": 1400, "advmss": 1360,
                           "priority": 100, "table": 0, "scope": 253, "x.example/y": true});
        let json = json!({"ips": [{"address": "10.0.0.7/24"}], "routes": [route]});
        for version in [SpecVersion::V1_0_0, SpecVersion::V1_1_0] {
            let again = AddResult::parse(&json, version).unwrap().to_json(version).unwrap();
            assert_eq!(again["routes"][0], route);
        }
        let json = json!({"routes": [{"dst": "10.0.0.0/8", "scope": 256}]});
        assert_eq!(AddResult::parse(&json, SpecVersion::V1_1_0).unwrap_err().code, Code::Decode);
    }

    /// Go writes an empty list that was never made as `null`.
    #[test]
    fn what_is_null_is_empty() {
        let json = json!({
            "cniVersion": null, "ips": null, "routes": null, "dns": null, "interfaces": null,
        });
        assert_eq!(AddResult::parse(&json, SpecVersion::V1_0_0), Ok(AddResult::default()));
        let json = json!({
            "interfaces": [{"name": "eth0", "mac": null, "sandbox": null, "mtu": null,
                            "socketPath": null, "pciID": null}],
            "ips": [{"address": "10.0.0.7/24", "gateway": null, "interface": null}],
            "routes": [{"dst": "10.0.0.0/8", "gw": null, "priority": null}],
        });
        let result = AddResult::parse(&json, SpecVersion::V1_1_0).unwrap();
        assert_eq!((result.ips.len(), result.interfaces[0].sandbox.as_str()), (1, ""));
        let json = json!({"ip4": {"ip": "10.0.0.7/24", "routes": null}, "ip6": null, "dns": null});
        assert_eq!(AddResult::parse(&json, SpecVersion::V0_2_0).unwrap().ips.len(), 1);
    }

    #[test]
    fn the_first_settings_that_say_anything_count() {
        let (one, two) = (json!({"nameservers": ["192.0.2.1"]}), json!({"domain": "x"}));
        assert_eq!(first_dns([Value::Null, json!({}), one.clone(), two.clone()]), one);
        assert_eq!(first_dns([two.clone(), one]), two);
        assert_eq!(first_dns([json!({}), Value::Null]), Value::Null);
    }

    #[test]
    fn a_result_without_version_is_of_the_configurations() {
        let json = json!({"ip4": {"ip": "10.0.0.7/24"}});
        assert_eq!(AddResult::parse(&json, SpecVersion::V0_2_0).unwrap().ips.len(), 1);
    }

    #[test]
    fn what_is_no_result_is_named() {
        for (json, key) in [
            (json!([]), "expected an object"),
            (json!({"ips": 3}), "ips"),
            (json!({"ips": [["10.0.0.7/24"]]}), "ips[0]"),
            (json!({"interfaces": [["eth0"]]}), "interfaces[0]"),
            (json!({"routes": [["10.0.0.0/8"]]}), "routes[0]"),
            (json!({"dns": []}), "dns"),
        ] {
            let error = AddResult::parse(&json, SpecVersion::V1_0_0).unwrap_err();
            assert_eq!(error.code, Code::Decode, "{json}");
            assert!(error.message.contains(key) && !error.message.contains(" .:"), "{error}");
        }
        for json in [json!([]), json!({"ip4": ["10.0.0.7/24", null]}), json!({"dns": []})] {
            let error = AddResult::parse(&json, SpecVersion::V0_2_0).unwrap_err();
            assert_eq!(error.code, Code::Decode, "{json}");
        }
    }
}
