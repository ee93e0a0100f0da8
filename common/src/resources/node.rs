//! Nodes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::error::{Error, FieldError};
use super::fields::{self, Fields, Problems};
use super::types::display;
use super::{as_number, cidr};
use crate::link::MacAddress;
use crate::tunnel::TunnelKind;

/// Where a node names its addresses.
const ADDRESSES: [&str; 2] = ["Node.Spec.BGP.IPv4Address", "Node.Spec.BGP.IPv6Address"];

/// A node, read as far as the ways to it depend on it.
#[derive(Debug)]
pub struct NodeForRoutes {
    /// The node; fields that cannot be read count as absent.
    pub node: Node,
    /// Whether its IPv4 address is wrong, and whether its IPv6 address is.
    pub wrong: [bool; 2],
    /// All that is wrong.
    pub flaw: Option<Error>,
}

/// A node, as validated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The name under which it is stored and by which blocks know it.
    pub name: String,
    /// What node selectors look at.
    pub labels: BTreeMap<String, String>,
    /// Its IPv4 address with the prefix length of its subnet; the host bits
    /// are the address. Without a prefix length it was written as a /32.
    pub ipv4_address: Option<IpNet>,
    /// Its IPv6 address, likewise.
    pub ipv6_address: Option<IpNet>,
    /// The addresses of its tunnel devices.
    pub tunnel_addresses: BTreeMap<TunnelKind, IpAddr>,
    /// The hardware addresses of its tunnel devices, where they do not follow from its name.
    pub tunnel_macs: BTreeMap<TunnelKind, MacAddress>,
    /// Its own AS number, where it is not the cluster's.
    pub as_number: Option<u32>,
    /// The cluster id by which it reflects routes; without one it is no route reflector.
    pub route_reflector_cluster_id: Option<Ipv4Addr>,
}

impl Node {
    /// Reads a node from its stored JSON (v3). Unknown fields are passed
    /// over.
    ///
    /// # Errors
    /// [`Error::NotJson`], [`Error::NotAnObject`], or [`Error::Invalid`] with
    /// everything that is wrong.
    pub fn from_json(value: &[u8]) -> Result<Self, Error> {
        Self::from_object(&fields::object("Node", value)?)
    }

    /// As [`Node::from_json`], from JSON that is parsed already.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything that is wrong.
    pub fn from_object(object: &Map<String, Value>) -> Result<Self, Error> {
        let mut problems = Problems::default();
        let node = Self::read(object, &mut problems);
        problems.into_result(Some(node))
    }

    /// Reads a node for the ways to it. An address that is wrong does not take the
    /// other one away, and what is wrong besides takes none away.
    ///
    /// # Errors
    /// As [`Node::from_json`], when both addresses are wrong.
    pub fn for_routes(value: &[u8]) -> Result<NodeForRoutes, Error> {
        let object = fields::object("Node", value)?;
        let mut problems = Problems::default();
        let node = Self::read(&object, &mut problems);
        let wrong = ADDRESSES.map(|field| problems.refuse(&[field]).is_err());
        if wrong == [true, true] {
            problems.refuse(&ADDRESSES)?;
        }
        Ok(NodeForRoutes { node, wrong, flaw: problems.into_error() })
    }

    fn read(object: &Map<String, Value>, problems: &mut Problems) -> Self {
        let resource = Fields::new(object, "");
        let name = fields::name(&resource, problems);
        let labels = resource
            .object("metadata", "Metadata", problems)
            .text_map("labels", "Labels", problems);
        let spec = resource.object("spec", "Node.Spec", problems);
        let bgp = spec.object("bgp", "BGP", problems);
        let mut tunnel_addresses = BTreeMap::new();
        let mut tunnel_macs = BTreeMap::new();
        for kind in TunnelKind::ALL {
            let address = tunnel_address(kind, &spec, problems);
            tunnel_addresses.extend(address.map(|address| (kind, address)));
            tunnel_macs.extend(tunnel_mac(kind, &spec, problems).map(|mac| (kind, mac)));
        }
        Self {
            name: name.unwrap_or_default(),
            labels,
            ipv4_address: address("ipv4Address", "IPv4Address", 4, &bgp, problems),
            ipv6_address: address("ipv6Address", "IPv6Address", 6, &bgp, problems),
            tunnel_addresses,
            tunnel_macs,
            as_number: as_number::read(&bgp, "asNumber", "ASNumber", problems),
            route_reflector_cluster_id: bgp.parsed(
                "routeReflectorClusterID",
                "RouteReflectorClusterID",
                "must be an IPv4 address, as 244.0.0.1",
                problems,
            ),
        }
    }
}

/// Reads the address of a node's tunnel device.
fn tunnel_address(kind: TunnelKind, spec: &Fields<'_>, problems: &mut Problems) -> Option<IpAddr> {
    let (key, parents) = kind.row().address_field.split_last()?;
    let (mut inner, display) = (None, display(key));
    for parent in parents {
        inner =
            Some(inner.as_ref().unwrap_or(spec).object(parent, &self::display(parent), problems));
    }
    let fields = inner.as_ref().unwrap_or(spec);
    if kind.row().is_ipv6 {
        let address: Option<Ipv6Addr> =
            fields.parsed(key, &display, "must be an IPv6 address", problems);
        return address.map(IpAddr::V6);
    }
    let address: Option<Ipv4Addr> =
        fields.parsed(key, &display, "must be an IPv4 address", problems);
    address.map(IpAddr::V4)
}

/// Reads the hardware address of a node's tunnel device.
fn tunnel_mac(kind: TunnelKind, spec: &Fields<'_>, problems: &mut Problems) -> Option<MacAddress> {
    let key = kind.row().frames()?.mac_field;
    spec.parsed(key, &display(key), "must be a hardware address, as 66:0a:1b:2c:3d:4e", problems)
}

/// Checks what Calico refuses of a node that is written, though it could read
/// it (`libcalico-go/lib/validator/v3`, validateNodeSpec).
///
/// # Errors
/// [`Error::Invalid`] for a `bgp` with nothing in it.
pub(super) fn check_written(object: &Map<String, Value>) -> Result<(), Error> {
    let mut problems = Problems::default();
    let bgp = object.get("spec").and_then(|spec| spec.get("bgp")).and_then(Value::as_object);
    if bgp.is_some_and(Map::is_empty) {
        problems.add(
            FieldError::new("Node.Spec.BGP", "Spec.BGP should not be empty")
                .advice("leave it out, or add ipv4Address"),
        );
    }
    problems.into_result(Some(()))
}

/// Reads an address with or without a prefix length.
fn address(
    key: &str,
    display: &str,
    family: u8,
    bgp: &Fields<'_>,
    problems: &mut Problems,
) -> Option<IpNet> {
    let text = bgp.text(key, display, problems)?;
    let parsed: Option<IpNet> =
        cidr::parse(text).ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let of_family = parsed.filter(|address| address.addr().is_ipv4() == (family == 4));
    if of_family.is_none() {
        let example = if family == 4 { "172.16.1.11/24" } else { "2001:db8::1/64" };
        problems.add(
            FieldError::new(bgp.path(display), format!("must be an IPv{family} address"))
                .value(text)
                .advice(format!("write the address and its subnet's length, as {example}")),
        );
    }
    of_family
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stored(bgp: Value) -> Result<Node, Error> {
        let node =
            json!({"metadata": {"name": "n1", "labels": {"zone": "a"}}, "spec": {"bgp": bgp}});
        Node::from_json(node.to_string().as_bytes())
    }

    #[test]
    fn addresses_keep_their_host_bits() {
        let node = stored(json!({
            "ipv4Address": "172.16.1.11/24", "ipv6Address": "2001:db8::1",
            "ipv4IPIPTunnelAddr": "10.1.0.1", "asNumber": "1.10",
            "routeReflectorClusterID": "244.0.0.1"
        }))
        .unwrap();
        assert_eq!(node.name, "n1");
        assert_eq!(node.labels["zone"], "a");
        assert_eq!(node.ipv4_address.unwrap().to_string(), "172.16.1.11/24");
        assert_eq!(node.ipv6_address.unwrap().to_string(), "2001:db8::1/128");
        assert_eq!(node.tunnel_addresses[&TunnelKind::Ipip], Ipv4Addr::new(10, 1, 0, 1));
        assert_eq!(node.as_number, Some(65546));
        assert_eq!(node.route_reflector_cluster_id, Some(Ipv4Addr::new(244, 0, 0, 1)));
    }

    #[test]
    fn the_addresses_of_vxlan_stand_beside_bgp() {
        let node = json!({"metadata": {"name": "n1"}, "spec": {
            "ipv4VXLANTunnelAddr": "10.2.0.1", "vxlanTunnelMACAddr": "66:01:02:03:04:05",
            "ipv6VXLANTunnelAddr": "fd00::1",
        }});
        let node = Node::from_json(node.to_string().as_bytes()).unwrap();
        let [v4, v6] = ["10.2.0.1", "fd00::1"].map(|address| address.parse::<IpAddr>().unwrap());
        let addresses = [(TunnelKind::Vxlan, v4), (TunnelKind::VxlanV6, v6)];
        assert_eq!(node.tunnel_addresses, BTreeMap::from(addresses));
        let mac = MacAddress([0x66, 1, 2, 3, 4, 5]);
        assert_eq!(node.tunnel_macs, BTreeMap::from([(TunnelKind::Vxlan, mac)]));
    }

    #[test]
    fn a_node_without_bgp_has_no_addresses() {
        let node = Node::from_json(br#"{"metadata":{"name":"n1"},"spec":{}}"#).unwrap();
        assert_eq!(node, Node { name: "n1".into(), ..Node::default() });
    }

    #[test]
    fn wrong_values_are_named() {
        let cases = [
            (json!({"ipv4Address": "2001:db8::1/64"}), "Node.Spec.BGP.IPv4Address"),
            (json!({"ipv6Address": "172.16.1.11"}), "Node.Spec.BGP.IPv6Address"),
            (json!({"ipv4IPIPTunnelAddr": "10.1.0.1/32"}), "Node.Spec.BGP.IPv4IPIPTunnelAddr"),
            (json!({"asNumber": -1}), "Node.Spec.BGP.ASNumber"),
            (json!({"asNumber": "65536.1"}), "Node.Spec.BGP.ASNumber"),
            (json!({"routeReflectorClusterID": 1}), "Node.Spec.BGP.RouteReflectorClusterID"),
        ];
        for (bgp, field) in cases {
            match stored(bgp.clone()) {
                Err(Error::Invalid(fields)) => assert_eq!(fields[0].field, field),
                other => panic!("{bgp}: {other:?}"),
            }
        }
    }
}
