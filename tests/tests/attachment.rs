//! What an attachment looks like, by configuration and by wish.

use serde_json::{Value, json};
use weir_tests::{Call, Cluster, CniTool, Container, Families, Node, Place, host_interface, merge};

#[test]
fn results_have_the_form_of_the_configurations_version() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    let container = cluster.node.container("web");
    let call = cluster.weir(Families::Dual, &container);
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let call = call.clone().configure("/cniVersion", version.into());
        let result = call.add(&cluster.node);
        assert_eq!(result["cniVersion"], version);
        if version < "0.3.0" {
            assert!(result["ip4"]["ip"].as_str().is_some_and(|ip| ip.ends_with("/32")), "{result}");
            assert!(
                result["ip6"]["ip"].as_str().is_some_and(|ip| ip.ends_with("/128")),
                "{result}"
            );
            assert!(result.get("interfaces").is_none() && result.get("ips").is_none(), "{result}");
        } else {
            assert_interfaces(&result, &container);
            let versions = [0, 1].map(|index| result["ips"][index].get("version").cloned());
            let expected = |family: &str| (version < "1.0.0").then(|| Value::from(family));
            assert_eq!(versions, [expected("4"), expected("6")], "{version}");
        }
        call.delete(&cluster.node);
    }
}

/// The host's end, without a sandbox, and the container's are listed, as they
/// are.
fn assert_interfaces(result: &Value, container: &Container) {
    let interfaces = result["interfaces"].as_array().expect("a result lists interfaces");
    assert_eq!(interfaces.len(), 2, "{result}");
    let inside = interfaces.iter().find(|interface| interface["sandbox"] == container.path());
    let inside = inside.unwrap_or_else(|| panic!("{} should be in {result}", container.path()));
    assert_eq!(inside["name"], "eth0");
    assert_eq!(inside["mac"], container.link("eth0")["address"]);
    let host = container.node().link(host_interface(result));
    assert!(interfaces.iter().any(|interface| interface["mac"] == host["address"]), "{result}");
}

#[test]
fn the_host_link_carries_the_attachment() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let container = cluster.node.container("web");
    let result = cluster.weir(Families::V4, &container).add(&cluster.node);
    let link = cluster.node.link(host_interface(&result));
    let alias = link["ifalias"].as_str().unwrap();
    for part in ["pods", "web", "eth0"] {
        assert!(alias.contains(part), "{alias} should tell {part}");
    }
}

#[test]
fn the_mtu_is_the_configured_one_or_the_nodes() {
    let cluster = Cluster::embedded_on(Node::with_mtu("n1", 1400));
    let cluster = cluster.with_pools(Families::V4);
    for (configured, expected) in [(None, 1400), (Some(0), 1400), (Some(1300), 1300)] {
        let container = cluster.node.container(&format!("web{expected}{}", configured.is_some()));
        let mut call = cluster.weir(Families::V4, &container);
        if let Some(mtu) = configured {
            call = call.configure("/mtu", mtu.into());
        }
        let result = call.add(&cluster.node);
        assert_eq!(container.link("eth0")["mtu"], expected, "{configured:?}");
        let host = cluster.node.link(host_interface(&result));
        assert_eq!(host["mtu"], expected, "{configured:?}");
    }
}

#[test]
fn the_hardware_address_can_be_asked_for() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let mut plugin = cluster.plugin(Families::V4);
    plugin["capabilities"] = json!({"mac": true});
    let tool = CniTool::new(&cluster.node, &cluster.list(plugin));
    let asked = "02:00:5e:10:00:01";
    let by_capability = tool.clone().with("CAP_ARGS", &format!(r#"{{"mac":"{asked}"}}"#));
    let by_argument = tool.with("CNI_ARGS", &format!("IgnoreUnknown=1;MAC={asked}"));
    for (name, tool) in [("first", by_capability), ("second", by_argument)] {
        let container = cluster.node.container(name);
        let result = tool.add(&container);
        assert_eq!(container.link("eth0")["address"], asked, "{name}");
        assert!(result["interfaces"].to_string().contains(asked));
        tool.delete(&container);
    }
    let container = cluster.node.container("third");
    let args = json!({"cni": {"mac": asked}});
    cluster.weir(Families::V4, &container).configure("/args", args).add(&cluster.node);
    assert_eq!(container.link("eth0")["address"], asked);
}

#[test]
fn an_address_can_be_asked_for() {
    let cluster = Cluster::embedded().with_pools(Families::Dual);
    let by_argument = cluster.node.container("argument");
    let call = cluster.weir(Families::V4, &by_argument);
    let result = call.with("CNI_ARGS", "IgnoreUnknown=1;IP=10.7.0.70").add(&cluster.node);
    assert_eq!(result["ips"][0]["address"], "10.7.0.70/32");
    let asked = json!({"ips": ["10.7.0.71", "fd00:7::71"]});
    for (name, pointer) in [("args", "/args"), ("runtime", "/runtimeConfig")] {
        let container = cluster.node.container(name);
        let asked = asked.clone();
        let value = if pointer == "/args" { json!({"cni": asked}) } else { asked };
        let call = cluster.weir(Families::Dual, &container).configure(pointer, value);
        let result = call.add(&cluster.node);
        assert_eq!(result["ips"][0]["address"], "10.7.0.71/32", "{name}");
        assert_eq!(result["ips"][1]["address"], "fd00:7::71/128", "{name}");
        call.delete(&cluster.node);
    }
}

#[test]
fn containers_forward_only_when_allowed() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    for (name, allowed) in [("plain", false), ("router", true)] {
        let container = cluster.node.container(name);
        let settings = json!({"allow_ip_forwarding": allowed});
        let call = cluster.weir(Families::V4, &container);
        call.configure("/container_settings", settings).add(&cluster.node);
        let forwarding = container.run(&["cat", "/proc/sys/net/ipv4/ip_forward"]);
        assert_eq!(forwarding.trim() == "1", allowed, "{name}");
    }
}

#[test]
fn the_host_holds_its_blocks_under_the_configured_name() {
    let cluster = Cluster::embedded_on(Node::new("Machine")).with_pools(Families::V4);
    cluster.node.write("/etc/weir/nodename", "from-file\n");
    let named = |name: Option<(&str, &str)>| {
        let mut plugin = cluster.plugin(Families::V4);
        let members = plugin.as_object_mut().unwrap();
        members.remove("nodename");
        members.extend(name.map(|(key, value)| (key.to_owned(), value.into())));
        merge(&mut plugin, json!({"cniVersion": "1.0.0", "name": "pods"}));
        Call::new("weir-ipam", plugin).with("CNI_NETNS", "/run/netns/none")
    };
    for (id, key, host) in [
        ("c1", None, "machine"),
        ("c2", Some(("nodename", "n7")), "n7"),
        ("c3", Some(("nodename_file", "/etc/weir/nodename")), "from-file"),
    ] {
        named(key).with("CNI_CONTAINERID", id).add(&cluster.node);
        let prefix = format!("/calico/ipam/v2/host/{host}/ipv4/block/");
        let entries = cluster.store.entries();
        assert!(entries.keys().any(|key| key.starts_with(&prefix)), "{id}: {entries:?}");
    }
}
