//! What a call of `weir` comes to: the attachment that a result asks for, what ADD
//! answers, and what CHECK expects.

use weir_common::cni::skeleton::Call;
use weir_common::cni::{AddResult, CniRoute, Code, Error, Interface, IpConfiguration, first_dns};
use weir_common::link::MacAddress;
use weir_common::network::{
    Attachment, AttachmentIdentity, AttachmentRequest, Expected, HOST_MAC, InvalidAttachment, Mtu,
    MtuSource, RequestedRoute,
};

use crate::own_routes::{OwnRoutes, own_routes};

/// An MTU for a plan in which it is not looked at.
const ANY_MTU: Mtu = Mtu { bytes: 1500, source: MtuSource::Uplink };

/// The attachment that a call is about.
///
/// # Errors
/// [`Code::InvalidConfiguration`] when its names are too long together.
pub fn identity_of(call: &Call) -> Result<AttachmentIdentity, Error> {
    let (container_id, interface) = (&call.environment.container_id, &call.environment.interface);
    AttachmentIdentity::new(call.configuration.network.as_str(), container_id, interface)
        .map_err(|error| Error::caused(Code::InvalidConfiguration, &error))
}

/// The attachment that a result of the IPAM plugin asks for, with an MTU.
/// `forwarding` says whether the container may forward; `None` where that is not the
/// call's to say.
///
/// # Errors
/// When the result cannot be fulfilled.
pub fn attachment_of(
    call: &Call,
    result: &AddResult,
    mtu: Mtu,
    forwarding: Option<bool>,
) -> Result<Attachment, Error> {
    let default_routes = result.routes.is_empty() || call.configuration.include_default_routes;
    with_default_routes(call, result, mtu, forwarding, default_routes)
}

fn with_default_routes(
    call: &Call,
    result: &AddResult,
    mtu: Mtu,
    forwarding: Option<bool>,
    default_routes: bool,
) -> Result<Attachment, Error> {
    Attachment::new(AttachmentRequest {
        identity: identity_of(call)?,
        addresses: result.ips.iter().map(|ip| ip.address.addr()).collect(),
        mtu,
        mac: call.configuration.mac,
        allow_ip_forwarding: forwarding,
        source_check: call.configuration.source_check,
        allowed_sources: call.configuration.allowed_sources.clone(),
        routes: result.routes.iter().map(requested_route).collect(),
        default_routes,
        gateways: result.ips.iter().filter_map(|ip| ip.gateway).collect(),
    })
    .map_err(|error| match error {
        InvalidAttachment::Scope { .. } => Error::caused(Code::UnsupportedField, &error),
        _ => Error::caused(Code::InvalidConfiguration, &error),
    })
}

fn requested_route(route: &CniRoute) -> RequestedRoute {
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
pub fn result_of(call: &Call, attachment: &Attachment, ipam: AddResult) -> AddResult {
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

/// What ADD made, by its result, for CHECK. Hardware address and MTU are the result's,
/// which another plugin of the chain may have set; a result below 1.1.0 has no MTU, and the
/// configuration's counts.
///
/// # Errors
/// [`Code::CheckFailed`] when the result has no interface of this container; otherwise as
/// [`attachment_of`].
pub fn expected_of(
    call: &Call,
    result: &AddResult,
    forwarding: Option<bool>,
) -> Result<Expected, Error> {
    let (name, netns) = (&call.environment.interface, &call.environment.netns);
    let index = result.container_interface(name, netns).ok_or_else(|| {
        let message = format!(
            "prevResult has no interface {name} in {netns}; delete and add the container again"
        );
        Error::new(Code::CheckFailed, message)
    })?;
    let mut own = result.clone();
    own.ips.retain(|ip| ip.interface.is_none_or(|of| of == index));
    let configuration = &call.configuration;
    let include = configuration.include_default_routes;
    let OwnRoutes { routes, default_routes } =
        own_routes(configuration.require_ipam()?, include, &result.routes);
    own.routes = routes;
    let mtu = result.interfaces[index].mtu.or(configuration.mtu);
    let attachment = with_default_routes(call, &own, ANY_MTU, forwarding, default_routes)?;
    let mac = result.interfaces[index].mac.parse().ok();
    let host = attachment.identity().host_interface();
    let mut interfaces = result.interfaces.iter();
    let host = interfaces.find(|interface| interface.name == host && interface.sandbox.is_empty());
    let host_mtu = host.and_then(|host| host.mtu).or(configuration.mtu);
    let mut expected = Expected { mtu, host_mtu, ..Expected::of(&attachment) };
    if expected.mac != mac {
        // A later plugin (tuning) changed it, and the kernel forgot the link's neighbours.
        expected.neighbours.clear();
    }
    Ok(Expected { mac, ..expected })
}
