//! The examples in conf/ work as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use weir_tests::{
    Certificates, Cluster, CniTool, Etcd, EtcdOptions, Families, Place, Store, address, binaries,
};

fn conf() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../conf")
}

fn example(name: &str) -> Value {
    let path = conf().join("net.d").join(name);
    let text = fs::read_to_string(&path);
    let text = text.unwrap_or_else(|error| panic!("reading {}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A container can be added, reached and removed with this list.
fn assert_works(cluster: &Cluster, name: &str, addresses: usize) {
    let tool = CniTool::new(&cluster.node, &example(name));
    let container = cluster.node.container("web");
    let result = tool.add(&container);
    assert_eq!(result["ips"].as_array().map(Vec::len), Some(addresses), "{result}");
    for index in 0..addresses {
        assert!(cluster.node.reaches(address(&result, index)));
    }
    tool.check(&container);
    tool.delete(&container);
    container.remove();
}

#[test]
fn embedded() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    assert_works(&cluster, "10-weir.conflist", 1);
    cluster.assert_nothing_allocated();
}

#[test]
fn dual_stack() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    assert_works(&cluster, "10-weir-dual-stack.conflist", 2);
    cluster.assert_nothing_allocated();
}

#[test]
fn etcd() {
    let cluster = Cluster::etcd().with_pools(Families::V4);
    assert_works(&cluster, "10-weir-etcd.conflist", 1);
    cluster.assert_nothing_allocated();
}

#[test]
fn etcd_with_tls() {
    let certificates = Arc::new(Certificates::new());
    let node = weir_tests::Node::new("n1");
    for file in ["ca.pem", "client.pem", "client.key"] {
        let content = fs::read_to_string(certificates.path(file)).unwrap();
        node.write(&format!("/etc/weir/etcd/{file}"), &content);
    }
    let options = EtcdOptions { certificates: Some(certificates), ..Default::default() };
    let etcd = Etcd::start_with(&node, options);
    let cluster = Cluster { store: Store::Etcd(etcd), node }.with_pools(Families::V4);
    assert_works(&cluster, "10-weir-etcd-tls.conflist", 1);
    cluster.assert_nothing_allocated();
}

#[test]
fn every_list_is_shown_to_work() {
    let directory = fs::read_dir(conf().join("net.d")).unwrap();
    let mut lists: Vec<_> = directory.map(|entry| entry.unwrap().file_name()).collect();
    lists.sort();
    let shown = [
        "10-weir-dual-stack.conflist",
        "10-weir-etcd-tls.conflist",
        "10-weir-etcd.conflist",
        "10-weir.conflist",
    ];
    assert_eq!(lists, shown);
}

#[test]
fn weirctl_finds_the_datastore_in_the_list() {
    let cluster = Cluster::etcd();
    let Store::Etcd(etcd) = &cluster.store else { panic!("this cluster has an etcd") };
    let list = fs::read_to_string(conf().join("net.d/10-weir-etcd.conflist")).unwrap();
    cluster.node.write("/etc/cni/net.d/10-weir.conflist", &list);
    let weirctl = weir_tests::binaries().join("weirctl");
    let pools = conf().join("pools/ippool-v3.yaml");
    let line = [weirctl.to_str().unwrap(), "create", "-f", pools.to_str().unwrap()];
    cluster.node.run(&line);
    let key = "/calico/resources/v3/projectcalico.org/ippools/blue";
    assert!(etcd.entries().contains_key(key));
}

#[test]
fn the_units_are_good_and_their_flags_exist() {
    unit_is_good("weir-node.service", "node run", &[]);
    unit_is_good("weir-docker.service", "docker run", &["weir-docker.socket"]);
}

/// A unit runs `weirctl` with `verb`, and systemd takes it together with `others`.
fn unit_is_good(name: &str, verb: &str, others: &[&str]) {
    let path = conf().join("systemd").join(name);
    let unit = fs::read_to_string(&path).expect("the unit");
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    let (program, arguments) = command.split_once(' ').expect("arguments");
    let weirctl = binaries().join("weirctl");
    let help = Command::new(&weirctl).args(verb.split(' ')).arg("--help").output();
    let help = help.expect("weirctl");
    let help = String::from_utf8_lossy(&help.stdout);
    assert!(arguments.starts_with(verb), "{arguments}");
    for flag in arguments.split(' ').filter(|word| word.starts_with("--")) {
        assert!(help.contains(flag), "{flag}: {help}");
    }
    // systemd looks for the program, which is not installed here.
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join(name);
    let weirctl = weirctl.to_str().expect("a path in UTF-8");
    fs::write(&copy, unit.replace(program, weirctl)).expect("a copy of the unit");
    let others = others.iter().map(|other| conf().join("systemd").join(other));
    let verify = Command::new("systemd-analyze").arg("verify").arg(&copy).args(others).output();
    let verify = verify.expect("these tests need systemd-analyze (Debian: systemd)");
    let said = String::from_utf8_lossy(&verify.stderr);
    assert!(verify.status.success() && !said.contains("weir-"), "{said}");
}
