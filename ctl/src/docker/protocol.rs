//! The calls of dockerd and their answers (libnetwork's `drivers/remote/api/api.go` and
//! `ipams/remote/api/api.go`). Fields that Weir does not need are passed over; whatever may be
//! missing, or `null`, is so here.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::front::PluginInterface;

/// What `null` means where a list or an object is expected: nothing.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A call, by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `Plugin.Activate`
    Activate,
    /// `NetworkDriver.GetCapabilities`
    NetworkCapabilities,
    /// `NetworkDriver.CreateNetwork`
    CreateNetwork,
    /// `NetworkDriver.DeleteNetwork`
    DeleteNetwork,
    /// `NetworkDriver.CreateEndpoint`
    CreateEndpoint,
    /// `NetworkDriver.DeleteEndpoint`
    DeleteEndpoint,
    /// `NetworkDriver.EndpointOperInfo`
    EndpointInfo,
    /// `NetworkDriver.Join`
    Join,
    /// `NetworkDriver.Leave`
    Leave,
    /// `NetworkDriver.ProgramExternalConnectivity`
    Publish,
    /// `NetworkDriver.RevokeExternalConnectivity`
    Unpublish,
    /// What dockerd tells of other nodes and of swarm's networks, which is nothing to Weir.
    Ignored,
    /// `IpamDriver.GetCapabilities`
    IpamCapabilities,
    /// `IpamDriver.GetDefaultAddressSpaces`
    AddressSpaces,
    /// `IpamDriver.RequestPool`
    RequestPool,
    /// `IpamDriver.ReleasePool`
    ReleasePool,
    /// `IpamDriver.RequestAddress`
    RequestAddress,
    /// `IpamDriver.ReleaseAddress`
    ReleaseAddress,
}

impl Method {
    /// The call of this path (`/IpamDriver.RequestPool`), and the interface that it belongs to;
    /// none for `Plugin.Activate`.
    pub fn of_path(path: &str) -> Option<(Self, Option<PluginInterface>)> {
        let name = path.strip_prefix('/')?;
        if name == "Plugin.Activate" {
            return Some((Self::Activate, None));
        }
        let interface = [PluginInterface::Network, PluginInterface::Ipam]
            .into_iter()
            .find(|it| name.strip_prefix(it.name()).is_some_and(|rest| rest.starts_with('.')))?;
        let call = name.strip_prefix(interface.name())?.strip_prefix('.')?;
        let method = match (interface, call) {
            (PluginInterface::Network, "GetCapabilities") => Self::NetworkCapabilities,
            (PluginInterface::Network, "CreateNetwork") => Self::CreateNetwork,
            (PluginInterface::Network, "DeleteNetwork") => Self::DeleteNetwork,
            (PluginInterface::Network, "CreateEndpoint") => Self::CreateEndpoint,
            (PluginInterface::Network, "DeleteEndpoint") => Self::DeleteEndpoint,
            (PluginInterface::Network, "EndpointOperInfo") => Self::EndpointInfo,
            (PluginInterface::Network, "Join") => Self::Join,
            (PluginInterface::Network, "Leave") => Self::Leave,
            (PluginInterface::Network, "ProgramExternalConnectivity") => Self::Publish,
            (PluginInterface::Network, "RevokeExternalConnectivity") => Self::Unpublish,
            (
                PluginInterface::Network,
                "DiscoverNew" | "DiscoverDelete" | "AllocateNetwork" | "FreeNetwork",
            ) => Self::Ignored,
            (PluginInterface::Ipam, "GetCapabilities") => Self::IpamCapabilities,
            (PluginInterface::Ipam, "GetDefaultAddressSpaces") => Self::AddressSpaces,
            (PluginInterface::Ipam, "RequestPool") => Self::RequestPool,
            (PluginInterface::Ipam, "ReleasePool") => Self::ReleasePool,
            (PluginInterface::Ipam, "RequestAddress") => Self::RequestAddress,
            (PluginInterface::Ipam, "ReleaseAddress") => Self::ReleaseAddress,
            _ => return None,
        };
        Some((method, Some(interface)))
    }
}

/// The answer to a call that failed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Refusal {
    /// What failed, on what value, what to do next.
    pub err: String,
}

/// `IpamDriver.RequestPool`: a range of addresses for a network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PoolRequest {
    /// The address space; which one says nothing to Weir.
    pub address_space: String,
    /// `--subnet`; empty without.
    pub pool: String,
    /// `--ip-range`; empty without.
    pub sub_pool: String,
    /// `--ipam-opt`
    #[serde(deserialize_with = "or_default")]
    pub options: BTreeMap<String, String>,
    /// Whether IPv6 is asked for, where `pool` is empty.
    pub v6: bool,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolAnswer {
    /// What dockerd names the range by in later calls.
    #[serde(rename = "PoolID")]
    pub pool_id: String,
    /// Its CIDR.
    #[serde(rename = "Pool")]
    pub pool: String,
    /// What dockerd is told besides: the gateway.
    #[serde(rename = "Data")]
    pub data: BTreeMap<String, String>,
}

/// `IpamDriver.RequestAddress`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AddressRequest {
    /// The range, as [`PoolAnswer::pool_id`].
    #[serde(rename = "PoolID")]
    pub pool_id: String,
    /// The very address that is asked for (`--ip`); empty without.
    pub address: String,
    /// The hardware address, and what the address is for.
    #[serde(deserialize_with = "or_default")]
    pub options: BTreeMap<String, String>,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddressAnswer {
    /// The address with its prefix length.
    #[serde(rename = "Address")]
    pub address: String,
    /// Nothing.
    #[serde(rename = "Data")]
    pub data: BTreeMap<String, String>,
}

/// `IpamDriver.ReleaseAddress`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AddressRelease {
    /// The range, as [`PoolAnswer::pool_id`].
    #[serde(rename = "PoolID")]
    pub pool_id: String,
    /// The address, or the gateway that none has: `0.0.0.0` or `::`.
    pub address: String,
}

/// `NetworkDriver.CreateNetwork`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkRequest {
    /// The network: 64 hexadecimal digits.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// `com.docker.network.internal`, `com.docker.network.generic` (`--opt`), …
    #[serde(deserialize_with = "or_default")]
    pub options: Map<String, Value>,
    /// What the IPAM driver gave for IPv4.
    #[serde(rename = "IPv4Data", deserialize_with = "or_default")]
    pub ipv4_data: Vec<NetworkRange>,
    /// What it gave for IPv6.
    #[serde(rename = "IPv6Data", deserialize_with = "or_default")]
    pub ipv6_data: Vec<NetworkRange>,
}

/// A range of a network, as its IPAM driver gave it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkRange {
    /// The address space, which names the IPAM driver.
    pub address_space: String,
    /// Its CIDR.
    pub pool: String,
    /// The gateway with its prefix length.
    pub gateway: String,
}

/// Calls about an endpoint or a network that need no more than these.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointCall {
    /// The network: 64 hexadecimal digits.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// The endpoint: 64 hexadecimal digits.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// What there is to it at CreateEndpoint.
    #[serde(deserialize_with = "or_default")]
    pub interface: EndpointInterface,
    /// The path of the container's network namespace, at Join.
    pub sandbox_key: String,
    /// Ports that are published, and what else there is.
    #[serde(deserialize_with = "or_default")]
    pub options: Map<String, Value>,
}

/// An endpoint's interface, as dockerd knows it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointInterface {
    /// Its IPv4 address with its prefix length; empty without.
    pub address: String,
    /// Its IPv6 address, likewise.
    #[serde(rename = "AddressIPv6")]
    pub address_ipv6: String,
    /// Its hardware address.
    pub mac_address: String,
}

/// The answer to Join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JoinAnswer {
    /// The link that dockerd moves into the container.
    pub interface_name: InterfaceName,
    /// The next hop of the default route for IPv4; empty for none.
    pub gateway: String,
    /// The same for IPv6.
    #[serde(rename = "GatewayIPv6")]
    pub gateway_ipv6: String,
    /// Routes besides.
    pub static_routes: Vec<JoinRoute>,
    /// Whether dockerd leaves out its own bridge to the world (`docker_gwbridge`).
    pub disable_gateway_service: bool,
}

/// What a link is called, and is to be called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InterfaceName {
    /// Its present name on the node.
    pub src_name: String,
    /// What its name in the container begins with; dockerd adds a number.
    pub dst_prefix: String,
}

/// A route of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JoinRoute {
    /// Where it leads.
    pub destination: String,
    /// [`ROUTE_BY_NEXT_HOP`] or [`ROUTE_ON_LINK`].
    pub route_type: u8,
    /// The next hop; empty for a route on the link.
    pub next_hop: String,
}

/// A route by a next hop (libnetwork's `types.NEXTHOP`).
pub const ROUTE_BY_NEXT_HOP: u8 = 0;
/// A route to what is on the link (`types.CONNECTED`).
pub const ROUTE_ON_LINK: u8 = 1;

/// The key of the gateway among [`PoolAnswer::data`].
pub const GATEWAY: &str = "com.docker.network.gateway";
/// The key of what an address is for among [`AddressRequest::options`].
pub const ADDRESS_TYPE: &str = "RequestAddressType";
/// The key of the hardware address among [`AddressRequest::options`] and
/// [`EndpointCall::options`].
pub const MAC_ADDRESS: &str = "com.docker.network.endpoint.macaddress";
/// The key of the options of a user's (`--opt`) among [`NetworkRequest::options`].
pub const GENERIC: &str = "com.docker.network.generic";
/// The key of whether a network is cut off from others (`--internal`).
pub const INTERNAL: &str = "com.docker.network.internal";
/// The key of published ports among [`EndpointCall::options`].
pub const PORT_MAP: &str = "com.docker.network.portmap";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_missing_options_are_none() {
        for text in [r#"{"PoolID":"p","Options":null}"#, r#"{"PoolID":"p"}"#] {
            let request: AddressRequest = serde_json::from_str(text).unwrap();
            assert!(request.options.is_empty() && request.address.is_empty());
        }
        let call: EndpointCall = serde_json::from_str(r#"{"Interface":null}"#).unwrap();
        assert!(call.interface.address.is_empty());
    }

    #[test]
    fn calls_are_told_apart_by_path() {
        let found = |path| Method::of_path(path);
        assert_eq!(found("/Plugin.Activate"), Some((Method::Activate, None)));
        let ipam = Some(PluginInterface::Ipam);
        assert_eq!(found("/IpamDriver.GetCapabilities"), Some((Method::IpamCapabilities, ipam)));
        for path in ["", "/", "/IpamDriver", "/IpamDriverRequestPool", "/IpamDriver.Join", "/x"] {
            assert_eq!(found(path), None, "{path}");
        }
    }
}
