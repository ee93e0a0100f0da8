//! The part of the kubelet that calls a container runtime: a client for pod
//! sandboxes (Kubernetes' CRI, `runtime/v1/api.proto`).
//!
//! Only the messages and fields that the tests use are here.

use prost::Message;
use tokio::runtime;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::containerd::{Containerd, SOCKET};
use crate::node::Node;
use crate::place::Place;
use crate::runtimes::IMAGE;
use crate::until::until;

/// A client of containerd's CRI service.
pub struct Cri {
    node: Node,
}

/// What a sandbox is asked to be.
pub struct Sandbox<'a> {
    /// The pod's name.
    pub name: &'a str,
    /// The pod's namespace.
    pub namespace: &'a str,
    /// Published TCP ports, as (port of the node, port of the pod).
    pub ports: &'a [(u16, u16)],
}

impl Cri {
    /// A client for this containerd, once its CRI service works and knows the image
    /// of sandboxes; both come a moment after containerd itself.
    pub fn new(containerd: &Containerd) -> Self {
        let client = Self { node: containerd.node().clone() };
        let image = ImageSpec { image: IMAGE.to_owned() };
        let request = ImageStatusRequest { image: Some(image) };
        until("containerd's CRI service has an image", || {
            let answer = client.call("ImageService/ImageStatus", request.clone());
            let answer: Result<ImageStatusResponse, _> = answer;
            answer.is_ok_and(|answer| answer.image.is_some())
        });
        client
    }

    /// RunPodSandbox: the id of a new sandbox.
    pub fn run(&self, sandbox: &Sandbox<'_>) -> String {
        let ports = sandbox.ports.iter().map(|(host, container)| PortMapping {
            container_port: (*container).into(),
            host_port: (*host).into(),
        });
        let metadata = PodSandboxMetadata {
            name: sandbox.name.to_owned(),
            uid: format!("uid-of-{}", sandbox.name),
            namespace: sandbox.namespace.to_owned(),
        };
        let config = PodSandboxConfig {
            metadata: Some(metadata),
            hostname: sandbox.name.to_owned(),
            port_mappings: ports.collect(),
        };
        let request = RunPodSandboxRequest { config: Some(config) };
        let answer: Result<RunPodSandboxResponse, _> =
            self.call("RuntimeService/RunPodSandbox", request);
        answer.unwrap_or_else(|status| panic!("RunPodSandbox: {status:?}")).pod_sandbox_id
    }

    /// The address of a sandbox, as PodSandboxStatus tells it.
    pub fn address(&self, id: &str) -> String {
        let answer: Result<PodSandboxStatusResponse, _> =
            self.call("RuntimeService/PodSandboxStatus", by_id(id));
        let answer = answer.unwrap_or_else(|status| panic!("PodSandboxStatus: {status:?}"));
        answer.status.and_then(|status| status.network).expect("a sandbox has a network").ip
    }

    /// StopPodSandbox.
    pub fn stop(&self, id: &str) {
        let answer: Result<Empty, _> = self.call("RuntimeService/StopPodSandbox", by_id(id));
        answer.unwrap_or_else(|status| panic!("StopPodSandbox: {status:?}"));
    }

    /// RemovePodSandbox.
    pub fn remove(&self, id: &str) {
        let answer: Result<Empty, _> = self.call("RuntimeService/RemovePodSandbox", by_id(id));
        answer.unwrap_or_else(|status| panic!("RemovePodSandbox: {status:?}"));
    }

    fn call<Q, A>(&self, method: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.{method}")).expect("a path");
        let call = async {
            let endpoint = Endpoint::try_from(format!("unix://{SOCKET}")).expect("a URI");
            let channel = endpoint.connect().await;
            let mut client = Grpc::new(channel.expect("connecting to containerd"));
            client.ready().await.expect("containerd is there");
            let codec: ProstCodec<Q, A> = ProstCodec::default();
            Ok(client.unary(Request::new(request), path, codec).await?.into_inner())
        };
        self.node.enter(|| {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("starting tokio").block_on(call)
        })
    }
}

fn by_id(id: &str) -> PodSandboxId {
    PodSandboxId { pod_sandbox_id: id.to_owned() }
}

/// The request of each call that only names a sandbox.
#[derive(Clone, PartialEq, Message)]
struct PodSandboxId {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
}

/// An answer that says nothing.
#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, Message)]
struct RunPodSandboxResponse {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PodSandboxMetadata>,
    #[prost(string, tag = "2")]
    hostname: String,
    #[prost(message, repeated, tag = "5")]
    port_mappings: Vec<PortMapping>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

/// Of TCP, which is protocol 0.
#[derive(Clone, PartialEq, Message)]
struct PortMapping {
    #[prost(int32, tag = "2")]
    container_port: i32,
    #[prost(int32, tag = "3")]
    host_port: i32,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<PodSandboxStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatus {
    #[prost(message, optional, tag = "5")]
    network: Option<PodSandboxNetworkStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxNetworkStatus {
    #[prost(string, tag = "1")]
    ip: String,
}

#[derive(Clone, PartialEq, Message)]
struct ImageStatusRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

#[derive(Clone, PartialEq, Message)]
struct ImageStatusResponse {
    #[prost(message, optional, tag = "1")]
    image: Option<Image>,
}

#[derive(Clone, PartialEq, Message)]
struct Image {
    #[prost(string, tag = "1")]
    id: String,
}
