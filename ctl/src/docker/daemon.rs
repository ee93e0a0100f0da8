//! What dockerd tells of its networks and containers, over its own socket.
//!
//! Never asked while it waits for an answer of the driver's: it would wait for itself. Each
//! question has a limit, and each answer a size.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;
use weir_common::error_chain;
use weir_common::ipam::docker::DockerKnowledge;

use super::front::Front;

/// Where dockerd's socket is, in the order in which it is looked for.
const SOCKETS: [&str; 2] = ["/run/docker.sock", "/var/run/docker.sock"];

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest answer that is read, in bytes: ten thousand containers in one network take less.
const LARGEST_ANSWER: usize = 1 << 24;

/// The dockerd of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    socket: PathBuf,
}

/// Why nothing is known from dockerd.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// It does not answer.
    #[error("dockerd does not answer at {}: {reason}", socket.display())]
    Silent {
        /// Its socket.
        socket: PathBuf,
        /// Why not.
        reason: String,
    },
    /// It answers that something is wrong.
    #[error("dockerd answers {status} to GET {path}")]
    Refused {
        /// What was asked.
        path: String,
        /// The status of HTTP.
        status: StatusCode,
    },
    /// Its answer is none.
    #[error("dockerd's answer to GET {path} cannot be read: {reason}")]
    Unreadable {
        /// What was asked.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// `GET /networks/<id>`, of which Weir needs this much.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ListedNetwork {
    id: String,
    driver: String,
    #[serde(rename = "IPAM")]
    ipam: DockerIpam,
    /// By the container's id, or else `ep-` and the endpoint's.
    containers: Option<BTreeMap<String, DockerEndpoint>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DockerIpam {
    driver: String,
    config: Option<Vec<DockerRange>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DockerRange {
    subnet: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DockerEndpoint {
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    mac_address: String,
}

/// `GET /containers/<id>/json`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DockerContainer {
    config: LabelledConfiguration,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct LabelledConfiguration {
    labels: Option<BTreeMap<String, String>>,
}

impl Daemon {
    /// At this socket; without, where docker's own programs find it: `DOCKER_HOST`, if it names
    /// a unix socket, else the usual place.
    pub fn at(socket: Option<PathBuf>) -> Self {
        let named =
            || Some(PathBuf::from(std::env::var("DOCKER_HOST").ok()?.strip_prefix("unix://")?));
        let found = || SOCKETS.map(PathBuf::from).into_iter().find(|it| it.exists());
        let socket = socket.or_else(named).or_else(found);
        Self { socket: socket.unwrap_or_else(|| PathBuf::from(SOCKETS[0])) }
    }

    /// What it knows of the addresses that Weir assigned for it.
    ///
    /// # Errors
    /// [`DaemonError`]; then nothing is known.
    pub async fn knowledge(&self) -> Result<DockerKnowledge, DaemonError> {
        let path = "/networks";
        let listed: Vec<ListedNetwork> = self.get(path).await?.unwrap_or_default();
        let mut known = DockerKnowledge::default();
        for listed in listed.iter().filter(|it| it.is_wired() || it.has_addresses()) {
            let path = format!("{path}/{}", listed.id);
            // One that went meanwhile has no endpoints any more.
            let Some(network) = self.get::<ListedNetwork>(&path).await? else { continue };
            let unreadable = |reason| DaemonError::Unreadable { path, reason };
            learn(&network, &mut known).map_err(unreadable)?;
        }
        Ok(known)
    }

    /// The labels of the container that has this endpoint; `None` while dockerd does not say
    /// which one that is.
    ///
    /// # Errors
    /// [`DaemonError`]
    pub async fn labels(
        &self,
        network_id: &str,
        endpoint_id: &str,
    ) -> Result<Option<BTreeMap<String, String>>, DaemonError> {
        let network: Option<ListedNetwork> = self.get(&format!("/networks/{network_id}")).await?;
        let container = network.as_ref().and_then(|it| it.container_of(endpoint_id));
        let Some(container) = container else { return Ok(None) };
        let container: Option<DockerContainer> =
            self.get(&format!("/containers/{container}/json")).await?;
        Ok(container.map(|it| it.config.labels.unwrap_or_default()))
    }

    /// The answer to `GET path`; `None` for what is not there.
    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, DaemonError> {
        let silent = |reason| DaemonError::Silent { socket: self.socket.clone(), reason };
        let late = |_| silent(format!("no answer within {} s", PATIENCE.as_secs()));
        let (status, body) =
            timeout(PATIENCE, self.ask(path)).await.map_err(late)?.map_err(silent)?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK => serde_json::from_slice(&body).map(Some).map_err(|error| {
                DaemonError::Unreadable { path: path.to_owned(), reason: error.to_string() }
            }),
            status => Err(DaemonError::Refused { path: path.to_owned(), status }),
        }
    }

    async fn ask(&self, path: &str) -> Result<(StatusCode, Bytes), String> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|it| it.to_string())?;
        let failed = |error: hyper::Error| error_chain(&error);
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let asking = async {
            let request = Request::get(path).header(HOST, "docker").body(Empty::<Bytes>::new());
            let request = request.map_err(|error| error_chain(&error))?;
            let response = sender.send_request(request).await.map_err(failed)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
            Ok((status, body.map_err(|error| error_chain(error.as_ref()))?.to_bytes()))
        };
        tokio::pin!(asking);
        tokio::select! {
            answer = &mut asking => answer,
            // The connection has come to its end; what it brought is there to be taken.
            ended = connection => {
                ended.map_err(failed)?;
                asking.await
            }
        }
    }
}

impl ListedNetwork {
    /// Whether Weir makes its interfaces.
    fn is_wired(&self) -> bool {
        Front::of_name(&self.driver).is_some_and(|front| front != Front::CalicoIpam)
    }

    /// Whether Weir gives it addresses.
    fn has_addresses(&self) -> bool {
        Front::of_name(&self.ipam.driver).is_some_and(|front| front != Front::Calico)
    }

    /// The container that has this endpoint.
    fn container_of(&self, endpoint_id: &str) -> Option<&str> {
        let mut containers = self.containers.iter().flatten();
        let (container, _) =
            containers.find(|(_, endpoint)| endpoint.endpoint_id == endpoint_id)?;
        (!container.starts_with("ep-")).then_some(container)
    }
}

/// Takes in what dockerd says of a network. Whatever is not understood is an error: it could be
/// what is in use.
fn learn(network: &ListedNetwork, known: &mut DockerKnowledge) -> Result<(), String> {
    for endpoint in network.containers.iter().flatten().map(|(_, endpoint)| endpoint) {
        if endpoint.endpoint_id.is_empty() {
            return Err("an endpoint has no id".to_owned());
        }
        known.endpoints.insert(endpoint.endpoint_id.clone());
        if !network.is_wired() {
            known.macs.insert(endpoint.mac_address.parse().map_err(|it| error_chain(&it))?);
        }
    }
    if network.has_addresses() {
        let ranges = network.ipam.config.iter().flatten();
        let subnets = ranges.map(|range| {
            let failed =
                |error: ipnet::AddrParseError| format!("subnet {:?}: {error}", range.subnet);
            range.subnet.parse::<IpNet>().map_err(failed)
        });
        known.subnets.extend(subnets.collect::<Result<BTreeSet<_>, _>>()?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    /// As dockerd 20.10 has it: a network with one container.
    const INSPECTED: &str = r#"{"Name":"nb","Id":"550af4d4cecbacb1613b28f6417c5422acb673f59de7b5629b148da8f01fdc68","Created":"2026-11-29T12:44:04.918963184Z","Scope":"local","Driver":"bridge","EnableIPv6":true,"IPAM":{"Driver":"default","Options":{},"Config":[{"Subnet":"10.9.0.0/24","Gateway":"10.9.0.1","AuxiliaryAddresses":{"keep":"10.9.0.9"}},{"Subnet":"fd00:9::/64"}]},"Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{"98407392052b870ef7dcf277618e62c791a38dbdece7c5e7b5d7d849777198a4":{"Name":"c1","EndpointID":"61d4349d70e63be097eaa5dfcad22b360312cc6d2b08fa032e0b75c6daf62a6f","MacAddress":"02:42:0a:09:00:02","IPv4Address":"10.9.0.2/24","IPv6Address":"fd00:9::2/64"}},"Options":{},"Labels":{}}"#;

    /// The network of its that has no ranges, as it lists it.
    const HOST: &str = r#"{"Name":"host","Id":"2cd79eb2d86910793370dcaa09bd27f6b30f67c3c7898e17241728290d608d2f","Created":"2026-11-29T12:44:04.51251443Z","Scope":"local","Driver":"host","EnableIPv6":false,"IPAM":{"Driver":"default","Options":null,"Config":[]},"Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{},"Options":{},"Labels":{}}"#;

    const ENDPOINT: &str = "61d4349d70e63be097eaa5dfcad22b360312cc6d2b08fa032e0b75c6daf62a6f";
    const CONTAINER: &str = "98407392052b870ef7dcf277618e62c791a38dbdece7c5e7b5d7d849777198a4";
    const NETWORK: &str = "550af4d4cecbacb1613b28f6417c5422acb673f59de7b5629b148da8f01fdc68";

    fn inspected(driver: &str, ipam_driver: &str) -> String {
        let of_driver = INSPECTED.replace("bridge", driver);
        of_driver.replace(r#""Driver":"default""#, &format!(r#""Driver":"{ipam_driver}""#))
    }

    fn learned(text: &str) -> Result<DockerKnowledge, String> {
        let mut known = DockerKnowledge::default();
        learn(&serde_json::from_str(text).unwrap(), &mut known).map(|()| known)
    }

    #[test]
    fn an_endpoint_of_another_driver_is_known_by_its_hardware_address() {
        let ours = learned(&inspected("weir", "weir")).unwrap();
        assert!(ours.endpoints.contains(ENDPOINT) && ours.macs.is_empty());
        let bridge = learned(&inspected("bridge", "calico-ipam")).unwrap();
        assert_eq!(bridge.macs, ["02:42:0a:09:00:02".parse().unwrap()].into());
        let subnets = ["10.9.0.0/24", "fd00:9::/64"].map(|it| it.parse().unwrap());
        assert_eq!(bridge.subnets, subnets.into());
        let others = learned(&inspected("weir", "default")).unwrap();
        assert!(others.subnets.is_empty(), "the addresses are another driver's");
    }

    #[test]
    fn what_is_not_understood_is_no_answer() {
        let text = inspected("bridge", "weir");
        for (right, wrong) in
            [("02:42:0a:09:00:02", "02:42"), ("10.9.0.0/24", "10.9"), (ENDPOINT, "")]
        {
            learned(&text.replace(right, wrong)).unwrap_err();
        }
    }

    /// Answers as many questions as there are answers, each by its path, and returns the paths.
    async fn serve(listener: UnixListener, answers: &[(&str, String)]) -> Vec<String> {
        let mut asked = Vec::new();
        for _ in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = request.split(' ').nth(1).unwrap().to_owned();
            let answer = answers.iter().find(|(it, _)| *it == path);
            let (status, body) = answer.map_or(("404 Not Found", "{}"), |(_, it)| ("200 OK", it));
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            asked.push(path);
        }
        asked
    }

    fn daemon_in(directory: &tempfile::TempDir) -> (Daemon, UnixListener) {
        let socket = directory.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        (Daemon::at(Some(socket)), listener)
    }

    #[tokio::test]
    async fn weirs_networks_are_looked_into_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let (daemon, listener) = daemon_in(&directory);
        let ours = inspected("weir", "weir");
        let answers =
            [("/networks", format!("[{HOST},{ours}]")), (&format!("/networks/{NETWORK}"), ours)];
        let (known, asked) = tokio::join!(daemon.knowledge(), serve(listener, &answers));
        assert!(known.unwrap().endpoints.contains(ENDPOINT));
        assert_eq!(asked, answers.map(|(path, _)| path.to_owned()));
    }

    #[tokio::test]
    async fn labels_are_those_of_the_endpoints_container() {
        let directory = tempfile::tempdir().unwrap();
        let (daemon, listener) = daemon_in(&directory);
        let container = r#"{"Id":"c","Config":{"Labels":{"org.projectcalico.label.role":"web"}}}"#;
        let answers = [
            (&*format!("/networks/{NETWORK}"), inspected("weir", "weir")),
            (&format!("/containers/{CONTAINER}/json"), container.to_owned()),
        ];
        let (labels, _) = tokio::join!(daemon.labels(NETWORK, ENDPOINT), serve(listener, &answers));
        assert_eq!(labels.unwrap().unwrap()["org.projectcalico.label.role"], "web");
    }

    #[tokio::test]
    async fn what_is_silent_is_told_with_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let (daemon, listener) = daemon_in(&directory);
        drop(listener);
        let told = daemon.knowledge().await.unwrap_err().to_string();
        assert!(told.contains("docker.sock") && told.contains("refused"), "{told}");
    }
}
