//! Published ports: ProgramExternalConnectivity and RevokeExternalConnectivity.
//!
//! dockerd asks for them for the endpoint by which a container reaches the world, after Join, and
//! takes them back before Leave. What is published is in the kernel alone (table
//! `inet weir-ports`), each port with its endpoint's id.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use weir_common::ipam::docker::{DOCKER_INTERFACE, DOCKER_NETWORK};
use weir_common::network::{
    AttachmentIdentity, MAX_PUBLISHED, PortChange, PortProtocol, PortRefused, PortRequest,
    PublishedPort, plan_ports,
};
use weir_kernel::Kernel;

use super::driver::Driver;
use super::error::DriverError;
use super::protocol::{EndpointCall, PORT_MAP};

/// Held from looking at what is published until it is changed.
static CHANGING: Mutex<()> = Mutex::const_new(());

/// A port in dockerd's calls and answers (libnetwork's `types.PortBinding`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
struct PortBinding {
    /// The protocol's number.
    proto: u8,
    /// The container's address; empty in calls.
    #[serde(rename = "IP")]
    ip: String,
    /// The container's port.
    port: u16,
    /// The node's address; empty for all.
    #[serde(rename = "HostIP")]
    host_ip: String,
    /// The node's port, or the first of a range; 0 for any.
    host_port: u16,
    /// The last of the range.
    host_port_end: u16,
}

impl PortBinding {
    fn request(&self) -> Result<PortRequest, DriverError> {
        let protocol = PortProtocol::of_number(self.proto).ok_or_else(|| {
            DriverError::new(format!(
                "port {} of IP protocol {} cannot be published; tcp, udp and sctp have ports",
                self.port, self.proto
            ))
        })?;
        let host = match self.host_ip.as_str() {
            "" => None,
            text => Some(text.parse::<IpAddr>().map_err(|_| {
                DriverError::new(format!("{text:?} is no address to publish port {} on", self.port))
            })?),
        };
        let last = self.host_port_end.max(self.host_port);
        let host_ports = (self.host_port != 0).then_some(self.host_port..=last);
        Ok(PortRequest { host, protocol, host_ports, container_port: self.port })
    }

    fn of(port: &PublishedPort) -> Self {
        Self {
            proto: port.protocol.number(),
            ip: port.container.to_string(),
            port: port.container_port,
            host_ip: port.host.to_string(),
            host_port: port.host_port,
            host_port_end: port.host_port,
        }
    }
}

impl Driver {
    /// Publishes the ports that the call has for its endpoint, and no others.
    pub(super) async fn publish(&self, call: EndpointCall) -> Result<(), DriverError> {
        let requests = requests(call.options.get(PORT_MAP))?;
        if requests.is_empty() {
            return self.forget_ports(&call.endpoint_id).await;
        }
        let identity = identity(&call.endpoint_id)?;
        let _guard = CHANGING.lock().await;
        let kernel = open()?;
        let published = kernel.published_ports().map_err(|error| failed(&error))?;
        let attached = kernel.attachment_states().await.map_err(|error| failed(&error))?;
        let endpoint = identity.container_id();
        let own = attached.iter().find(|it| it.identity == identity).ok_or_else(|| {
            DriverError::new(format!(
                "endpoint {endpoint} has no interface on this node, so no port leads to it; \
                 disconnect the container from the network and connect it again"
            ))
        })?;
        // What is left of endpoints that are gone is in nobody's way.
        let is_alive = |port: &PublishedPort| {
            attached.iter().any(|it| {
                it.identity.network() == DOCKER_NETWORK
                    && it.identity.container_id() == port.endpoint
            })
        };
        let (alive, dead): (Vec<_>, Vec<_>) = published.iter().cloned().partition(is_alive);
        let used = |port: &PublishedPort| kernel.port_use(port);
        let mut change = plan_ports(endpoint, &requests, &own.addresses, &alive, used)
            .map_err(|refused| refuse(&kernel, &refused))?;
        change.remove.extend(dead);
        let changed = kernel.change_ports(&identity, &change, &published).await;
        changed.map_err(|error| failed(&error))?;
        for port in &change.add {
            let (address, to) = (port.container, port.container_port);
            tracing::info!(%port, %address, to, endpoint, "published");
        }
        Ok(())
    }

    /// Takes the ports of the call's endpoint back.
    pub(super) async fn unpublish(&self, call: EndpointCall) -> Result<(), DriverError> {
        self.forget_ports(&call.endpoint_id).await
    }

    /// Takes the ports of an endpoint back, if it has any, and what the node remembers of their
    /// connections.
    pub(super) async fn forget_ports(&self, endpoint: &str) -> Result<(), DriverError> {
        let identity = identity(endpoint)?;
        let _guard = CHANGING.lock().await;
        let kernel = open()?;
        let published = kernel.published_ports().map_err(|error| failed(&error))?;
        let change = PortChange::without(endpoint, &published);
        if change.is_empty() {
            return Ok(());
        }
        let changed = kernel.change_ports(&identity, &change, &published).await;
        changed.map_err(|error| failed(&error))?;
        let addresses = change.remove.iter().map(|port| port.container).collect();
        let forgotten = kernel.forget_connections(addresses).await;
        forgotten.map(|_| ()).map_err(|error| failed(&error))
    }

    /// What EndpointOperInfo tells of an endpoint: its published ports, as they came out.
    pub(super) fn published_info(&self, endpoint: &str) -> Result<Value, DriverError> {
        let published = open()?.published_ports().map_err(|error| failed(&error))?;
        let own = published.iter().filter(|port| port.endpoint == endpoint);
        let bindings: Vec<_> = own.map(PortBinding::of).collect();
        Ok(if bindings.is_empty() { json!({}) } else { json!({ PORT_MAP: bindings }) })
    }
}

/// The ports of a call's list, which may be missing.
fn requests(list: Option<&Value>) -> Result<Vec<PortRequest>, DriverError> {
    let Some(list) = list else { return Ok(Vec::new()) };
    let bindings: Option<Vec<PortBinding>> = Option::deserialize(list)
        .map_err(|error| DriverError::new(format!("{PORT_MAP} is no list of ports: {error}")))?;
    let bindings = bindings.unwrap_or_default();
    if bindings.len() > MAX_PUBLISHED {
        return Err(DriverError::new(PortRefused::TooMany.to_string()));
    }
    bindings.iter().map(PortBinding::request).collect()
}

/// The refusal in words, with the program that is in the way.
fn refuse(kernel: &Kernel, refused: &PortRefused) -> DriverError {
    let PortRefused::Listening { port } = refused else {
        return DriverError::new(refused.to_string());
    };
    let who = kernel.listener(port).unwrap_or_else(|| "a program".to_owned());
    DriverError::new(format!(
        "port {port} of the node is taken: {who} listens on it; end that program, or choose \
         another host port"
    ))
}

fn identity(endpoint: &str) -> Result<AttachmentIdentity, DriverError> {
    AttachmentIdentity::new(DOCKER_NETWORK, endpoint, DOCKER_INTERFACE)
        .map_err(|error| DriverError::caused_by(&error))
}

fn open() -> Result<Kernel, DriverError> {
    Kernel::open().map_err(|error| failed(&error))
}

fn failed(error: &weir_kernel::Error) -> DriverError {
    DriverError::caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As dockerd 20.10 sends it.
    #[test]
    fn ports_are_read_as_dockerd_sends_them() {
        let list = json!([
            {"Proto": 132, "IP": "", "Port": 83, "HostIP": "::1", "HostPort": 8083, "HostPortEnd": 8083},
            {"Proto": 6, "IP": "", "Port": 82, "HostIP": "", "HostPort": 9000, "HostPortEnd": 9005},
            {"Proto": 6, "IP": "", "Port": 7777, "HostIP": "", "HostPort": 0, "HostPortEnd": 0},
            {"Proto": 17, "Port": 81, "HostIP": "127.0.0.1", "HostPort": 8081},
        ]);
        let read = requests(Some(&list)).unwrap();
        let ports: Vec<_> = read.iter().map(|it| it.host_ports.clone()).collect();
        assert_eq!(ports, [Some(8083..=8083), Some(9000..=9005), None, Some(8081..=8081)]);
        assert_eq!(read[0].host, Some("::1".parse().unwrap()));
        assert_eq!((read[1].host, read[1].container_port), (None, 82));
        assert_eq!(read[3].protocol, PortProtocol::Udp);
    }

    #[test]
    fn a_list_that_is_missing_is_empty_and_nonsense_is_refused() {
        assert_eq!(requests(None), Ok(Vec::new()));
        assert_eq!(requests(Some(&Value::Null)), Ok(Vec::new()));
        for (list, words) in [
            (json!({"Port": 1}), "no list of ports"),
            (json!([{"Proto": 1, "Port": 8}]), "tcp, udp and sctp"),
            (json!([{"Proto": 6, "Port": 8, "HostIP": "eth0"}]), "no address"),
            (json!([{"Proto": 6, "Port": 65536}]), "no list of ports"),
        ] {
            let told = requests(Some(&list)).unwrap_err().to_string();
            assert!(told.contains(words), "{list}: {told}");
        }
    }

    #[test]
    fn ports_are_answered_in_libnetworks_form() {
        let port = PublishedPort {
            host: "0.0.0.0".parse().unwrap(),
            protocol: PortProtocol::Tcp,
            host_port: 8080,
            container: "10.9.0.11".parse().unwrap(),
            container_port: 80,
            endpoint: "e".to_owned(),
        };
        let expected = json!({
            "Proto": 6, "IP": "10.9.0.11", "Port": 80,
            "HostIP": "0.0.0.0", "HostPort": 8080, "HostPortEnd": 8080,
        });
        assert_eq!(serde_json::to_value(PortBinding::of(&port)).unwrap(), expected);
    }
}
