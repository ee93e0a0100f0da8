//! Commands that users of calicoctl look for: each does what its counterpart does.

use std::process::Command;

use weir_tests::{Answer, Call, Cluster, Families, Place, binaries};

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
    let missing = ["node", "checksystem", "--kernel-config", "/run/absent"];
    let refused = cluster.weirctl(&missing);
    assert!(
        !refused.succeeded && refused.stderr.contains("/run/absent cannot be read"),
        "{refused:?}"
    );
}

fn code(cluster: &Cluster, call: &Call, command: &str) -> u64 {
    let call = match command {
        "STATUS" => call.clone().configure("/cniVersion", "1.1.0".into()),
        _ => call.clone(),
    };
    call.run(&cluster.node, command).failure().code
}

fn lock_and_unlock(cluster: Cluster) {
    let succeed = |line: &[&str]| {
        let answer = cluster.weirctl(line);
        assert!(answer.succeeded, "{line:?}: {answer:?}");
        answer.stdout
    };
    let container = cluster.node.container("web");
    let call = cluster.weir(Families::V4, &container);
    for (lock, unlock) in [
        (&["datastore", "lock"][..], &["datastore", "unlock"][..]),
        (&["datastore", "migrate", "lock"], &["datastore", "migrate", "unlock"]),
    ] {
        assert_eq!(succeed(lock), "Datastore locked.\n");
        let locked = cluster.store.entries();
        assert_eq!(succeed(lock), "Datastore locked.\n", "again");
        for (command, expected) in [("ADD", 11), ("STATUS", 50), ("DEL", 11)] {
            assert_eq!(code(&cluster, &call, command), expected, "{command}");
        }
        let refused = cluster.weirctl(&["delete", "ippool", "blue"]);
        assert!(refused.stderr.contains("weirctl datastore unlock"), "{refused:?}");
        assert_eq!(cluster.store.entries(), locked, "nothing changed");
        assert_eq!(succeed(unlock), "Datastore unlocked.\n");
        call.add(&cluster.node);
        call.delete(&cluster.node);
    }
    let version = succeed(&["version"]);
    let lines: Vec<_> = version.lines().collect();
    assert_eq!(lines[0], format!("Client Version:    {}", env!("CARGO_PKG_VERSION")));
    assert_eq!(&lines[1..3], ["Cluster Version:   unknown", "Cluster Type:      unknown"]);
    let guid = lines[3].strip_prefix("Cluster GUID:      ").expect("the GUID");
    assert_eq!(guid.len(), 32, "{version}");
}

#[test]
fn a_locked_datastore_is_left_alone_until_it_is_unlocked_on_the_embedded_one() {
    lock_and_unlock(Cluster::embedded().with_pools(Families::V4));
}

#[test]
fn a_locked_datastore_is_left_alone_until_it_is_unlocked_on_etcd() {
    lock_and_unlock(Cluster::etcd().with_pools(Families::V4));
}

#[test]
fn what_is_not_there_is_not_locked_and_tells_no_version() {
    let cluster = Cluster::embedded();
    let refused = cluster.weirctl(&["datastore", "lock"]);
    assert!(!refused.succeeded && refused.stderr.contains("no datastore at"), "{refused:?}");
    let away = cluster.weirctl(&["version", "--etcd-endpoints", "http://127.0.0.1:1"]);
    assert_eq!(away.status, Some(1), "{away:?}");
    assert!(away.stdout.starts_with("Client Version:"), "{away:?}");
    assert!(away.stderr.contains("Unable to retrieve Cluster Version or Type"), "{away:?}");
}

#[test]
fn pools_of_the_old_form_are_converted_without_a_datastore() {
    let cluster = Cluster::embedded();
    let v1 = "apiVersion: v1\nkind: ipPool\nmetadata: {cidr: 10.254.0.0/24}\n\
              spec: {ipip: {enabled: true, mode: cross-subnet}, nat-outgoing: true}\n";
    let convert = |input: &str, flags: &[&str]| {
        cluster.weirctl_with(&[&["convert", "-f", "-"], flags].concat(), input)
    };
    let converted = convert(v1, &[]);
    assert!(converted.succeeded, "{converted:?}");
    for line in ["apiVersion: projectcalico.org/v3", "kind: IPPool", "  ipipMode: CrossSubnet"] {
        assert!(converted.stdout.lines().any(|it| it == line), "{line}: {converted:?}");
    }
    // What it prints is what create reads.
    let created = cluster.weirctl_with(&["create", "-f", "-"], &converted.stdout);
    assert!(created.succeeded, "{created:?}");
    let two = format!("{v1}---\n{}", v1.replace("10.254.0", "10.255.0"));
    let json = convert(&two, &["-o", "json"]);
    let list: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(list[1]["spec"]["cidr"], "10.255.0.0/24");
    let policy = convert(&v1.replace("ipPool", "policy"), &[]);
    assert!(!policy.succeeded && policy.stderr.contains("(policy)"), "{policy:?}");
    let wrong = v1.replace("/24", "/99");
    assert!(convert(&wrong, &[]).stderr.contains("10.254.0.0/99"));
    assert!(convert(&wrong, &["--ignore-validation"]).succeeded);
}

#[test]
fn what_stays_out_says_what_to_do_and_levels_are_accepted_everywhere() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    for (line, words) in [
        (&["ipam", "split", "2", "--cidr=10.0.0.0/16"][..], "disabled: true"),
        (&["datastore", "migrate", "export"], "weirctl datastore backup"),
        (&["datastore", "migrate", "import", "-f", "x"], "weirctl datastore restore"),
    ] {
        let answer = cluster.weirctl(line);
        assert_eq!(answer.status, Some(1), "{answer:?}");
        assert!(answer.stderr.contains(words), "{line:?}: {answer:?}");
    }
    for line in [
        &["-l", "panic", "get", "ippool"][..],
        &["--log-level=debug", "ipam", "show"],
        &["get", "ippool", "-l", "warn"],
        &["ipam", "check", "--log-level", "fatal"],
    ] {
        let answer = cluster.weirctl(line);
        assert!(answer.succeeded && answer.stderr.is_empty(), "{line:?}: {answer:?}");
    }
    let wrong = cluster.weirctl(&["-l", "loud", "get", "ippool"]);
    assert!(wrong.stderr.contains("write error, warn, info or debug"), "{wrong:?}");
}
