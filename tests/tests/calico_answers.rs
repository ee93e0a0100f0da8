//! Where Weir gives the answer that Calico gives: to addresses and pools that are asked for, and
//! to values that Calico refuses.

use serde_json::{Value, json};
use weir_tests::{Call, Cluster, Families};

const UNSUPPORTED: u64 = 2;
const INVALID: u64 = 7;

fn with_pools(cluster: Cluster) -> Cluster {
    cluster.create_pool("blue", json!({"cidr": "10.7.0.0/24"}));
    cluster.create_pool("six", json!({"cidr": "fd00:7::/112"}));
    cluster.create_pool("tunnels", json!({"cidr": "10.8.0.0/24", "allowedUses": ["Tunnel"]}));
    cluster
}

/// Adds, and deletes again: the address that was given, with its prefix length.
fn added(cluster: &Cluster, call: Call) -> String {
    let result = call.add(&cluster.node);
    call.delete(&cluster.node);
    result["ips"][0]["address"].as_str().expect("an address").to_owned()
}

fn addresses_asked_for(cluster: &Cluster) {
    let call = || cluster.ipam(Families::V4, "c1");
    let asked = |address: &str| call().with("CNI_ARGS", &format!("IgnoreUnknown=1;IP={address}"));
    assert_eq!(added(cluster, asked("10.7.0.70")), "10.7.0.70/32");
    let cases = [
        ("/runtimeConfig", json!({"ips": ["10.7.0.71/24"]}), "10.7.0.71/32"),
        ("/args", json!({"cni": {"ips": ["10.7.0.72"]}}), "10.7.0.72/32"),
        // Whatever its pool is for.
        ("/args", json!({"cni": {"ips": ["10.8.0.7"]}}), "10.8.0.7/32"),
    ];
    for (key, value, given) in cases {
        assert_eq!(added(cluster, call().configure(key, value)), given);
    }
    let six = cluster.ipam(Families::V6, "c1").with("CNI_ARGS", "IgnoreUnknown=1;IP=fd00:7::9");
    assert_eq!(added(cluster, six), "fd00:7::9/128");
    let gateway = asked("10.7.0.73").configure("/ipam/gateways", json!(["10.7.0.1/24"]));
    assert_eq!(added(cluster, gateway), "10.7.0.73/24");
    let any = added(cluster, call());
    assert!(any.ends_with("/26"), "{any}");
    asked("010.7.0.70/24").run(&cluster.node, "ADD").failure().expect(INVALID, &["010.7.0.70/24"]);
}

fn pools_asked_for(cluster: &Cluster) {
    let from = |key: &str, value: Value| cluster.ipam(Families::V4, "c1").configure(key, value);
    for (key, value) in
        [("/ipam/ipv4_pools", json!(["10.7.0.5/24"])), ("/ipam/subnet", json!("10.7.0.5/24"))]
    {
        let given = added(cluster, from(key, value));
        assert!(given.starts_with("10.7.0."), "{given}");
    }
    // What Go does not read as a CIDR is a name.
    for pool in ["010.7.0.0/24", "10.7.0.0/25", "tunnels"] {
        let answer = from("/ipam/ipv4_pools", json!([pool])).run(&cluster.node, "ADD");
        assert!(answer.failure().text.contains(pool), "{answer:?}");
    }
}

fn what_cannot_be_honoured(cluster: &Cluster) {
    let call = || cluster.ipam(Families::V4, "c1");
    let grpc = || call().configure("/dataplane_options", json!({"type": "grpc", "socket": "x"}));
    let refused = grpc().run(&cluster.node, "ADD");
    refused.failure().expect(UNSUPPORTED, &["dataplane_options.type", "grpc", "leave it out"]);
    grpc().delete(&cluster.node);
    added(cluster, call().configure("/dataplane_options", json!({"mtu": 5})));
    let yes = call().configure("/ipam/assign_ipv4", json!("yes")).run(&cluster.node, "ADD");
    yes.failure().expect(INVALID, &["ipam.assign_ipv4", "yes"]);
}

fn values_of_documents(cluster: &Cluster) {
    let refused = |arguments: &[&str], input: &str, says: &str| {
        let before = cluster.store.entries();
        let answer = cluster.weirctl_with(arguments, input);
        assert!(!answer.succeeded && answer.stderr.contains(says), "{arguments:?}: {answer:?}");
        assert_eq!(cluster.store.entries(), before);
    };
    let says = "natOutgoing must be true or false, not the text 'yes'; leave out the quotes";
    let pool = |nat: &str| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: p, labels: \
             {{disabled: \"yes\"}}}}, spec: {{cidr: 10.9.0.0/24, natOutgoing: {nat}}}}}"
        )
    };
    refused(&["create", "-f", "-"], &pool("\"yes\""), says);
    refused(&["patch", "ippool", "blue", "-p", r#"{"spec":{"natOutgoing":"yes"}}"#], "", says);
    refused(&["patch", "ippool", "blue", "-p", "spec: {natOutgoing: 'yes'}"], "", says);
    let created = cluster.weirctl_with(&["create", "-f", "-"], &pool("yes"));
    assert!(created.succeeded, "{created:?}");
    let shown = cluster.weirctl(&["get", "ippool", "p", "-o", "json"]).stdout;
    assert!(shown.contains("\"natOutgoing\": true"), "{shown}");
    assert!(shown.contains("\"disabled\": \"yes\""), "{shown}");
    let says = "IPPool CIDR must be a valid subnet); write its numbers without leading zeros";
    for command in ["delete", "get"] {
        refused(&[command, "ippool", "010.9.0.0/24"], "", says);
    }
    refused(&["patch", "ippool", "010.9.0.0/24", "-p", "{}"], "", says);
    refused(&["label", "ippool", "010.9.0.0/24", "a=b"], "", says);
    let v1 = "{apiVersion: v1, kind: ipPool, metadata: {cidr: 010.9.0.0/24}}";
    for command in ["create", "apply", "replace", "delete"] {
        refused(&[command, "-f", "-"], v1, says);
    }
    // Host bits name the same pool, as before.
    assert!(cluster.weirctl(&["delete", "ippool", "10.9.0.7/24"]).succeeded);
}

fn answers(cluster: &Cluster) {
    addresses_asked_for(cluster);
    pools_asked_for(cluster);
    what_cannot_be_honoured(cluster);
    values_of_documents(cluster);
}

#[test]
fn they_are_calicos_on_the_embedded_store() {
    answers(&with_pools(Cluster::embedded()));
}

#[test]
fn they_are_calicos_on_etcd() {
    answers(&with_pools(Cluster::etcd()));
}
