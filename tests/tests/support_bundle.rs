//! `weirctl support-bundle`: what a maintainer needs is in it, secrets are not, and neither what
//! hangs nor what is huge keeps it from its end.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};
use weir_tests::{Agent, Answer, Cluster, Families, Node, Place, Store, binaries, until};

const FILE: &str = "/run/bundle.txt";
const CONFLIST: &str = "/etc/cni/net.d/10-weir.conflist";

/// A bundle of this cluster's node. What takes longer than a minute is ended, and fails.
fn bundle(cluster: &Cluster, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new("timeout");
    command.arg("60").arg(binaries().join("weirctl")).args(["support-bundle", FILE]);
    command.envs(cluster.store.environment()).envs(variables.iter().copied());
    let answer = Answer::of(&cluster.node.output(&mut command, ""));
    assert!(answer.succeeded, "{answer:?}");
    assert!(answer.stdout.starts_with(&format!("Wrote {FILE}: ")), "{answer:?}");
    cluster.node.read(FILE)
}

/// What is under the title, which is that of one section.
fn section<'a>(bundle: &'a str, title: &str) -> &'a str {
    let mut parts = bundle.split("\n======== ").skip(1);
    let found = parts.find_map(|part| {
        let (head, body) = part.split_once('\n')?;
        (head.split_once(". ")?.1 == title).then_some(body)
    });
    found.unwrap_or_else(|| panic!("no section {title}: {}", contents(bundle)))
}

fn contents(bundle: &str) -> &str {
    bundle.split("\n======== ").next().unwrap_or_default()
}

/// A network on this cluster with a container in it.
fn with_container(cluster: &Cluster, configure: impl FnOnce(&mut Value)) {
    let mut list = cluster.list(cluster.plugin(Families::V4));
    configure(&mut list);
    cluster.node.write(CONFLIST, &list.to_string());
    let container = cluster.node.container("web");
    cluster.weir(Families::V4, &container).add(&cluster.node);
}

#[test]
fn it_has_what_a_maintainer_needs_and_is_never_written_over() {
    let cluster = Cluster::etcd().with_pools(Families::V4);
    with_container(&cluster, |list| list["plugins"][0]["log_file_path"] = "/run/weir.log".into());
    cluster.node.write("/run/weir.log", "{\"msg\": \"a line of the plugin\"}\n");
    let agent = Agent::start(&cluster.node, &cluster.store, "n1", &[]);
    until("the agent is well", || agent.is_well());
    let bundle = bundle(&cluster, &[]);
    for (title, words) in [
        ("weirctl version", "Client Version:"),
        ("weirctl doctor --metrics-address 127.0.0.1:9098", "datastore"),
        ("weirctl node status --metrics-address 127.0.0.1:9098", "n1"),
        ("weirctl ipam check", "found 0 problems"),
        ("weirctl ipam show --show-blocks", "10.7.0.0/"),
        ("weirctl get ippool -o json", "\"10.7.0.0/"),
        ("http://127.0.0.1:9098/health", "ok"),
        ("http://127.0.0.1:9098/metrics", "weir_node_"),
        (CONFLIST, "\"weir-ipam\""),
        ("/run/weir.log", "a line of the plugin"),
        ("/run/weir/state.json", "n1"),
        ("/proc/version", "Linux"),
        ("kernel parameters", "net.ipv4.ip_forward = 1"),
        ("files in /run/weir", "ipam.lock"),
        ("ip -details -statistics address", "weir:pods:"),
        ("nft list table inet weir-sources", "table inet weir-sources"),
    ] {
        let text = section(&bundle, title);
        assert!(text.contains(words), "{title}: {words}: {text}");
    }
    let mode = cluster.node.enter(|| std::fs::metadata(FILE).map(|it| it.permissions().mode()));
    assert_eq!(mode.expect("the bundle is there") & 0o777, 0o600);

    let again = cluster.weirctl(&["support-bundle", FILE]);
    assert!(!again.succeeded && again.stderr.contains("File exists"), "{again:?}");
    assert_eq!(cluster.node.read(FILE), bundle);
}

#[test]
fn secrets_that_stand_anywhere_are_not_in_it() {
    let cluster = Cluster::etcd().with_pools(Families::V4);
    let pem = "-----BEGIN EC PRIVATE KEY-----\nMHcCpem-secret\n-----END EC PRIVATE KEY-----\n";
    with_container(&cluster, |list| {
        let plugin = &mut list["plugins"][0];
        plugin["log_file_path"] = "/run/weir.log".into();
        plugin["kubernetes"] = json!({"k8s_auth_token": "token-secret"});
        let other = json!({"type": "other", "db": {"passphrase": ["list-secret"]}, "key": pem});
        list["plugins"].as_array_mut().expect("a list").push(other);
    });
    let node = &cluster.node;
    node.write("/etc/cni/net.d/99-broken.conflist", "{\"etcd_password\": \"broken-secret\", oops");
    node.write("/etc/cni/net.d/kubeconfig", "users:\n- user:\n    token: kube-secret\n");
    let settings =
        "etcd_endpoints: http://127.0.0.1:2379\netcd_username: weir\netcd_password: yaml-secret\n";
    let inline: String = pem.lines().map(|line| format!("  {line}\n")).collect();
    node.write("/etc/weir/weirctl.yaml", &format!("{settings}etcdKey: |\n{inline}"));
    node.write("/etc/default/weir-node", "ETCD_PASSWORD=default secret\n");
    node.write("/etc/weir/secrets/bgp/tor", "bgp-secret\n");
    node.write("/run/weir/bird/bird.conf", "protocol bgp x {\n  password \"bird-secret\";\n}\n");
    // The passwords that the node knows are found without a word before them.
    let log = format!(
        "{{\"msg\": \"bgp-secret yaml-secret default secret environment-secret\"}}\n{pem}\
         http://user:url-secret@127.0.0.1:2379 password=log-secret\n"
    );
    node.write("/run/weir.log", &log);
    let Store::Etcd(etcd) = &cluster.store else { unreachable!("it has an etcd") };
    let applied = json!({"spec": {"password": "applied-secret"}}).to_string();
    let peer = json!({
        "metadata": {"name": "tor", "annotations": {"last-applied": applied, "token": "note-secret"}},
        "spec": {"peerIP": "172.30.0.1", "asNumber": "65000", "plainPassword": "spec-secret",
                 "password": {"secretKeyRef": {"name": "bgp", "key": "tor"}}}
    });
    etcd.put("/calico/resources/v3/projectcalico.org/bgppeers/tor", &peer.to_string());

    let bundle = bundle(&cluster, &[("WEIR_TEST_TOKEN", "environment-secret")]);
    // They were read.
    assert!(section(&bundle, "weirctl get bgppeer -o json").contains("172.30.0.1"));
    assert!(section(&bundle, "weirctl get bgppeer -o json").contains("\"key\": \"tor\""));
    assert!(section(&bundle, "/etc/weir/weirctl.yaml").contains("etcd_username: weir"));
    assert!(section(&bundle, "/run/weir/bird/bird.conf").contains("protocol bgp x"));
    assert!(section(&bundle, "/run/weir.log").contains("127.0.0.1:2379"));
    let broken = section(&bundle, "/etc/cni/net.d/99-broken.conflist");
    assert!(broken.contains("not JSON"), "{broken}");
    for secret in [
        "pem-secret",
        "token-secret",
        "list-secret",
        "broken-secret",
        "kube-secret",
        "yaml-secret",
        "default secret",
        "bgp-secret",
        "bird-secret",
        "environment-secret",
        "url-secret",
        "log-secret",
        "applied-secret",
        "note-secret",
        "spec-secret",
    ] {
        let line = bundle.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

#[test]
fn what_hangs_says_so_and_the_rest_is_there() {
    let cluster = Cluster::etcd().with_pools(Families::V4);
    with_container(&cluster, |_| {});
    let Store::Etcd(etcd) = &cluster.store else { unreachable!("it has an etcd") };
    etcd.freeze();
    // It takes connections and never answers.
    let agent = cluster.node.enter(|| TcpListener::bind("127.0.0.1:9098"));
    let _agent = agent.expect("nothing else listens on the node");
    cluster.node.run(&["mkfifo", "/etc/cni/net.d/99-fifo"]);
    cluster.node.write("/run/bin/journalctl", "#!/bin/sh\nexec sleep 1000\n");
    cluster.node.run(&["chmod", "755", "/run/bin/journalctl"]);
    let path = format!("/run/bin:{}", std::env::var("PATH").expect("a PATH"));
    let bundle = bundle(&cluster, &[("PATH", &path)]);
    for (title, words) in [
        ("weirctl get ippool -o json", "the datastore does not answer"),
        ("http://127.0.0.1:9098/health", "no answer within 2 s"),
        ("/etc/cni/net.d/99-fifo", "not a regular file"),
        ("ip -details -statistics address", "weir:pods:"),
        (CONFLIST, "\"weir-ipam\""),
    ] {
        let text = section(&bundle, title);
        assert!(text.contains(words), "{title}: {words}: {text}");
    }
    assert!(contents(&bundle).contains("--output=short-iso (it did not end in time)"), "{bundle}");
}

#[test]
fn a_huge_store_is_left_out_or_cut() {
    let cluster = Cluster::etcd().with_pools(Families::V4);
    let Store::Etcd(etcd) = &cluster.store else { unreachable!("it has an etcd") };
    let junk = "x".repeat(1 << 20);
    for number in 0..20 {
        let node = json!({"metadata": {"name": format!("h{number}"), "annotations": {"a": junk}}});
        etcd.put(
            &format!("/calico/resources/v3/projectcalico.org/nodes/h{number}"),
            &node.to_string(),
        );
    }
    let bundle = bundle(&cluster, &[]);
    assert!(bundle.len() <= 20 << 20, "{}", bundle.len());
    let nodes = section(&bundle, "weirctl get node -o json");
    assert!(nodes.contains("not JSON"), "{}", &nodes[..nodes.len().min(500)]);
    assert!(section(&bundle, "weirctl get node -o wide").contains("h19"));
    assert!(section(&bundle, "weirctl get ippool -o json").contains("10.7.0.0/"));
}

#[test]
fn a_machine_without_anything_has_a_bundle() {
    let node = Node::bare("empty");
    let mut command = Command::new(binaries().join("weirctl"));
    command.arg("support-bundle").env_clear().env("PATH", "/nowhere").current_dir("/run");
    let answer = Answer::of(&node.output(&mut command, ""));
    assert!(answer.succeeded, "{answer:?}");
    let name = answer.stdout.strip_prefix("Wrote ").and_then(|it| it.split(':').next());
    let name = name.expect("it says what it wrote");
    assert!(name.starts_with("weir-support-empty-"), "{name}");
    let bundle = node.read(&format!("/run/{name}"));
    assert!(section(&bundle, "ip -4 rule").contains("ip does not start"), "{bundle}");
    assert!(section(&bundle, "/run/weir/state.json").contains("No such file"), "{bundle}");
    assert!(section(&bundle, "weirctl version").contains("Client Version:"), "{bundle}");
}
