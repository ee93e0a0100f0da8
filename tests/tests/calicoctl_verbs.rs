//! Commands that users of calicoctl look for: each does what its counterpart does.

use std::process::Command;

use weir_tests::{Answer, Cluster, Place, binaries};

#[test]
fn checksystem_needs_no_datastore_and_finds_the_kernel_fit() {
    let cluster = Cluster::etcd();
    let mut command = Command::new(binaries().join("weirctl"));
    command.args(["node", "checksystem"]).env("ETCD_ENDPOINTS", "http://127.0.0.1:1");
    let answer = Answer::of(&cluster.node.output(&mut command, ""));
    assert!(answer.succeeded, "the tests run here: {answer:?}");
    let result = |what: &str| {
        let line = answer.stdout.lines().find(|line| line.starts_with(&format!("\t\t{what}")));
        line.and_then(|line| line.split_whitespace().last()).unwrap_or_default().to_owned()
    };
    for part in ["veth", "nf_tables", "nft_masq", "net.ipv4.ip_forward", "nft "] {
        assert_eq!(result(part), "OK", "{part}: {answer:?}");
    }
    assert!(answer.stdout.ends_with("System meets minimum system requirements to run Weir!\n"));
    let missing = ["node", "checksystem", "--kernel-config", "/nowhere"];
    let refused = cluster.weirctl(&missing);
    assert!(
        !refused.succeeded && refused.stderr.contains("/nowhere cannot be read"),
        "{refused:?}"
    );
}
