//! The files of the embedded datastore: copied, backed up, restored, replaced under a running
//! agent.

use serde_json::json;
use weir_tests::{Agent, Cluster, Families, Place, Store, until};

const DATABASE: &str = "/var/lib/weir/weir.db";

/// A node with an agent that has read its datastore.
fn with_agent() -> (Cluster, Agent) {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let agent =
        Agent::start(&cluster.node, &cluster.store, "n1", &["--ip-autodetection-method", "none"]);
    until("the agent has read the datastore", || agent.answer("/health").is_some());
    (cluster, agent)
}

fn backup(cluster: &Cluster, file: &str) {
    let answer = cluster.weirctl(&["datastore", "backup", file]);
    assert!(answer.succeeded, "{answer:?}");
    assert!(answer.stdout.contains(file) && answer.stdout.contains("key(s)"), "{answer:?}");
}

fn has_gone_back(agent: &Agent) -> bool {
    agent.log().contains("has gone back in time")
}

#[test]
fn a_copy_without_its_log_is_refused() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let call = cluster.ipam(Families::V4, "first");
    call.add(&cluster.node);
    let files =
        "cd /var/lib/weir && mkdir /run/away && cp weir.db /run/away && rm weir.db-wal weir.db-shm";
    cluster.node.run(&["sh", "-c", files]);
    for _ in 0..2 {
        let failure = cluster.ipam(Families::V4, "second").run(&cluster.node, "ADD").failure();
        failure.expect(5, &[DATABASE, "weir.db-wal", "is missing", "weirctl datastore restore"]);
    }
    // The cure that the message names.
    cluster.node.run(&["sh", "-c", "rm /var/lib/weir/weir.db*"]);
    let restore = ["datastore", "restore", "/run/away/weir.db"];
    let answer = cluster.weirctl(&restore);
    assert!(!answer.succeeded && answer.stderr.contains("is missing"), "{answer:?}");
    let answer = cluster.weirctl(&[&restore[..], &["--force"]].concat());
    assert!(answer.succeeded, "{answer:?}");
}

#[test]
fn a_backup_is_restored_while_plugins_and_agent_run() {
    let (cluster, agent) = with_agent();
    cluster.ipam(Families::V4, "kept").add(&cluster.node);
    backup(&cluster, "/run/backup.db");
    let mode = cluster.node.run(&["stat", "-c", "%a", "/run/backup.db"]);
    assert_eq!(mode.trim(), "600");
    let again = cluster.weirctl(&["datastore", "backup", "/run/backup.db"]);
    assert!(!again.succeeded && again.stderr.contains("already"), "{again:?}");
    let before = cluster.store.entries();
    cluster.ipam(Families::V4, "lost").add(&cluster.node);

    let answer = cluster.weirctl(&["datastore", "restore", "/run/backup.db"]);
    assert!(!answer.succeeded && answer.stderr.contains("agent runs"), "{answer:?}");
    let answer = cluster.weirctl(&["datastore", "restore", "/run/backup.db", "--force"]);
    assert!(answer.succeeded, "{answer:?}");
    until("the agent notices", || has_gone_back(&agent));
    let now = cluster.store.entries();
    for (key, value) in before.iter().filter(|(key, _)| key.contains("/ipam/")) {
        assert_eq!(now.get(key), Some(value), "{key}");
    }
    cluster.ipam(Families::V4, "later").add(&cluster.node);
}

#[test]
fn a_file_that_is_replaced_under_the_agent_is_noticed() {
    let (cluster, agent) = with_agent();
    backup(&cluster, "/run/backup.db");
    cluster.create_pool("later", json!({"cidr": "10.8.0.0/24"}));
    cluster.ipam(Families::V4, "first").add(&cluster.node);
    let replace = "cd /var/lib/weir && cp -p /run/backup.db new && rm weir.db-wal weir.db-shm && mv new weir.db";
    cluster.node.run(&["sh", "-c", replace]);
    until("the agent notices", || has_gone_back(&agent));
    // It goes by the new file now.
    cluster.create_pool("other", json!({"cidr": "10.9.0.0/24"}));
    cluster.node.run(&[
        "sh",
        "-c",
        "cd /var/lib/weir && mkdir /run/old && mv weir.db weir.db-* /run/old",
    ]);
    let told = || agent.answer("/health").is_some_and(|it| it.contains("was removed"));
    until("the agent tells that the file is gone", told);
}

#[test]
fn a_gc_brings_the_file_itself_up_to_date() {
    // Without an agent, which would do it every minute.
    let cluster = Cluster::embedded().with_pools(Families::V4);
    cluster.ipam(Families::V4, "first").add(&cluster.node);
    let is_whole = || {
        cluster.node.run(&["cp", DATABASE, "/run/copy.db"]);
        let found = cluster.node.run(&["sh", "-c", "grep -c pods.first /run/copy.db || true"]);
        found.trim() != "0"
    };
    assert!(!is_whole(), "the log has it");
    let gc = cluster.ipam(Families::V4, "first").configure("/cniVersion", "1.1.0".into());
    let valid = json!([{"containerID": "first", "ifname": "eth0"}]);
    gc.configure("/cni.dev~1valid-attachments", valid).run(&cluster.node, "GC").silence();
    assert!(is_whole());
}

#[test]
fn for_etcd_the_command_is_printed() {
    let cluster = Cluster::etcd();
    let Store::Etcd(etcd) = &cluster.store else { panic!("it has an etcd") };
    let endpoint = etcd.endpoint();
    let answer = cluster.weirctl(&["datastore", "backup", "/run/backup.db"]);
    assert!(!answer.succeeded && answer.stderr.contains("nothing was done"), "{answer:?}");
    let command = format!("etcdctl --endpoints={endpoint} snapshot save /run/backup.db");
    assert_eq!(answer.stdout.trim(), command);
    let answer = cluster.weirctl(&["datastore", "restore", "/run/backup.db"]);
    assert!(!answer.succeeded && answer.stderr.contains("nothing was done"), "{answer:?}");
    assert!(answer.stdout.starts_with("etcdutl snapshot restore /run/backup.db"), "{answer:?}");
}
