//! An attachment, from a result and the configuration.

use std::path::Path;

use weir_common::cni::skeleton::Call;
use weir_common::cni::{AddResult, Code, Error, Interface, IpConfiguration, Route, first_dns};
use weir_common::network::{
    Attachment, AttachmentRequest, HOST_MAC, InvalidAttachment, MacAddress, RequestedRoute,
};
use weir_kernel::is_same_namespace;

use crate::identity_of;

/// The attachment that a result of the IPAM plugin asks for, with an MTU in
/// bytes.
///
/// # Errors
/// When the result cannot be fulfilled.
pub fn attachment(call: &Call, result: &AddResult, mtu: u32) -> Result<Attachment, Error> {
    let default_routes = result.routes.is_empty() || call.configuration.include_default_routes;
    with_default_routes(call, result, mtu, default_routes)
}

/// As [`attachment`], where it is known whether each family gets a default route.
///
/// # Errors
/// Likewise.
pub fn with_default_routes(
    call: &Call,
    result: &AddResult,
    mtu: u32,
    default_routes: bool,
) -> Result<Attachment, Error> {
    let configuration = &call.configuration;
    Attachment::new(AttachmentRequest {
        identity: identity_of(call)?,
        addresses: result.ips.iter().map(|ip| ip.address.addr()).collect(),
        mtu,
        mac: configuration.mac,
        allow_ip_forwarding: forwarding(call),
        routes: result.routes.iter().map(requested_route).collect(),
        default_routes,
        gateways: result.ips.iter().filter_map(|ip| ip.gateway).collect(),
    })
    .map_err(|error| match error {
        InvalidAttachment::Scope { .. } => Error::caused(Code::UnsupportedField, &error),
        _ => Error::caused(Code::InvalidConfiguration, &error),
    })
}

/// Whether the container may forward; `None` where that is the node's to say, because
/// its namespace is the node's own.
pub fn forwarding(call: &Call) -> Option<bool> {
    let environment = &call.environment;
    let is_nodes = environment.netns_override
        && is_same_namespace(Path::new(&environment.netns)).unwrap_or_default();
    (!is_nodes).then_some(call.configuration.allow_ip_forwarding)
}

fn requested_route(route: &Route) -> RequestedRoute {
    RequestedRoute {
        destination: route.dst,
        mtu: route.mtu,
        advmss: route.advmss,
        priority: route.priority,
        table: route.table,
        scope: route.scope,
        has_next_hop: route.gw.is_some(),
    }
}

/// What ADD answers: both ends of the veth, each address on the container's,
/// behind what plugins before this one did. The resolver's settings are the
/// configuration's, else the IPAM plugin's, else those of plugins before.
pub fn result(call: &Call, attachment: &Attachment, ipam: AddResult) -> AddResult {
    let before = call.configuration.prev_result.clone().unwrap_or_default();
    let container = before.interfaces.len() + 1;
    let (identity, mtu) = (attachment.identity(), attachment.mtu());
    let own = [
        interface(&identity.host_interface(), HOST_MAC, "", mtu),
        interface(identity.interface(), attachment.container_mac(), &call.environment.netns, mtu),
    ];
    let ips = ipam.ips.iter().map(|ip| IpConfiguration {
        address: ip.address.addr().into(),
        // Plugins that add routes of their own (sbr) go by it, and the IPAM plugin may
        // look for its own at CHECK (static).
        gateway: Some(attachment.gateway(ip.address.addr(), ip.gateway)),
        interface: Some(container),
    });
    AddResult {
        interfaces: before.interfaces.into_iter().chain(own).collect(),
        ips: before.ips.into_iter().chain(ips).collect(),
        routes: before.routes.into_iter().chain(ipam.routes).collect(),
        dns: first_dns([call.configuration.dns.clone().unwrap_or_default(), ipam.dns, before.dns]),
        pools: None,
        cluster: None,
    }
}

fn interface(name: &str, mac: MacAddress, sandbox: &str, mtu: u32) -> Interface {
    Interface {
        name: name.to_owned(),
        mac: mac.to_string(),
        sandbox: sandbox.to_owned(),
        mtu: Some(mtu),
        socket_path: String::new(),
        pci_id: String::new(),
        unknown: serde_json::Map::new(),
    }
}
