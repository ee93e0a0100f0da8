//! CreateEndpoint, Join, Leave and DeleteEndpoint: a container's interface.
//!
//! The host's side is that of an ADD. The container's end stays on the node under a name of its
//! own until dockerd moves it, and gives it the addresses and routes that Join answers.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Value, json};
use weir_common::cni;
use weir_common::datastore::{Selection, keys};
use weir_common::ipam::docker::{
    DOCKER_INTERFACE, DOCKER_NETWORK, EndpointFacts, endpoint, hand_over,
};
use weir_common::ipam::{Error, read_pools};
use weir_common::link::{MacAddress, SourceCheck};
use weir_common::network::{
    Attachment, AttachmentIdentity, AttachmentRequest, LONGEST_SANDBOX, Mtu, MtuSource, Sandbox,
    plan_host_side,
};
use weir_common::resources::IpPool;
use weir_kernel::{Applied, Kernel, has_link};
use weir_process::{AttachmentLocks, DEFAULT_LOCK_FILE, KeptNode, Limit, Lock, WORK, within_ipam};

use super::driver::Driver;
use super::error::DriverError;
use super::front::Front;
use super::networks::{DockerNetwork, checked_id};
use super::protocol::{
    EndpointCall, EndpointInterface, InterfaceName, JoinAnswer, JoinRoute, ROUTE_BY_NEXT_HOP,
    ROUTE_ON_LINK,
};
use super::workloads::WorkloadFacts;

/// How many digits of an endpoint's id the container's end is named by on the node.
const DIGITS: usize = 11;

impl Driver {
    /// Gives the endpoint its addresses and its veth. One that is in a container already stays
    /// as it is; any other is made again.
    pub(super) async fn create_endpoint(&self, call: EndpointCall) -> Result<Value, DriverError> {
        let limit = Limit::of(WORK);
        let network = self.network(&call.network_id)?;
        let identity = identity_of(&call.endpoint_id)?;
        let addresses = addresses_of(&call.interface)?;
        let given = mac_of(&call.interface)?;
        let node = self.kept_node()?;
        let _lock = lock(&identity, limit).await?;
        let kernel = Kernel::open()?;
        let attachment = Attachment::new(AttachmentRequest {
            identity,
            addresses,
            mtu: mtu(network.mtu.or(self.mtu), &node, &kernel).await?,
            mac: given,
            // The container's side is dockerd's.
            allow_ip_forwarding: None,
            source_check: SourceCheck::Strict,
            allowed_sources: BTreeSet::new(),
            routes: Vec::new(),
            default_routes: false,
            gateways: Vec::new(),
        });
        let attachment = attachment?.seen_from(node.sources());
        self.hand_over_to(&attachment, &call.network_id, limit).await?;
        // Before the link: one that is left would keep the addresses that dockerd gives back.
        self.record_workload(&WorkloadFacts {
            network_id: &call.network_id,
            identity: attachment.identity(),
            addresses: attachment.addresses(),
            mac: attachment.container_mac(),
        })
        .await?;
        if let Err(error) = self.make_interface((&kernel, &node), &attachment, limit).await {
            // In a container already, it is in use whatever failed now.
            if kernel.has_host_end(attachment.identity()).await.is_ok_and(|has| !has) {
                self.forget_workload(&call.endpoint_id).await?;
            }
            return Err(error);
        }
        let mac = attachment.container_mac().to_string();
        // Only what dockerd has left open may be answered.
        let interface = if given.is_some() { json!({}) } else { json!({ "MacAddress": mac }) };
        Ok(json!({ "Interface": interface }))
    }

    /// Tells dockerd which link it moves into the container and what routes that gets, and
    /// records where it goes.
    pub(super) async fn join(
        &self,
        front: Front,
        call: EndpointCall,
    ) -> Result<JoinAnswer, DriverError> {
        let limit = Limit::of(WORK);
        let network = self.network(&call.network_id)?;
        let identity = identity_of(&call.endpoint_id)?;
        let sandbox = Sandbox { id: sandbox_of(&call.sandbox_key)?, network: call.network_id };
        let _lock = lock(&identity, limit).await?;
        let kernel = Kernel::open()?;
        let link = link_name(&call.endpoint_id);
        if !kernel.has_host_end(&identity).await? || !has_link(&link)? {
            return Err(DriverError::new(format!(
                "endpoint {} has no interface to give to a container (link {link}); disconnect \
                 the container from the network and connect it again",
                call.endpoint_id
            )));
        }
        kernel.record_sandbox(&identity, Some(&sandbox)).await?;
        let others = self.other_networks(&kernel, &sandbox).await?;
        if !others.is_empty() {
            weir_ipam::allow_sources(&kernel, &identity, limit).await?;
        }
        let routed: Vec<IpNet> = others.into_iter().flat_map(|other| other.ranges).collect();
        let interface_name =
            InterfaceName { src_name: link, dst_prefix: self.interface_prefix(front).to_owned() };
        let next_hops = (identity.arp_source(), identity.gateway_v6());
        Ok(answer_of(interface_name, &network, next_hops, &routed))
    }

    /// The interface is in no container any more: dockerd takes it back, and what the container
    /// sends by its others may not come from its addresses.
    pub(super) async fn leave(&self, call: EndpointCall) -> Result<(), DriverError> {
        let limit = Limit::of(WORK);
        let identity = identity_of(&call.endpoint_id)?;
        let _lock = lock(&identity, limit).await?;
        let kernel = Kernel::open()?;
        if !kernel.has_host_end(&identity).await? {
            return Ok(());
        }
        kernel.record_sandbox(&identity, None).await?;
        Ok(weir_ipam::part_sources(&kernel, Some(&identity), limit).await?)
    }

    /// Takes the veth away with all that belongs to it. The addresses dockerd gives back itself.
    pub(super) async fn delete_endpoint(&self, call: EndpointCall) -> Result<(), DriverError> {
        let limit = Limit::of(WORK);
        let identity = identity_of(&call.endpoint_id)?;
        let _lock = lock(&identity, limit).await?;
        let unpublished = self.forget_ports(&call.endpoint_id).await;
        let kernel = Kernel::open()?;
        let addresses = weir_ipam::remove(&kernel, &identity).await?;
        let parted = weir_ipam::part_sources(&kernel, Some(&identity), limit).await;
        weir_ipam::forget_released(&kernel, addresses).await;
        parted?;
        unpublished?;
        self.forget_workload(&call.endpoint_id).await
    }

    pub(super) async fn endpoint_info(&self, call: EndpointCall) -> Result<Value, DriverError> {
        let endpoint = checked_id("endpoint", &call.endpoint_id)?;
        Ok(json!({ "Value": self.published_info(endpoint)? }))
    }

    /// The networks that a sandbox is in besides this one.
    async fn other_networks(
        &self,
        kernel: &Kernel,
        sandbox: &Sandbox,
    ) -> Result<Vec<DockerNetwork>, DriverError> {
        let mut others = Vec::new();
        for network in self.networks()?.into_iter().filter(|it| *it != sandbox.network) {
            let other = Sandbox { id: sandbox.id.clone(), network };
            if kernel.has_sandbox(&other).await? {
                others.push(self.network(&other.network)?);
            }
        }
        Ok(others)
    }

    /// Who keeps the node.
    ///
    /// # Errors
    /// Its agent does so under another name.
    fn kept_node(&self) -> Result<KeptNode, DriverError> {
        let kept = KeptNode::find(self.place.clone());
        match kept.named_otherwise(&self.node) {
            None => Ok(kept),
            Some(agent) => Err(DriverError::new(format!(
                "this driver calls the node {}, but its agent runs as {} (from {}); give both one \
                 name, and restart the one whose name changes",
                self.node, agent.name, agent.source
            ))),
        }
    }

    /// Makes the waiting addresses the endpoint's.
    async fn hand_over_to(
        &self,
        attachment: &Attachment,
        network: &str,
        limit: Limit,
    ) -> Result<(), DriverError> {
        let assignee = endpoint(&self.node, attachment.identity().container_id());
        let assignee = assignee.on(self.machine.clone());
        let _lock = Lock::wait(Path::new(DEFAULT_LOCK_FILE), limit).await?;
        let (mac, now) = (attachment.container_mac(), Timestamp::now());
        let facts = EndpointFacts { network, mac, now };
        let datastore = self.datastore.as_ref();
        let handing = async {
            let handed = hand_over(datastore, &assignee, attachment.addresses(), facts).await;
            handed.map_err(cni::Error::from)
        };
        let handed = within_ipam("giving the endpoint its addresses", limit, handing).await;
        Ok(handed.map(|_| ())?)
    }

    /// Makes the host's side of the attachment, or leaves everything as it was.
    async fn make_interface(
        &self,
        (kernel, node): (&Kernel, &KeptNode),
        attachment: &Attachment,
        limit: Limit,
    ) -> Result<(), DriverError> {
        let identity = attachment.identity();
        let link = link_name(identity.container_id());
        if kernel.has_host_end(identity).await? && !has_link(&link)? {
            return Ok(());
        }
        // Before the container can send anything.
        weir_ipam::ensure_source_filter(kernel, limit).await?;
        let applied = kernel.apply(&plan_host_side(attachment, &link)).await?;
        if !node.by_agent {
            self.make_node((kernel, node), attachment, (applied, limit)).await?;
        }
        let (endpoint, addresses) = (identity.container_id(), attachment.addresses());
        tracing::info!(host_interface = identity.host_interface(), endpoint, ?addresses, "made");
        Ok(())
    }

    /// Gives the node what its attachments need, where no agent sees to it.
    async fn make_node(
        &self,
        (kernel, node): (&Kernel, &KeptNode),
        attachment: &Attachment,
        (applied, limit): (Applied, Limit),
    ) -> Result<(), DriverError> {
        let planned = async {
            let nat = node.nat(Some(&self.pools(limit).await?));
            let families = attachment.families();
            Ok::<_, DriverError>(weir_ipam::plan_of_node(kernel, families, nat, limit).await?)
        };
        match planned.await {
            Ok((steps, _lock)) => {
                let _ = kernel.apply_after(applied, &steps).await?;
                Ok(())
            }
            Err(error) => {
                let left = kernel.undo(applied).await;
                let left = left.iter().map(|it| format!("; and it could not be undone: {it}"));
                Err(DriverError::new(format!("{error}{}", left.collect::<String>())))
            }
        }
    }

    /// The pools, for the node's NAT.
    async fn pools(&self, limit: Limit) -> Result<Vec<IpPool>, DriverError> {
        let reading = async {
            let selection = Selection::Prefix(keys::POOLS.to_owned());
            let read = self.datastore.read(&[selection]).await;
            read.map_err(|error| cni::Error::caused(cni::Code::TryAgainLater, &error))
        };
        let snapshot = within_ipam("reading the pools", limit, reading).await?;
        let pools = read_pools(snapshot.entries(0))
            .map_err(|error| cni::Error::from(Error::from(error)))?;
        Ok(pools.into_iter().map(|pool| pool.value).collect())
    }
}

/// The attachment of an endpoint.
///
/// # Errors
/// The id is none of Docker's.
pub(super) fn identity_of(endpoint: &str) -> Result<AttachmentIdentity, DriverError> {
    let endpoint = checked_id("endpoint", endpoint)?;
    Ok(AttachmentIdentity::new(DOCKER_NETWORK, endpoint, DOCKER_INTERFACE)?)
}

/// What the container's end is called as long as it is on the node; `endpoint` is a sound id.
fn link_name(endpoint: &str) -> String {
    format!("temp{}", &endpoint[..DIGITS])
}

fn addresses_of(interface: &EndpointInterface) -> Result<Vec<IpAddr>, DriverError> {
    let given =
        [&interface.address, &interface.address_ipv6].into_iter().filter(|it| !it.is_empty());
    let addresses = given.map(|text| match text.parse::<IpNet>() {
        Ok(address) => Ok(address.addr()),
        Err(_) => Err(DriverError::new(format!(
            "address {text:?} of the endpoint is not written as 10.9.0.7/32"
        ))),
    });
    addresses.collect()
}

fn mac_of(interface: &EndpointInterface) -> Result<Option<MacAddress>, DriverError> {
    let given = Some(interface.mac_address.as_str()).filter(|text| !text.is_empty());
    Ok(given.map(str::parse).transpose()?)
}

/// The id of a container's sandbox: the last part of its namespace's path.
fn sandbox_of(key: &str) -> Result<String, DriverError> {
    let id = key.rsplit('/').next().unwrap_or_default();
    let is_id = !id.is_empty()
        && id.len() <= LONGEST_SANDBOX
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let shown: String = key.chars().take(2 * LONGEST_SANDBOX).collect();
    is_id.then(|| id.to_owned()).ok_or_else(|| {
        DriverError::new(format!(
            "SandboxKey {shown:?} is not the path of a network namespace of Docker's, as \
             /var/run/docker/netns/0123456789ab"
        ))
    })
}

/// The MTU that is asked for, else what is known from the cluster, else the node's.
async fn mtu(
    configured: Option<u32>,
    node: &KeptNode,
    kernel: &Kernel,
) -> Result<Mtu, DriverError> {
    match configured.map(Mtu::configured).or(node.pod_mtu()) {
        Some(mtu) => Ok(mtu),
        None => {
            let bytes = kernel.uplink_mtu().await?;
            Ok(Mtu { bytes, source: MtuSource::Uplink })
        }
    }
}

/// What Join answers. The container may be in other networks, by which it has routes to the
/// pools that are `routed` already: dockerd cannot add one twice. To its own pools it gets
/// routes besides the default one, so that it answers their containers by this interface
/// whichever network has the default route.
fn answer_of(
    interface_name: InterfaceName,
    network: &DockerNetwork,
    (v4, v6): (Ipv4Addr, Ipv6Addr),
    routed: &[IpNet],
) -> JoinAnswer {
    let on_link = |address: IpAddr| JoinRoute {
        destination: IpNet::from(address).to_string(),
        route_type: ROUTE_ON_LINK,
        next_hop: String::new(),
    };
    // That of IPv4 is also where the node's ARP requests come from.
    let next_hops = [(network.ipv4, IpAddr::V4(v4)), (network.ipv6, IpAddr::V6(v6))];
    let mut static_routes: Vec<JoinRoute> =
        next_hops.into_iter().filter(|(has, _)| *has).map(|(_, it)| on_link(it)).collect();
    let ranges: BTreeSet<&IpNet> = network.ranges.iter().collect();
    let own = ranges.into_iter().filter(|range| !routed.contains(range));
    static_routes.extend(own.map(|range| JoinRoute {
        destination: range.to_string(),
        route_type: ROUTE_BY_NEXT_HOP,
        next_hop: match range {
            IpNet::V4(_) => v4.to_string(),
            IpNet::V6(_) => v6.to_string(),
        },
    }));
    let [gateway, gateway_ipv6] =
        next_hops.map(
            |(has, address)| {
                if has && !network.internal { address.to_string() } else { String::new() }
            },
        );
    JoinAnswer {
        interface_name,
        gateway,
        gateway_ipv6,
        static_routes,
        disable_gateway_service: true,
    }
}

async fn lock(identity: &AttachmentIdentity, limit: Limit) -> Result<AttachmentLocks, DriverError> {
    let locks = AttachmentLocks::open()?;
    locks.wait(identity.lock_number(), limit).await?;
    Ok(locks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(network: &DockerNetwork, routed: &[&str]) -> (String, String, Vec<String>) {
        let name = InterfaceName { src_name: "temp".to_owned(), dst_prefix: "eth".to_owned() };
        let routed: Vec<IpNet> = routed.iter().map(|range| range.parse().unwrap()).collect();
        let answer = answer_of(
            name,
            network,
            ("169.254.200.7".parse().unwrap(), "fe80::7".parse().unwrap()),
            &routed,
        );
        let text = |route: JoinRoute| format!("{} {}", route.destination, route.next_hop);
        let routes = answer.static_routes.into_iter().map(text).collect();
        (answer.gateway, answer.gateway_ipv6, routes)
    }

    #[test]
    fn routes_lead_to_the_networks_pools_and_to_the_world_unless_it_is_internal() {
        let ranges = ["10.9.0.0/16", "fd00:9::/64"].map(|range| range.parse().unwrap()).to_vec();
        let both = DockerNetwork { ipv4: true, ipv6: true, ranges, ..DockerNetwork::default() };
        let (v4, v6) = ("169.254.200.7", "fe80::7");
        let next_hops = [format!("{v4}/32 "), format!("{v6}/128 ")];
        let ranges = [format!("10.9.0.0/16 {v4}"), format!("fd00:9::/64 {v6}")];
        let routes = [&next_hops[..], &ranges].concat();
        assert_eq!(joined(&both, &[]), (v4.to_owned(), v6.to_owned(), routes.clone()));
        let internal = DockerNetwork { internal: true, ..both.clone() };
        assert_eq!(joined(&internal, &[]), (String::new(), String::new(), routes));
        let beside = joined(&both, &["10.9.0.0/16"]).2;
        assert_eq!(beside, [&next_hops[..], &ranges[1..]].concat());
        let any = DockerNetwork { ipv6: true, ..DockerNetwork::default() };
        assert_eq!(joined(&any, &[]), (String::new(), v6.to_owned(), vec![next_hops[1].clone()]));
    }

    #[test]
    fn a_sandbox_is_the_last_part_of_its_path() {
        let id = |key: &str| sandbox_of(key).ok();
        assert_eq!(id("/var/run/docker/netns/ffd6d385fc62").as_deref(), Some("ffd6d385fc62"));
        for key in ["", "/var/run/docker/netns/", "a:b", "/x/..", "/x/a-b", &"a".repeat(41)] {
            assert_eq!(id(key), None, "{key}");
        }
    }
}
