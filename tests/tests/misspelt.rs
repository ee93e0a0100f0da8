//! A misspelt name never leads to the embedded datastore, and what makes or searches one says
//! which, and who named it.

use std::process::Command;

use weir_tests::{Answer, Cluster, Families, Place, binaries};

const INVALID_CONFIGURATION: u64 = 7;
const NO_ADDRESS: u64 = 101;
const DEFAULT_FILE: &str = "/var/lib/weir/weir.db";
const POOL: &str = "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: blue}, \
                    spec: {cidr: 10.7.0.0/24}}";

/// Runs `weirctl create` of one pool with these variables and flags alone.
fn create(cluster: &Cluster, variables: &[(&str, &str)], flags: &[&str]) -> Answer {
    let mut command = Command::new(binaries().join("weirctl"));
    command.env_clear().envs(variables.iter().copied()).args(flags);
    command.args(["apply", "-f", "-"]);
    Answer::of(&cluster.node.output(&mut command, POOL))
}

fn has_file(cluster: &Cluster, path: &str) -> bool {
    let found = cluster.node.run(&["sh", "-c", &format!("if test -e {path}; then echo yes; fi")]);
    !found.is_empty()
}

#[test]
fn no_misspelt_name_makes_a_file() {
    let cluster = Cluster::etcd();
    let endpoint = cluster.store.environment().pop().expect("an endpoint").1;
    let refused = |variables: &[(&str, &str)], flags: &[&str], words: &[&str]| {
        let answer = create(&cluster, variables, flags);
        assert_eq!(answer.status, Some(1), "{variables:?}, {flags:?}: {answer:?}");
        for word in words {
            assert!(answer.stderr.contains(word), "{word}: {answer:?}");
        }
        assert!(!has_file(&cluster, DEFAULT_FILE), "{variables:?}, {flags:?}");
    };
    refused(
        &[("ETCD_ENDPOINT", &endpoint)],
        &[],
        &["ETCD_ENDPOINT is unknown; write ETCD_ENDPOINTS"],
    );
    refused(&[("WEIR_ETCD_ENDPOINTS", &endpoint)], &[], &["write ETCD_ENDPOINTS"]);
    refused(&[("CALICO_DATASTORE_TYPE", "kubernetes")], &[], &["\"kubernetes\""]);
    let (own, calicoctls) = ("/etc/weir/weirctl.yaml", "/etc/weir/calicoctl.cfg");
    for key in ["etcdEndpoint", "etcd_endpoint"] {
        let words = [key, "did you mean etcd_endpoints?"];
        cluster.node.write(own, &format!("{key}: {endpoint}\n"));
        refused(&[], &[], &words);
        cluster.node.write(calicoctls, &format!("spec: {{{key}: '{endpoint}'}}\n"));
        refused(&[], &["--config", calicoctls], &words);
    }
    cluster.node.write(own, "");
    refused(&[], &["--config", own], &["names no datastore"]);
    cluster.node.run(&["mv", own, "/etc/weir/weirctl.yml"]);
    refused(&[], &[], &["/etc/weir/weirctl.yml is not read"]);
    cluster.node.run(&["rm", "/etc/weir/weirctl.yml"]);
    let list = "/etc/cni/net.d/10-weir.conflist";
    let mut plugin = cluster.plugin(Families::V4);
    plugin.as_object_mut().expect("an object").remove("datastore_type");
    let endpoints = plugin.as_object_mut().expect("an object").remove("etcd_endpoints");
    plugin["etcd_endpoint"] = endpoints.expect("endpoints");
    cluster.node.write(list, &cluster.list(plugin).to_string());
    refused(&[], &[], &[list, "write \"etcd_endpoints\""]);
    cluster.node.run(&["rm", list]);
    // With calicoctl's prefix the etcd is found.
    let answer = create(&cluster, &[("CALICO_ETCD_ENDPOINTS", &endpoint)], &[]);
    assert!(answer.succeeded && answer.stderr.is_empty(), "{answer:?}");
    assert!(cluster.store.entries().keys().any(|key| key.ends_with("/ippools/blue")));
    assert!(!has_file(&cluster, DEFAULT_FILE));
}

#[test]
fn an_embedded_datastore_is_made_where_one_is_asked_for() {
    let cluster = Cluster::embedded();
    let by_default = create(&cluster, &[], &[]);
    assert!(!by_default.succeeded, "{by_default:?}");
    for words in [DEFAULT_FILE, "--datastore-type=embedded"] {
        assert!(by_default.stderr.contains(words), "{by_default:?}");
    }
    assert!(!has_file(&cluster, DEFAULT_FILE));
    // Nor does a plugin make one, whatever a key far from every known one may have meant.
    let container = cluster.node.container("web");
    let call = cluster.weir(Families::V4, &container);
    call.run(&cluster.node, "ADD").failure().expect(NO_ADDRESS, &["where there is none", "init"]);
    call.delete(&cluster.node);
    let misspelt = call.configure("/my_etcd_servers", "http://127.0.0.1:1".into());
    let failure = misspelt.run(&cluster.node, "ADD").failure();
    failure.expect(INVALID_CONFIGURATION, &["my_etcd_servers", "etcd_endpoints"]);
    assert!(!has_file(&cluster, DEFAULT_FILE));
    let asked_for = create(&cluster, &[("DATASTORE_TYPE", "embedded")], &[]);
    assert!(asked_for.succeeded && asked_for.stderr.is_empty(), "{asked_for:?}");
    let again = create(&cluster, &[], &[]);
    assert!(again.succeeded && again.stderr.is_empty(), "{again:?}");
    let asked_for = create(&cluster, &[], &["--datastore-path", "/run/other.db"]);
    assert!(asked_for.succeeded && asked_for.stderr.is_empty(), "{asked_for:?}");
}

/// One call with a misspelt key of the datastore, and with a network that has no pool.
fn told_by_plugins(cluster: &Cluster, looked_in: &str, by: &str) {
    let container = cluster.node.container("web");
    let call = cluster.weir(Families::V4, &container);
    for main in [call.clone(), cluster.ipam(Families::V4, "c1")] {
        let misspelt = main.configure("/etcdEndpoint", "http://127.0.0.1:1".into());
        for command in ["ADD", "DEL", "STATUS"] {
            let call = match command {
                "STATUS" => misspelt.clone().configure("/cniVersion", "1.1.0".into()),
                _ => misspelt.clone(),
            };
            let failure = call.run(&cluster.node, command).failure();
            assert_eq!(failure.code, INVALID_CONFIGURATION, "{command}: {failure:?}");
            assert!(failure.text.contains("write \"etcd_endpoints\""), "{failure:?}");
            assert!(!has_file(cluster, DEFAULT_FILE), "{command}");
        }
    }
    let failure = call.run(&cluster.node, "ADD").failure();
    assert_eq!(failure.code, NO_ADDRESS, "{failure:?}");
    for words in ["no IPv4 pool is configured", &format!("looked in {looked_in} ({by}")] {
        assert!(failure.text.contains(words), "{failure:?}");
    }
    let foretold = cluster.weirctl(&["ipam", "explain", "--node", "n1"]);
    let words = format!("looked in {looked_in} (named by the environment)");
    assert!(foretold.stderr.contains(&words), "{foretold:?}");
    container.remove();
}

#[test]
fn plugins_tell_which_datastore_has_no_pool_on_the_embedded_one() {
    let cluster = Cluster::embedded();
    told_by_plugins(&cluster, &format!("embedded, {DEFAULT_FILE}"), "the default");
}

#[test]
fn plugins_tell_which_datastore_has_no_pool_on_etcd() {
    let cluster = Cluster::etcd();
    let endpoint = cluster.store.environment().pop().expect("an endpoint").1;
    told_by_plugins(&cluster, &format!("etcd, {endpoint}"), "named by the network configuration");
}
