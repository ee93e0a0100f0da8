//! FelixConfiguration: Calico's settings of the dataplane, for all nodes (`default`) or one
//! (`node.NAME`). Weir obeys those of tunnels, and keeps the others.

use std::collections::BTreeMap;

use ipnet::IpNet;
use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::cidr;
use super::error::{Error, FieldError};
use super::fields::{self, Fields, Problems};
use super::types::display;
use crate::link::{MAXIMUM_MTU, MINIMUM_MTU_V4, MINIMUM_MTU_V6};
use crate::tunnel::{Encapsulation, TunnelKind, TunnelRow};

/// The largest number of a network in a tunnel: it has 24 bits (RFC 7348, section 5).
const LARGEST_VNI: i64 = (1 << 24) - 1;

/// What Weir obeys of a Felix configuration. A field that is not set is absent, so that the one
/// of a node may leave it to the cluster's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FelixConfiguration {
    /// Whether there are devices of a kind, whatever the pools ask for, by the field
    /// ([`TunnelRow::enabled_field`]).
    pub flags: BTreeMap<String, bool>,
    /// The numbers that tunnels go by, by the fields that the kinds name ([`TunnelRow`]): MTUs in
    /// bytes, where 0 leaves it to the node, UDP ports, network identifiers.
    pub numbers: BTreeMap<String, u32>,
    /// The links whose MTU decides that of tunnels.
    pub mtu_interface_pattern: Option<LinkPattern>,
    /// What else than nodes may send packets through tunnels. An empty list of a node's is not
    /// the cluster's.
    pub external_nodes: Option<Vec<IpNet>>,
}

/// Names of links, as a regular expression. Two are equal whose texts are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LinkPattern(Regex);

impl LinkPattern {
    /// Whether a link of this name is meant.
    pub fn is_match(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

impl TryFrom<String> for LinkPattern {
    type Error = regex_lite::Error;

    fn try_from(text: String) -> Result<Self, regex_lite::Error> {
        Regex::new(&text).map(Self)
    }
}

impl From<LinkPattern> for String {
    fn from(pattern: LinkPattern) -> Self {
        pattern.0.as_str().to_owned()
    }
}

impl PartialEq for LinkPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for LinkPattern {}

impl FelixConfiguration {
    /// Reads a configuration from its stored JSON (v3). Fields that Weir does not obey are passed
    /// over.
    ///
    /// # Errors
    /// [`Error::NotJson`], [`Error::NotAnObject`], or [`Error::Invalid`] with
    /// everything that is wrong.
    pub fn from_json(value: &[u8]) -> Result<Self, Error> {
        Self::from_object(&fields::object("FelixConfiguration", value)?)
    }

    /// As [`FelixConfiguration::from_json`], from JSON that is parsed already.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything that is wrong.
    pub fn from_object(object: &Map<String, Value>) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let configuration = Self::read(object, &mut problems);
        problems.into_result(Some(configuration))
    }

    /// Reads a configuration for the tunnels between nodes. A field that is wrong counts as not
    /// set, of the external nodes the wrong item; the second value says what is wrong. Calico
    /// checks few of these fields when they are written.
    ///
    /// # Errors
    /// As [`FelixConfiguration::from_json`], where the name or the whole spec is wrong.
    pub fn for_tunnels(value: &[u8]) -> Result<(Self, Option<Error>), Error> {
        let object = fields::object("FelixConfiguration", value)?;
        let mut problems = Problems::default();
        let configuration = Self::read(&object, &mut problems);
        problems.refuse(&["Metadata.Name", "FelixConfiguration.Spec"])?;
        Ok((configuration, problems.into_error()))
    }

    fn read(object: &Map<String, Value>, problems: &mut Problems) -> Self {
        let resource = Fields::new(object, "");
        fields::configuration_name(&resource, "FelixConfiguration", problems);
        let spec = resource.object("spec", "FelixConfiguration.Spec", problems);
        let mut configuration = Self {
            mtu_interface_pattern: read_pattern(&spec, problems),
            external_nodes: read_external_nodes(&spec, problems),
            ..Self::default()
        };
        for kind in TunnelKind::ALL {
            configuration.read_kind(kind.row(), &spec, problems);
        }
        configuration
    }

    /// Reads what is configured of one kind of tunnel. Several kinds may have a field.
    fn read_kind(&mut self, row: &TunnelRow, spec: &Fields<'_>, problems: &mut Problems) {
        let mut number = |key: &str, number: Option<u32>| {
            self.numbers.extend(number.map(|number| (key.to_owned(), number)));
        };
        number(row.mtu_field, read_mtu(row, spec, problems));
        if let Encapsulation::Udp { port_field: key, .. } = row.encapsulation {
            number(key, spec.ranged(key, &display(key), 1..=65535, problems));
        }
        if let Some(key) = row.frames().map(|frames| frames.vni_field) {
            number(key, spec.ranged(key, &display(key), 1..=LARGEST_VNI, problems));
        }
        if let Some(key) = row.enabled_field {
            let flag = spec.boolean(key, &display(key), problems);
            self.flags.extend(flag.map(|flag| (key.to_owned(), flag)));
        }
    }
}

fn read_mtu(row: &TunnelRow, spec: &Fields<'_>, problems: &mut Problems) -> Option<u32> {
    let (key, display) = (row.mtu_field, &display(row.mtu_field));
    let minimum = if row.is_ipv6 { MINIMUM_MTU_V6 } else { MINIMUM_MTU_V4 };
    let number = spec.integer(key, display, problems)?;
    let is_mtu = |mtu: &u32| *mtu == 0 || (minimum..=MAXIMUM_MTU).contains(mtu);
    let mtu = u32::try_from(number).ok().filter(is_mtu);
    if mtu.is_none() {
        let reason = format!("must be a number from {minimum} to {MAXIMUM_MTU}, or 0");
        problems.add(
            FieldError::new(spec.path(display), reason)
                .value(number)
                .advice("write 0 to leave it to the node"),
        );
    }
    mtu
}

fn read_pattern(spec: &Fields<'_>, problems: &mut Problems) -> Option<LinkPattern> {
    let text = spec.text("mtuIfacePattern", "MTUIfacePattern", problems)?;
    match LinkPattern::try_from(text.to_owned()) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            problems.add(
                FieldError::new(
                    spec.path("MTUIfacePattern"),
                    format!("not a regular expression: {error}"),
                )
                .value(text)
                .advice("write for example ^(eth|en).*"),
            );
            None
        }
    }
}

fn read_external_nodes(spec: &Fields<'_>, problems: &mut Problems) -> Option<Vec<IpNet>> {
    let (key, display) = ("externalNodesList", "ExternalNodesList");
    let texts = spec.texts(key, display, problems);
    spec.any(key).filter(|value| value.is_array())?;
    let mut ranges = Vec::new();
    for (index, text) in texts.into_iter().enumerate() {
        match cidr::parse_range(text) {
            Ok(range) => ranges.push(range),
            Err(why) => problems.add(
                FieldError::new(
                    spec.path(&format!("{display}[{index}]")),
                    "must be an IP address or a CIDR",
                )
                .value(text)
                .advice(why.advice("write for example 10.1.0.5 or 10.1.0.0/16")),
            ),
        }
    }
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored(spec: &Value) -> Vec<u8> {
        json!({"metadata": {"name": "default"}, "spec": spec}).to_string().into_bytes()
    }

    fn read(spec: &Value) -> Result<FelixConfiguration, Error> {
        FelixConfiguration::from_json(&stored(spec))
    }

    fn numbers(numbers: &[(&str, u32)]) -> BTreeMap<String, u32> {
        numbers.iter().map(|(field, number)| ((*field).to_owned(), *number)).collect()
    }

    fn pattern(text: &str) -> LinkPattern {
        text.to_owned().try_into().unwrap()
    }

    #[test]
    fn a_pattern_is_kept_as_its_text() {
        let links = pattern("^eth[0-9]$");
        assert!(links.is_match("eth0") && !links.is_match("eth0.5"));
        assert_eq!(serde_json::to_value(&links).unwrap(), json!("^eth[0-9]$"));
        assert_eq!(serde_json::from_value::<LinkPattern>(json!("^eth[0-9]$")).unwrap(), links);
        assert_ne!(links, pattern("^eth"));
        serde_json::from_value::<LinkPattern>(json!("eth(")).unwrap_err();
    }

    #[test]
    fn all_fields_are_read() {
        let spec = json!({
            "vxlanEnabled": true, "vxlanVNI": 16_777_215, "vxlanPort": 65535, "vxlanMTU": 1450,
            "vxlanMTUV6": 1430, "ipipEnabled": false, "ipipMTU": 0,
            "mtuIfacePattern": "^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)",
            "externalNodesList": ["10.0.0.5", "10.1.2.3/16", "fd00::/64"],
            "bpfEnabled": "maybe", "later": {}
        });
        let ranges = ["10.0.0.5/32", "10.1.0.0/16", "fd00::/64"];
        let expected = FelixConfiguration {
            flags: [("vxlanEnabled".to_owned(), true)].into(),
            numbers: numbers(&[
                ("vxlanVNI", 16_777_215),
                ("vxlanPort", 65535),
                ("vxlanMTU", 1450),
                ("vxlanMTUV6", 1430),
                ("ipipMTU", 0),
            ]),
            mtu_interface_pattern: Some(pattern(
                "^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)",
            )),
            external_nodes: Some(ranges.map(|range| range.parse().unwrap()).into()),
        };
        assert_eq!(read(&spec).unwrap(), expected);
        let unset = json!({"vxlanEnabled": null, "vxlanVNI": null, "mtuIfacePattern": "",
            "externalNodesList": null});
        assert_eq!(read(&unset).unwrap(), FelixConfiguration::default());
        let none = FelixConfiguration { external_nodes: Some(vec![]), ..Default::default() };
        assert_eq!(read(&json!({"externalNodesList": []})).unwrap(), none);
    }

    #[test]
    fn what_no_tunnel_can_have_is_refused() {
        let cases = [
            (json!({"vxlanVNI": 0}), "VXLANVNI = '0' (must be a number from 1 to 16777215)"),
            (json!({"vxlanVNI": 16_777_216}), "VXLANVNI = '16777216'"),
            (json!({"vxlanPort": 65536}), "VXLANPort = '65536' (must be a number from 1 to 65535)"),
            (json!({"vxlanPort": "4789"}), "VXLANPort = '4789' (must be a whole number, not text)"),
            (json!({"vxlanMTU": 67}), "VXLANMTU = '67' (must be a number from 68 to 65535, or 0)"),
            (json!({"vxlanMTUV6": 1279}), "VXLANMTUV6 = '1279' (must be a number from 1280"),
            (json!({"ipipMTU": -1}), "IPIPMTU = '-1'"),
            (json!({"vxlanEnabled": "yes"}), "VXLANEnabled = 'yes' (must be true or false"),
            (json!({"mtuIfacePattern": "eth("}), "MTUIfacePattern = 'eth(' (not a regular"),
            (json!({"externalNodesList": "10.0.0.1"}), "ExternalNodesList = '10.0.0.1'"),
            (
                json!({"externalNodesList": ["10.0.0.1", "router"]}),
                "ExternalNodesList[1] = 'router' (must be an IP address or a CIDR)",
            ),
        ];
        for (spec, problem) in cases {
            let error = read(&spec).unwrap_err().to_string();
            let problem = format!("error with field FelixConfiguration.Spec.{problem}");
            assert!(error.starts_with(&problem), "{spec}: {error}");
        }
        let nameless = FelixConfiguration::from_json(br#"{"metadata":{"name":"n1"},"spec":{}}"#);
        let error = nameless.unwrap_err().to_string();
        assert!(error.contains("a FelixConfiguration is called default, or node."), "{error}");
    }

    #[test]
    fn a_wrong_field_of_a_store_takes_no_other_away() {
        let spec =
            json!({"vxlanVNI": 5000, "vxlanPort": 0, "externalNodesList": ["x", "10.0.0.1"]});
        let (configuration, flaw) = FelixConfiguration::for_tunnels(&stored(&spec)).unwrap();
        let expected = FelixConfiguration {
            numbers: numbers(&[("vxlanVNI", 5000)]),
            external_nodes: Some(vec!["10.0.0.1/32".parse().unwrap()]),
            ..FelixConfiguration::default()
        };
        assert_eq!(configuration, expected);
        let flaw = flaw.unwrap().to_string();
        assert_eq!(flaw.matches("VXLANPort = '0'").count(), 1, "two kinds read it: {flaw}");
        assert!(flaw.contains("List[0] = 'x'"), "{flaw}");
        for value in ["{", "[]", r#"{"spec":{}}"#, r#"{"metadata":{"name":"default"},"spec":1}"#] {
            FelixConfiguration::for_tunnels(value.as_bytes()).unwrap_err();
        }
    }
}
