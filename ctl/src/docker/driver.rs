//! Where each call is answered.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Notify;
use weir_common::datastore::Datastore;
use weir_common::ipam::MachineId;

use super::daemon::Daemon;
use super::error::DriverError;
use super::front::Front;
use super::protocol::Method;

/// What the driver works with; all that it keeps of networks and endpoints is in files, the
/// datastore and the kernel, so that it may end at any moment.
pub struct Driver {
    /// The datastore.
    pub datastore: Arc<dyn Datastore>,
    /// Its place, as the state file names it.
    pub place: String,
    /// This node's name.
    pub node: String,
    /// This machine.
    pub machine: Option<MachineId>,
    /// Where what dockerd said of its networks is kept.
    pub directory: PathBuf,
    /// Tells `forward::keep` to look again.
    pub forwarding: Notify,
    /// The dockerd that it answers.
    pub daemon: Daemon,
    /// What is written of endpoints besides their addresses.
    pub workloads: Workloads,
    /// How interfaces in containers are called, where that is said.
    pub interface_prefix: Option<String>,
    /// The MTU of containers whose network says none, in bytes; without it the node's.
    pub mtu: Option<u32>,
}

/// What is written of endpoints besides their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workloads {
    /// Nothing.
    Unwritten,
    /// Each endpoint.
    Written,
    /// With labels of its container.
    Labelled,
}

impl Driver {
    /// How interfaces in containers are called on networks of this driver; dockerd adds a number.
    pub fn interface_prefix(&self, front: Front) -> &str {
        self.interface_prefix.as_deref().unwrap_or(front.interface_prefix())
    }

    /// Answers a call.
    ///
    /// # Errors
    /// The body is not what the call has, or what it asks for cannot be done.
    pub async fn answer(
        &self,
        method: Method,
        front: Front,
        body: &[u8],
    ) -> Result<Value, DriverError> {
        let answer = self.answer_to(method, front, body).await;
        if matches!(method, Method::CreateNetwork | Method::DeleteNetwork | Method::Join) {
            self.ensure_forwarding();
        }
        answer
    }

    async fn answer_to(
        &self,
        method: Method,
        front: Front,
        body: &[u8],
    ) -> Result<Value, DriverError> {
        match method {
            Method::Activate => {
                let interfaces: Vec<&str> = front.interfaces().iter().map(|it| it.name()).collect();
                Ok(json!({ "Implements": interfaces }))
            }
            // Each node has its own networks by its own dockerd (scope), and addresses that all
            // nodes reach.
            Method::NetworkCapabilities => {
                Ok(json!({ "Scope": "local", "ConnectivityScope": "global" }))
            }
            // The hardware address tells a call that dockerd repeats from another one.
            Method::IpamCapabilities => {
                Ok(json!({ "RequiresMACAddress": true, "RequiresRequestReplay": false }))
            }
            Method::AddressSpaces => to_json(&front.address_spaces()),
            Method::RequestPool => to_json(&self.request_pool(front, read(body)?).await?),
            Method::RequestAddress => to_json(&self.request_address(front, read(body)?).await?),
            Method::ReleaseAddress => nothing(self.release_address(read(body)?).await),
            Method::CreateNetwork => nothing(self.create_network(read(body)?).await),
            Method::DeleteNetwork => nothing(self.delete_network(read(body)?).await),
            Method::CreateEndpoint => to_json(&self.create_endpoint(read(body)?).await?),
            Method::Join => to_json(&self.join(front, read(body)?).await?),
            Method::Leave => nothing(self.leave(read(body)?).await),
            Method::DeleteEndpoint => nothing(self.delete_endpoint(read(body)?).await),
            Method::EndpointInfo => to_json(&self.endpoint_info(read(body)?).await?),
            Method::Publish => nothing(self.publish(read(body)?).await),
            Method::Unpublish => nothing(self.unpublish(read(body)?).await),
            // A range is a name, for which nothing is kept.
            Method::ReleasePool | Method::Ignored => Ok(json!({})),
        }
    }
}

/// The request of a body.
///
/// dockerd 20.10 repeats a call whose connection broke, and then sends nothing in it: its reader is
/// at the end of the body (`callWithRetry` in moby's `pkg/plugins/client.go`). Such a call does not
/// say what it is about, and is not to be taken for one that asks for nothing.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, DriverError> {
    let text = body.trim_ascii_start();
    if text.is_empty() {
        return Err(DriverError::new(
            "dockerd repeats a call without saying what it is about, as it does when the driver \
             ended before its answer; do again what failed",
        ));
    }
    // A list would be read as an object's values in order.
    if text[0] != b'{' {
        return Err(DriverError::new("the call's body is not a JSON object"));
    }
    serde_json::from_slice(text)
        .map_err(|error| DriverError::new(format!("the call's body is not what it has: {error}")))
}

fn to_json(answer: &impl Serialize) -> Result<Value, DriverError> {
    serde_json::to_value(answer).map_err(|error| DriverError::caused_by(&error))
}

fn nothing(done: Result<(), DriverError>) -> Result<Value, DriverError> {
    done.map(|()| json!({}))
}

#[cfg(test)]
impl Driver {
    /// A driver of node `edge-1`, without a dockerd.
    pub fn for_tests(datastore: Arc<dyn Datastore>, workloads: Workloads) -> Self {
        Self {
            datastore,
            place: "memory".to_owned(),
            node: "edge-1".to_owned(),
            machine: None,
            directory: PathBuf::new(),
            daemon: Daemon::at(Some("/nowhere.sock".into())),
            workloads,
            interface_prefix: None,
            mtu: None,
            forwarding: Notify::new(),
        }
    }
}
