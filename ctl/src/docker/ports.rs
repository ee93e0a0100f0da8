//! Published ports: ProgramExternalConnectivity and RevokeExternalConnectivity.
//!
//! dockerd asks for them for the endpoint by which a container reaches the world, after Join, and
//! takes them back before Leave. What is published is in the kernel (table `inet weir-ports`),
//! each port with its endpoint's id. A file for each endpoint has it too: another program may
//! flush the kernel's rules, and dockerd does not ask twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use weir_common::ipam::docker::DOCKER_NETWORK;
use weir_common::network::{
    AttachmentState, PortChange, PortProtocol, PortRefused, PortRequest, PublishedPort, plan_ports,
};
use weir_kernel::Kernel;
use weir_process::files;

use super::driver::Driver;
use super::endpoints::identity_of;
use super::error::DriverError;
use super::networks::checked_id;
use super::protocol::{EndpointCall, PORT_MAP};

/// The directory of the files, below that of the networks'.
const DIRECTORY: &str = "ports";

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
                DriverError::new(format!(
                    "{text:?} is not an address to publish port {} on",
                    self.port
                ))
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

    /// The port of an endpoint that was written so.
    fn published(&self, endpoint: &str) -> Option<PublishedPort> {
        Some(PublishedPort {
            host: self.host_ip.parse().ok()?,
            protocol: PortProtocol::of_number(self.proto)?,
            host_port: self.host_port,
            container: self.ip.parse().ok()?,
            container_port: self.port,
            endpoint: endpoint.to_owned(),
        })
    }
}

/// What the node publishes, mended as far as that can be.
struct PortsHere {
    kernel: Kernel,
    published: Vec<PublishedPort>,
    attached: Vec<AttachmentState>,
    /// What could not be mended.
    failure: Option<DriverError>,
}

impl Driver {
    /// Publishes the ports that the call has for its endpoint, and no others.
    pub(super) async fn publish(&self, call: EndpointCall) -> Result<(), DriverError> {
        let requests = requests(call.options.get(PORT_MAP))?;
        if requests.is_empty() {
            return self.forget_ports(&call.endpoint_id).await;
        }
        let identity = identity_of(&call.endpoint_id)?;
        let _guard = CHANGING.lock().await;
        let PortsHere { kernel, published, attached, .. } = self.mended().await?;
        let endpoint = identity.container_id();
        let own = attached.iter().find(|it| it.identity == identity).ok_or_else(|| {
            DriverError::new(format!(
                "endpoint {endpoint} has no interface on this node, so no port leads to it; \
                 disconnect the container from the network and connect it again"
            ))
        })?;
        let used = |port: &PublishedPort| kernel.port_use(port);
        let change = plan_ports(endpoint, &requests, &own.addresses, &published, used)
            .map_err(|refused| refuse(&kernel, &refused))?;
        let left = change.left(&published).into_iter().filter(|port| port.endpoint == endpoint);
        self.keep_ports(endpoint, &left.chain(&change.add).collect::<Vec<_>>())?;
        if let Err(error) = kernel.change_ports(&identity, &change, &published).await {
            let own: Vec<_> = published.iter().filter(|port| port.endpoint == endpoint).collect();
            self.keep_ports(endpoint, &own)?;
            return Err(error.into());
        }
        for port in &change.add {
            let (address, to) = (port.container, port.container_port);
            tracing::info!(%port, %address, to, endpoint, "published");
        }
        Ok(())
    }

    /// Makes the kernel have what the files have of endpoints that are there, and nothing of
    /// those that are gone.
    pub(super) async fn mend_ports(&self) -> Result<(), DriverError> {
        let _guard = CHANGING.lock().await;
        self.mended().await?.failure.map_or(Ok(()), Err)
    }

    /// Sees to it that no port leads to an address whose endpoint is gone, before another
    /// container may get it.
    pub(super) async fn part_ports(&self, address: IpAddr) -> Result<(), DriverError> {
        let published = Kernel::open()?.published_ports()?;
        match published.iter().any(|port| port.container == address) {
            true => self.mend_ports().await,
            false => Ok(()),
        }
    }

    /// As `mend_ports`, for who holds the lock.
    async fn mended(&self) -> Result<PortsHere, DriverError> {
        let kernel = Kernel::open()?;
        let mut published = kernel.published_ports()?;
        let kept = self.kept_ports()?;
        let attached = kernel.attachment_states().await?;
        let dockers = attached.iter().filter(|it| it.identity.network() == DOCKER_NETWORK);
        let alive: BTreeSet<&str> = dockers.map(|it| it.identity.container_id()).collect();
        let is_alive = |port: &PublishedPort| alive.contains(port.endpoint.as_str());
        let mut changes: BTreeMap<String, PortChange> = BTreeMap::new();
        for port in &published {
            let change = changes.entry(port.endpoint.clone()).or_default();
            if !is_alive(port) {
                change.remove.push(port.clone());
            }
        }
        let there: BTreeSet<_> = published.iter().cloned().collect();
        for (endpoint, ports) in kept {
            if !alive.contains(endpoint.as_str()) {
                self.keep_ports(&endpoint, &[])?;
                continue;
            }
            let missing = ports.into_iter().filter(|port| !there.contains(port));
            changes.entry(endpoint).or_default().add.extend(missing);
        }
        // What is gone first: what comes back may have had its place.
        let mut changes: Vec<_> = changes.into_iter().collect();
        changes.sort_by_key(|(_, change)| change.remove.is_empty());
        let mut failure = None;
        for (endpoint, change) in changes {
            // Nothing is said of what somebody else has put there.
            let Ok(identity) = identity_of(&endpoint) else { continue };
            if let Err(error) = kernel.change_ports(&identity, &change, &published).await {
                failure.get_or_insert(error.into());
                continue;
            }
            if !change.is_empty() {
                let (back, gone) = (change.add.len(), change.remove.len());
                tracing::warn!(endpoint, back, gone, "mended the published ports");
            }
            published = change.left(&published).into_iter().cloned().collect();
            published.extend(change.add);
        }
        Ok(PortsHere { kernel, published, attached, failure })
    }

    /// Writes the ports of an endpoint down.
    fn keep_ports(&self, endpoint: &str, ports: &[&PublishedPort]) -> Result<(), DriverError> {
        let path = self.ports_file(endpoint)?;
        let kept = if ports.is_empty() {
            files::remove(&path)
        } else {
            let bindings: Vec<_> = ports.iter().map(|port| PortBinding::of(port)).collect();
            files::replace(&path, &json!(bindings).to_string())
        };
        kept.map_err(|error| {
            DriverError::new(format!("{} cannot be changed: {error}", path.display()))
        })
    }

    /// The ports that are written down, by endpoint. A file that cannot be read is told of, and
    /// in nobody's way.
    fn kept_ports(&self) -> Result<BTreeMap<String, Vec<PublishedPort>>, DriverError> {
        let directory = self.directory.join(DIRECTORY);
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
            entries => entries.map_err(|error| {
                DriverError::new(format!("{} cannot be read: {error}", directory.display()))
            })?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let endpoints = names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned()));
        let mut kept = BTreeMap::new();
        for endpoint in endpoints.filter(|id| checked_id("endpoint", id).is_ok()) {
            let path = self.ports_file(&endpoint)?;
            let bindings = files::read(&path).and_then(|text| {
                let bindings: Vec<PortBinding> = serde_json::from_str(&text)?;
                Ok(bindings)
            });
            match bindings {
                Ok(bindings) => {
                    let ports = bindings.iter().filter_map(|it| it.published(&endpoint)).collect();
                    kept.insert(endpoint, ports);
                }
                Err(error) => tracing::warn!(?path, %error, "published ports cannot be read"),
            }
        }
        Ok(kept)
    }

    fn ports_file(&self, endpoint: &str) -> Result<PathBuf, DriverError> {
        let endpoint = checked_id("endpoint", endpoint)?;
        Ok(self.directory.join(DIRECTORY).join(format!("{endpoint}.json")))
    }

    /// Takes the ports of the call's endpoint back.
    pub(super) async fn unpublish(&self, call: EndpointCall) -> Result<(), DriverError> {
        self.forget_ports(&call.endpoint_id).await
    }

    /// Takes the ports of an endpoint back, if it has any, and what the node remembers of their
    /// connections.
    pub(super) async fn forget_ports(&self, endpoint: &str) -> Result<(), DriverError> {
        let identity = identity_of(endpoint)?;
        let _guard = CHANGING.lock().await;
        // First: what is written down comes back.
        self.keep_ports(endpoint, &[])?;
        let kernel = Kernel::open()?;
        let published = kernel.published_ports()?;
        let change = PortChange::without(endpoint, &published);
        if change.is_empty() {
            return Ok(());
        }
        let changed = kernel.change_ports(&identity, &change, &published).await;
        changed?;
        let addresses = change.remove.iter().map(|port| port.container).collect();
        let forgotten = kernel.forget_connections(addresses).await;
        Ok(forgotten.map(|_| ())?)
    }

    /// What EndpointOperInfo tells of an endpoint: its published ports, as they came out.
    pub(super) fn published_info(&self, endpoint: &str) -> Result<Value, DriverError> {
        let published = Kernel::open()?.published_ports()?;
        let own = published.iter().filter(|port| port.endpoint == endpoint);
        let bindings: Vec<_> = own.map(PortBinding::of).collect();
        Ok(if bindings.is_empty() { json!({}) } else { json!({ PORT_MAP: bindings }) })
    }
}

/// The ports of a call's list, which may be missing.
fn requests(list: Option<&Value>) -> Result<Vec<PortRequest>, DriverError> {
    let Some(list) = list else { return Ok(Vec::new()) };
    let bindings: Option<Vec<PortBinding>> = Option::deserialize(list)
        .map_err(|error| DriverError::new(format!("{PORT_MAP} is not a list of ports: {error}")))?;
    let bindings = bindings.unwrap_or_default();
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
            (json!({"Port": 1}), "not a list of ports"),
            (json!([{"Proto": 1, "Port": 8}]), "tcp, udp and sctp"),
            (json!([{"Proto": 6, "Port": 8, "HostIP": "eth0"}]), "not an address"),
            (json!([{"Proto": 6, "Port": 65536}]), "not a list of ports"),
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
        let read: PortBinding = serde_json::from_value(expected).unwrap();
        assert_eq!(read.published("e"), Some(port));
    }
}
