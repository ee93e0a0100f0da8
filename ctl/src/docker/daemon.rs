//! What dockerd tells of its networks and containers, over its own socket.
//!
//! Never asked while it waits for an answer of the driver's: it would wait for itself. Each
//! question has a limit, and each answer a size.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::time::timeout;
use weir_common::error_chain;
use weir_common::ipam::docker::DockerKnowledge;
use weir_process::files;

use super::front::Front;

/// Where dockerd's socket is, in the order in which it is looked for.
const SOCKETS: [&str; 2] = ["/run/docker.sock", "/var/run/docker.sock"];

/// The file that names the dockerd that the driver answers, beside those of its networks.
const KEPT: &str = "daemon.json";

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest answer that is read, in bytes: ten thousand containers in one network take less.
const LARGEST_ANSWER: usize = 1 << 24;

/// The dockerd of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    socket: PathBuf,
    /// The id that it must have, and the file that says so.
    required: Option<(String, PathBuf)>,
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
    /// It is another one than that which the driver answers.
    #[error(
        "another dockerd ({found}) answers at {} than the one whose containers the driver knows \
         ({kept}); name the right socket (--docker-socket of weirctl docker run), or remove {} if \
         that one is no longer there", socket.display(), file.display()
    )]
    Another {
        /// Its socket.
        socket: PathBuf,
        /// Its id.
        found: String,
        /// The id of the driver's.
        kept: String,
        /// The file that says so.
        file: PathBuf,
    },
    /// Which one the driver answers cannot be read, or kept.
    #[error("{}, which names the driver's dockerd, cannot be used: {reason}", file.display())]
    Unkept {
        /// The file.
        file: PathBuf,
        /// Why not.
        reason: String,
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
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedNetwork {
    id: String,
    driver: String,
    #[serde(rename = "IPAM")]
    ipam: DockerIpam,
    /// By the container's id, or else `ep-` and the endpoint's.
    containers: Option<BTreeMap<String, DockerEndpoint>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerIpam {
    driver: String,
    config: Option<Vec<DockerRange>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DockerRange {
    subnet: String,
    gateway: String,
    auxiliary_addresses: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct DockerEndpoint {
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    mac_address: String,
}

/// `GET /info`
#[derive(Clone, Debug, Deserialize)]
struct DockerInformation {
    #[serde(rename = "ID")]
    id: String,
}

/// Which dockerd the driver answers, as it keeps it beside what it knows of networks: for
/// `weirctl ipam check`, and for the driver after this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeptDaemon {
    socket: PathBuf,
    /// Its id; `None` until it has told.
    id: Option<String>,
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
        let socket = socket.unwrap_or_else(|| PathBuf::from(SOCKETS[0]));
        Self { socket, required: None }
    }

    /// The one that the driver answers which keeps its files in `directory`; where none does, the
    /// one that docker's own programs find.
    ///
    /// # Errors
    /// [`DaemonError::Unkept`]
    pub fn of_driver(directory: &Path) -> Result<Self, DaemonError> {
        let file = directory.join(KEPT);
        let Some(kept) = KeptDaemon::read(&file)? else { return Ok(Self::at(None)) };
        Ok(Self { socket: kept.socket, required: kept.id.map(|id| (id, file)) })
    }

    /// Keeps its socket for [`Daemon::of_driver`].
    ///
    /// # Errors
    /// [`DaemonError::Unkept`]
    pub fn keep_socket(&self, directory: &Path) -> Result<(), DaemonError> {
        let file = directory.join(KEPT);
        let id = KeptDaemon::read(&file)?.and_then(|kept| kept.id);
        KeptDaemon { socket: self.socket.clone(), id }.write(&file)
    }

    /// What it knows, if it is the one that was asked before; else, that is kept.
    ///
    /// # Errors
    /// [`DaemonError`]; then nothing is known.
    pub async fn own_knowledge(&self, directory: &Path) -> Result<DockerKnowledge, DaemonError> {
        let file = directory.join(KEPT);
        if let Some(id) = KeptDaemon::read(&file)?.and_then(|kept| kept.id) {
            return Self { required: Some((id, file)), ..self.clone() }.knowledge().await;
        }
        let id = self.id().await?;
        KeptDaemon { socket: self.socket.clone(), id: Some(id) }.write(&file)?;
        self.knowledge().await
    }

    async fn id(&self) -> Result<String, DaemonError> {
        let information: DockerInformation = self.get_listed("/info").await?;
        Ok(information.id)
    }

    /// What it knows of the addresses that Weir assigned for it.
    ///
    /// # Errors
    /// [`DaemonError`]; then nothing is known.
    pub async fn knowledge(&self) -> Result<DockerKnowledge, DaemonError> {
        if let Some((kept, file)) = self.required.clone() {
            let found = self.id().await?;
            if found != kept {
                let socket = self.socket.clone();
                return Err(DaemonError::Another { socket, found, kept, file });
            }
        }
        let path = "/networks";
        let listed: Vec<ListedNetwork> = self.get_listed(path).await?;
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

    /// The answer to `GET path` where every dockerd has one.
    async fn get_listed<T: DeserializeOwned>(&self, path: &str) -> Result<T, DaemonError> {
        let refused =
            || DaemonError::Refused { path: path.to_owned(), status: StatusCode::NOT_FOUND };
        self.get(path).await?.ok_or_else(refused)
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

impl KeptDaemon {
    fn read(file: &Path) -> Result<Option<Self>, DaemonError> {
        let unkept = |reason| DaemonError::Unkept { file: file.to_owned(), reason };
        match files::read(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unkept(error.to_string())),
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|it| unkept(it.to_string())),
        }
    }

    fn write(&self, file: &Path) -> Result<(), DaemonError> {
        let unkept = |reason| DaemonError::Unkept { file: file.to_owned(), reason };
        let text = serde_json::to_string(self).map_err(|it| unkept(it.to_string()))?;
        files::replace(file, &text).map_err(|error| unkept(error.to_string()))
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

impl DockerRange {
    /// Where its gateway and its kept addresses are: in its subnet. One that has any pool
    /// (0.0.0.0/0, ::/0) says nothing by that, and dockerd asks for no gateway of it by itself.
    fn taken(&self) -> Result<Vec<IpNet>, String> {
        let subnet: IpNet =
            self.subnet.parse().map_err(|error| format!("subnet {:?}: {error}", self.subnet))?;
        if subnet.prefix_len() > 0 {
            return Ok(vec![subnet]);
        }
        let kept = self.auxiliary_addresses.iter().flatten().map(|(_, address)| address);
        let named = kept.chain(Some(&self.gateway).filter(|it| !it.is_empty()));
        let single = |text: &String| {
            let address: Result<IpAddr, _> = text.split('/').next().unwrap_or_default().parse();
            address.map(IpNet::from).map_err(|error| format!("address {text:?}: {error}"))
        };
        named.map(single).collect()
    }
}

/// Takes in what dockerd says of a network. Whatever is not understood is an error: it could be
/// what is in use.
fn learn(network: &ListedNetwork, known: &mut DockerKnowledge) -> Result<(), String> {
    let containers = network.containers.as_ref().ok_or("it has no Containers")?;
    if network.is_wired() {
        known.networks.insert(network.id.clone());
    }
    for endpoint in containers.values() {
        if endpoint.endpoint_id.is_empty() {
            return Err("an endpoint has no id".to_owned());
        }
        known.endpoints.insert(endpoint.endpoint_id.clone());
        match &*endpoint.mac_address {
            _ if network.is_wired() => {}
            "" => known.has_unnamed = true,
            mac => _ = known.macs.insert(mac.parse().map_err(|it| error_chain(&it))?),
        }
    }
    if network.has_addresses() {
        for range in network.ipam.config.iter().flatten() {
            known.subnets.extend(range.taken()?);
        }
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
        assert_eq!(ours.networks, [NETWORK.to_owned()].into());
        assert!(bridge.networks.is_empty() && !bridge.has_unnamed);
        // ipvlan's have none.
        let text = inspected("ipvlan", "weir").replace("02:42:0a:09:00:02", "");
        let unnamed = learned(&text).unwrap();
        assert!(unnamed.macs.is_empty() && unnamed.has_unnamed);
    }

    #[test]
    fn a_network_of_any_pool_has_the_addresses_that_it_names() {
        let any = inspected("weir", "weir").replace("10.9.0.0/24", "0.0.0.0/0");
        let any = any.replace("fd00:9::/64", "::/0");
        let kept = ["10.9.0.1/32", "10.9.0.9/32"].map(|it| it.parse().unwrap());
        assert_eq!(learned(&any).unwrap().subnets, kept.into());
        learned(&any.replace("10.9.0.9", "ten")).unwrap_err();
    }

    #[test]
    fn what_is_not_understood_is_no_answer() {
        let text = inspected("bridge", "weir");
        for (right, wrong) in
            [("02:42:0a:09:00:02", "02:42"), ("10.9.0.0/24", "10.9"), (ENDPOINT, "")]
        {
            learned(&text.replace(right, wrong)).unwrap_err();
        }
        for field in ["Id", "Driver", "IPAM"] {
            let without = text.replace(&format!("\"{field}\":"), "\"Other\":");
            assert!(serde_json::from_str::<ListedNetwork>(&without).is_err(), "{field}");
        }
        learned(&text.replace("\"Containers\":", "\"Other\":")).unwrap_err();
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

    /// What is no dockerd at all answers so too.
    #[tokio::test]
    async fn a_list_that_is_not_there_is_no_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        let (daemon, listener) = daemon_in(&directory);
        let answers = [("/other", String::new())];
        let (known, _) = tokio::join!(daemon.knowledge(), serve(listener, &answers));
        let told = known.unwrap_err().to_string();
        assert!(told.contains("404") && told.contains("/networks"), "{told}");
    }

    #[tokio::test]
    async fn another_dockerd_knows_nothing_of_the_drivers() {
        let directory = tempfile::tempdir().unwrap();
        let (daemon, listener) = daemon_in(&directory);
        daemon.keep_socket(directory.path()).unwrap();
        let of_check = Daemon::of_driver(directory.path()).unwrap();
        assert_eq!(of_check, daemon, "the driver's socket, whatever DOCKER_HOST says");
        let answers = |id: &str| {
            [("/info", format!(r#"{{"ID":"{id}"}}"#)), ("/networks", format!("[{HOST}]"))]
        };
        let first = answers("A");
        let (known, _) =
            tokio::join!(daemon.own_knowledge(directory.path()), serve(listener, &first));
        known.unwrap();
        for start_again in [false, true] {
            if start_again {
                daemon.keep_socket(directory.path()).unwrap();
            }
            std::fs::remove_file(directory.path().join("docker.sock")).unwrap();
            let (daemon, listener) = daemon_in(&directory);
            let of_check = Daemon::of_driver(directory.path()).unwrap();
            let other = answers("B");
            let asking = async {
                [daemon.own_knowledge(directory.path()).await, of_check.knowledge().await]
            };
            let (known, asked) = tokio::join!(asking, serve(listener, &other));
            assert_eq!(asked, ["/info", "/info"]);
            for told in known.map(|it| it.unwrap_err().to_string()) {
                assert!(told.contains("another dockerd (B)"), "{told}");
            }
        }
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
