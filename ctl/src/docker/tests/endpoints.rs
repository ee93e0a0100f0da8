//! The life of an endpoint, in network and mount namespaces of its own.

use std::fs::{self, File};
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::path::Path;
use std::pin::pin;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use jiff::Timestamp;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::LocalSet;
use weir_common::datastore::keys;
use weir_common::ipam::assign::{Request, Want};
use weir_common::ipam::docker::{EndpointFacts, hand_over};
use weir_common::ipam::engine::{Leaving, assign, release};
use weir_common::ipam::{Family, docker};
use weir_datastore::Memory;
use weir_datastore::memory::CommitFault;
use weir_process::AttachmentLocks;

use super::super::driver::{Driver, Workloads};
use super::super::endpoints::identity_of;
use super::super::front::Front;
use super::super::protocol::Method;
use super::super::server::serve;

const MAC: &str = "02:42:0a:09:00:0b";

/// Runs `test` on a thread that is alone in a network namespace and has its own `/run`.
fn on_a_node<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let outcome = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("these tests need root: they make namespaces of their own");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("none"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755")).unwrap();
        ip("link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(test());
    });
    if let Err(panic) = outcome.join() {
        resume_unwind(panic);
    }
}

/// The network namespace of a container.
fn sandbox() -> File {
    let opened = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    });
    opened.join().unwrap()
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a future comes to, or nothing where it is dropped after it was `polled` so often, as if
/// the driver were killed.
async fn killed_after<T>(mut polled: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if polled == 0 => Poll::Ready(None),
        Poll::Pending => {
            polled -= 1;
            Poll::Pending
        }
    })
    .await
}

struct Node {
    store: Arc<Memory>,
    driver: Driver,
}

impl Node {
    fn new(directory: &Path) -> Self {
        let store = Arc::new(Memory::new());
        let pool = json!({
            "kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": { "name": "nine" },
            "spec": {
                "cidr": "10.9.0.0/24", "blockSize": 26, "nodeSelector": "all()",
                "ipipMode": "Never", "vxlanMode": "Never", "natOutgoing": false,
                "allowedUses": ["Workload", "Tunnel"], "assignmentMode": "Automatic",
            },
        });
        store.seed([(keys::pool("nine"), pool.to_string().into_bytes())]);
        let driver = Driver {
            node: "n1".to_owned(),
            directory: directory.to_owned(),
            ..Driver::for_tests(Arc::<Memory>::clone(&store), Workloads::Unwritten)
        };
        Self { store, driver }
    }

    async fn call(&self, method: Method, body: &Value) -> Result<Value, String> {
        let answer = self.driver.answer(method, Front::Weir, body.to_string().as_bytes()).await;
        answer.map_err(|error| error.to_string())
    }

    /// A call whose driver is killed after so many steps, and which dockerd repeats then; and
    /// whether it was.
    async fn call_twice(&self, polled: usize, method: Method, body: &Value) -> (Value, bool) {
        let killed = killed_after(polled, self.call(method, body)).await;
        let is_killed = killed.is_none();
        let answer = match killed {
            Some(answer) => answer,
            None => self.call(method, body).await,
        };
        (
            answer.unwrap_or_else(|error| panic!("{method:?} after {polled} steps: {error}")),
            is_killed,
        )
    }

    async fn address(&self) -> String {
        let request = Request {
            assignee: docker::waiting("n1", MAC.parse().unwrap(), 1),
            facts: [(docker::ATTRIBUTE_MAC.to_owned(), MAC.to_owned())].into(),
            wants: vec![Want::Any { family: Family::V4, pools: vec![] }],
            gateways: vec![],
            within: None,
        };
        let assigned = assign(self.store.as_ref(), &request, &[], Timestamp::UNIX_EPOCH).await;
        assigned.unwrap().addresses[0].address.to_string()
    }

    async fn create_network(&self, id: &str) {
        let range = json!({
            "AddressSpace": "WeirLocal", "Pool": "10.9.0.0/24", "Gateway": "0.0.0.0/0",
        });
        let body = json!({ "NetworkID": id, "Options": null, "IPv4Data": [range] });
        self.call(Method::CreateNetwork, &body).await.unwrap();
    }
}

#[test]
fn an_endpoint_lives_and_ends_wherever_its_driver_is_killed() {
    on_a_node(|| async {
        let directory = tempfile::tempdir().unwrap();
        let mut node = Node::new(directory.path());
        node.driver.workloads = Workloads::Written;
        let (network, endpoint) = ("a".repeat(64), "0123456789abcdef".repeat(4));
        node.create_network(&network).await;
        let call = json!({ "NetworkID": network, "EndpointID": endpoint });
        let with = |key: &str, value: Value| {
            let mut call = call.clone();
            call[key] = value;
            call
        };
        let mut polled = 0;
        loop {
            let address = node.address().await;
            let interface = json!({ "Address": format!("{address}/32"), "MacAddress": MAC });
            let create = with("Interface", interface);
            let (answer, first) = node.call_twice(polled, Method::CreateEndpoint, &create).await;
            assert_eq!(answer, json!({ "Interface": {} }));
            assert!(ip("link show temp0123456789a").contains(MAC));
            assert!(ip(&format!("route get {address}")).contains("weir"));

            let join = with("SandboxKey", json!("/var/run/docker/netns/ffd6d385fc62"));
            let (answer, second) = node.call_twice(polled, Method::Join, &join).await;
            let next_hop = answer["Gateway"].as_str().unwrap();
            let routes = json!([
                { "Destination": format!("{next_hop}/32"), "RouteType": 1, "NextHop": "" },
                { "Destination": "10.9.0.0/24", "RouteType": 0, "NextHop": next_hop },
            ]);
            let name = json!({ "SrcName": "temp0123456789a", "DstPrefix": "eth" });
            assert_eq!((&answer["StaticRoutes"], &answer["InterfaceName"]), (&routes, &name));
            assert!(ip("link").contains("weir-in-ffd6d385fc62-"));

            // dockerd moves it.
            let container = sandbox();
            let path = format!("/proc/{}/fd/{}", std::process::id(), container.as_raw_fd());
            ip(&format!("link set temp0123456789a netns {path} name eth0"));
            // In use, it is not made again.
            node.call(Method::CreateEndpoint, &create).await.unwrap();
            assert!(node.call(Method::Join, &join).await.unwrap_err().contains("no interface"));

            let (_, third) = node.call_twice(polled, Method::Leave, &call).await;
            assert!(!ip("link").contains("weir-in-"), "no sandbox is recorded any more");
            let (_, fourth) = node.call_twice(polled, Method::DeleteEndpoint, &call).await;
            assert!(!ip("link").contains("weir"));
            assert_eq!(ip("route"), "");
            assert!(node.driver.written_workloads().await.unwrap().is_empty());
            // As dockerd does when the address is given back.
            let assignee = docker::endpoint("n1", &endpoint);
            let released = release(node.store.as_ref(), &assignee, &Leaving::default()).await;
            assert_eq!(released.unwrap().len(), 1, "it was the endpoint's");
            if ![first, second, third, fourth].contains(&true) {
                break;
            }
            polled += 1;
        }
        assert!(polled > 10, "{polled} places to be killed at");
        for _ in 0..2 {
            node.call(Method::DeleteNetwork, &call).await.unwrap();
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    });
}

#[test]
fn two_networks_of_one_container_may_answer_for_each_other() {
    on_a_node(|| async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::new(directory.path());
        for (name, digit) in [("first", "a"), ("second", "b")] {
            let (network, endpoint) = (digit.repeat(64), digit.repeat(64));
            node.create_network(&network).await;
            let address = node.address().await;
            let create = json!({
                "NetworkID": network, "EndpointID": endpoint,
                "Interface": { "Address": format!("{address}/32"), "MacAddress": MAC },
            });
            node.call(Method::CreateEndpoint, &create).await.unwrap();
            let join = json!({
                "NetworkID": network, "EndpointID": endpoint, "SandboxKey": "/x/netns/ffd6d385fc62",
            });
            let answer = node.call(Method::Join, &join).await.unwrap();
            // The kernel takes one route to the pool that both networks have.
            let expected = if name == "first" { 2 } else { 1 };
            assert_eq!(answer["StaticRoutes"].as_array().unwrap().len(), expected, "{answer}");
        }
        let allowed = || {
            let table = ["list", "table", "inet", "weir-sources"];
            let listed = Command::new("nft").args(table).output().unwrap().stdout;
            // The table's own name is in it, too.
            String::from_utf8(listed).unwrap().matches("weir").count()
        };
        let together = allowed();
        let leaving = json!({ "NetworkID": "a".repeat(64), "EndpointID": "a".repeat(64) });
        node.call(Method::Leave, &leaving).await.unwrap();
        assert_eq!(together - allowed(), 2, "each was allowed the other's address");
    });
}

#[test]
fn an_endpoint_with_an_address_of_another_driver_is_refused_and_leaves_nothing() {
    on_a_node(|| async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::new(directory.path());
        let network = "a".repeat(64);
        let create = json!({
            "NetworkID": network, "EndpointID": "b".repeat(64),
            "Interface": { "Address": "10.9.0.7/32", "MacAddress": MAC },
        });
        let error = node.call(Method::CreateEndpoint, &create).await.unwrap_err();
        assert!(error.contains("is not known") && error.contains("create it again"), "{error}");
        node.create_network(&network).await;
        let error = node.call(Method::CreateEndpoint, &create).await.unwrap_err();
        assert!(error.contains("--ipam-driver weir"), "{error}");
        assert!(!ip("link").contains("weir") && !ip("link").contains("temp"));
        for method in [Method::Leave, Method::DeleteEndpoint] {
            node.call(method, &create).await.unwrap();
        }
        let body = json!({ "NetworkID": "../../x", "EndpointID": "b" });
        for method in [Method::CreateNetwork, Method::DeleteNetwork, Method::Join, Method::Leave] {
            let error = node.call(method, &body).await.unwrap_err();
            assert!(error.contains("hexadecimal digits"), "{error}");
        }
    });
}

/// Two containers have one hardware address, and so one address that waits. One of them fails
/// while the other's endpoint is being made.
#[test]
fn an_address_is_not_given_back_while_its_endpoint_is_being_made() {
    on_a_node(|| async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::new(directory.path());
        let address = node.address().await;
        let id = "b".repeat(64);
        let endpoint = docker::endpoint("n1", &id);
        let now = Timestamp::UNIX_EPOCH;
        let facts = EndpointFacts { network: "net", mac: MAC.parse().unwrap(), now };
        let addresses = [address.parse().unwrap()];
        hand_over(node.store.as_ref(), &endpoint, &addresses, facts).await.unwrap();
        let handle = keys::handle(&endpoint.handle_id);
        let body = json!({ "PoolID": "10.9.0.0/24", "Address": address });
        let locks = AttachmentLocks::open().unwrap();
        assert!(locks.try_take(identity_of(&id).unwrap().lock_number()).unwrap());
        node.call(Method::ReleaseAddress, &body).await.unwrap();
        assert!(node.store.dump().contains_key(&handle), "a call is at work on it");
        drop(locks);
        node.call(Method::ReleaseAddress, &body).await.unwrap();
        assert!(!node.store.dump().contains_key(&handle));
    });
}

#[test]
fn a_kept_address_stays_as_long_as_another_network_has_its_range() {
    on_a_node(|| async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::new(directory.path());
        let kept: IpAddr = "10.9.0.5".parse().unwrap();
        let request = Request {
            assignee: docker::of_network("n1", kept),
            facts: Default::default(),
            wants: vec![Want::Exactly(kept)],
            gateways: vec![],
            within: None,
        };
        assign(node.store.as_ref(), &request, &[], Timestamp::UNIX_EPOCH).await.unwrap();
        let handle = keys::handle("docker.10.9.0.5");
        let body = json!({ "PoolID": "10.9.0.0/24", "Address": "10.9.0.5" });
        let [network, other] = ["a", "b"].map(|digit| digit.repeat(64));
        node.create_network(&network).await;
        node.create_network(&other).await;
        node.call(Method::ReleaseAddress, &body).await.unwrap();
        assert!(node.store.dump().contains_key(&handle), "the other network may keep it");
        node.call(Method::DeleteNetwork, &json!({ "NetworkID": network })).await.unwrap();
        node.call(Method::ReleaseAddress, &body).await.unwrap();
        assert!(!node.store.dump().contains_key(&handle));
    });
}

/// dockerd gives back the address of an endpoint that fails, which one with a link would keep.
#[test]
fn an_endpoint_that_cannot_be_written_leaves_no_link() {
    on_a_node(|| async {
        let directory = tempfile::tempdir().unwrap();
        let mut node = Node::new(directory.path());
        node.driver.workloads = Workloads::Written;
        let network = "a".repeat(64);
        node.create_network(&network).await;
        let address = node.address().await;
        let create = json!({
            "NetworkID": network, "EndpointID": "b".repeat(64),
            "Interface": { "Address": format!("{address}/32"), "MacAddress": MAC },
        });
        // The first one hands the address over.
        node.store.fail_commit(2, CommitFault::CrashBefore);
        node.call(Method::CreateEndpoint, &create).await.unwrap_err();
        assert!(!ip("link").contains("weir") && !ip("link").contains("temp"));
        node.store = Arc::new(node.store.another_process());
        node.driver.datastore = Arc::<Memory>::clone(&node.store);
        let body = json!({ "PoolID": "10.9.0.0/24", "Address": address });
        node.call(Method::ReleaseAddress, &body).await.unwrap();
        assert!(!node.store.dump().keys().any(|key| key.starts_with(keys::HANDLES)));
    });
}

#[test]
fn calls_at_work_are_answered_when_the_driver_ends() {
    on_a_node(|| async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::new(directory.path());
        let path = directory.path().join("weir.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (end, ending) = watch::channel(false);
        let local = LocalSet::new();
        local.spawn_local(serve(listener, Front::Weir, Rc::new(node.driver), ending));
        let holding = async {
            let endpoint = "b".repeat(64);
            let locks = AttachmentLocks::open().unwrap();
            let number = identity_of(&endpoint).unwrap().lock_number();
            assert!(locks.try_take(number).unwrap());
            let _idle = UnixStream::connect(&path).await.unwrap();
            let mut busy = UnixStream::connect(&path).await.unwrap();
            let body = json!({ "NetworkID": "a".repeat(64), "EndpointID": endpoint }).to_string();
            let head = "POST /NetworkDriver.Leave HTTP/1.1\r\nHost: plugin\r\n";
            let call = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
            busy.write_all(call.as_bytes()).await.unwrap();
            // The socket's, two of each connection, and the call's.
            until(|| end.receiver_count() == 6).await;
            end.send(true).unwrap();
            until(|| end.receiver_count() == 3).await;
            assert!(UnixStream::connect(&path).await.is_err(), "nobody listens any more");
            drop(locks);
            let mut answer = String::new();
            busy.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("{}"), "{answer}");
            end.closed().await;
        };
        local.run_until(holding).await;
    });
}

async fn until(holds: impl Fn() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
