//! `docs/migrate-from-calico.md`, command by command, on a node whose datastore Calico wrote.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use weir_tests::{CniTool, Moved, Place, allocations, binaries, until};

/// What services and Kubernetes are asked for is written down here.
const ASKED: &str = "/run/asked";

/// The conflist as Calico installs it, but for the endpoints.
fn calicos(endpoints: &Value) -> Value {
    json!({"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": [{
        "type": "calico", "log_level": "info", "log_file_path": "/run/calico-cni.log",
        "etcd_endpoints": endpoints, "nodename": "n1", "mtu": 0,
        "ipam": {"type": "calico-ipam"}, "container_settings": {"allow_ip_forwarding": false},
    }]})
}

/// The blocks of the document that a test runs, in order.
fn blocks() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/migrate-from-calico.md");
    let text = fs::read_to_string(path).expect("the document");
    let parts = text.split("```sh test\n").skip(1);
    parts.map(|part| part.split("```").next().expect("a block's end").to_owned()).collect()
}

/// Runs a block, which must succeed, and returns what it says.
fn run(moved: &Moved, block: &str) -> String {
    let node = &moved.cluster.node;
    let endpoints = moved.cluster.store.configuration()["etcd_endpoints"].clone();
    let script = format!(
        "set -eux\nexport PATH={}:$PATH ETCD_ENDPOINTS={}\n\
         systemctl() {{ echo \"systemctl $*\" >>{ASKED}; }}\n\
         kubectl() {{ echo \"kubectl $*\" >>{ASKED}; }}\n{block}\n",
        binaries().display(),
        endpoints.as_str().expect("endpoints"),
    );
    let output = node.output(Command::new("sh").current_dir("/run"), &script);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{block}\n{said}\n{errors}");
    said
}

#[test]
fn a_node_moves_and_goes_back_as_the_document_says() {
    let mut moved = Moved::without_agent("small");
    let node = moved.cluster.node.clone();
    let endpoints = moved.cluster.store.configuration()["etcd_endpoints"].clone();
    let list = calicos(&endpoints).to_string();
    node.write("/etc/cni/net.d/10-calico.conflist", &list);
    node.write(ASKED, "");
    let had = allocations(&moved.cluster.store.entries());
    let mut container = None;
    for block in blocks() {
        if block.contains("disable --now weir-node") {
            // Drained first, as the document says.
            let (tool, container): (CniTool, _) = container.take().expect("Weir has moved in");
            tool.delete(&container);
            node.run(&["rm", "/etc/cni/net.d/10-k8s-pod-network.conflist"]);
        }
        if block.starts_with("systemctl disable --now weir-node") {
            // Before what follows in the block, or it makes again what that removes.
            moved.agent.take().expect("an agent").stop();
        }
        let asked = node.read(ASKED).len();
        let said = run(&moved, &block);
        let asked = node.read(ASKED)[asked..].to_owned();
        if asked.contains("enable --now weir-node") {
            moved.start_agent();
            until("the agent is well", || {
                moved.agent.as_ref().is_some_and(|agent| agent.is_well())
            });
            let list = node.read("/etc/cni/net.d/10-weir.conflist");
            let list: Value = serde_json::from_str(&list).expect("a conflist");
            let container_and_tool = (CniTool::new(&node, &list), node.container("first"));
            let result = container_and_tool.0.add(&container_and_tool.1);
            let address = result["ips"][0]["address"].as_str().expect("an address").to_owned();
            let address = address.split('/').next().expect("an address").parse();
            assert!(!had.contains_key(&address.expect("an address")), "{result}");
            container = Some(container_and_tool);
        }
        if block.contains("weirctl node status") {
            assert!(said.contains("192.168.217.0/26 via 172.18.0.12 dev eth0"), "{said}");
            assert!(said.contains("found 0 problems"), "{said}");
        }
    }
    let asked = node.read(ASKED);
    for service in ["systemctl disable --now calico-node", "systemctl enable --now calico-node"] {
        assert!(asked.contains(service), "{asked}");
    }
    // As it was: Calico's file, no route, link or table of Weir's, and all addresses.
    let files = node.run(&["ls", "/etc/cni/net.d"]);
    assert_eq!(files.trim(), "10-calico.conflist");
    assert_eq!(node.read("/etc/cni/net.d/10-calico.conflist"), list);
    let left = [
        "ip route show table all proto 77",
        "ip -6 route show table all proto 77",
        "ip -o link show type veth",
        "nft list tables inet",
    ]
    .map(|command| node.run(&command.split(' ').collect::<Vec<_>>()));
    assert!(left.iter().all(|left| !left.contains("weir") && !left.contains("172.18")), "{left:?}");
    let after = moved.cluster.store.entries();
    moved.assert_only_own_changed(&after);
    assert_eq!(allocations(&after), had);
}
