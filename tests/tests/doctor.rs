//! `weirctl doctor`: a healthy node has nothing to do, and each kind of trouble that is planted on
//! one is found, named and advised, by itself.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use weir_tests::{
    Agent, Certificates, Cluster, Etcd, EtcdOptions, Families, Network, Place, Store, binaries,
    cni_path, until,
};

const CONFLIST: &str = "/etc/cni/net.d/10-weir.conflist";

/// A kind of trouble.
struct Trouble {
    /// The commands that make it, for sh.
    plant: &'static str,
    /// The commands that end it.
    heal: &'static str,
    /// The subject that it is found under.
    subject: &'static str,
    /// Words of what is said: what, on what value.
    words: &'static [&'static str],
    /// Words of what to do.
    advice: &'static str,
}

/// A node with a network of Weir's, two containers in it and no trouble.
struct World {
    // The node's way out.
    _network: Network,
    cluster: Cluster,
}

impl World {
    fn embedded() -> Self {
        let network = Network::new();
        Self { cluster: Cluster::embedded_on(network.node(1)), _network: network }.settle()
    }

    fn etcd() -> Self {
        let network = Network::new();
        let node = network.node(1);
        let options = EtcdOptions { quota: Some(16 << 20), ..EtcdOptions::default() };
        let store = Store::Etcd(Etcd::start_with(&node, options));
        Self { cluster: Cluster { node, store }, _network: network }.settle()
    }

    fn settle(self) -> Self {
        let cluster = &self.cluster;
        cluster.create_pool("blue", json!({"cidr": "10.7.0.0/24", "natOutgoing": true}));
        let list = cluster.list(cluster.plugin(Families::V4));
        cluster.node.write(CONFLIST, &list.to_string());
        for name in ["one", "two"] {
            let container = cluster.node.container(name);
            cluster.weir(Families::V4, &container).add(&cluster.node);
        }
        self
    }

    fn its_etcd(&self) -> &Etcd {
        match &self.cluster.store {
            Store::Etcd(etcd) => etcd,
            Store::Embedded(_) => unreachable!("it has an etcd"),
        }
    }

    /// Runs commands on the node. There, `edit` changes the network's file by sed.
    fn run(&self, commands: &str) {
        let path = binaries().display().to_string();
        let variables = self.cluster.store.environment().into_iter();
        let variables: String = variables.map(|(name, value)| format!(" {name}={value}")).collect();
        let script = format!(
            "set -e\nexport PATH={path}:$PATH{variables}\n\
             edit() {{ cp {CONFLIST} /run/kept; sed -i \"$1\" {CONFLIST}; }}\n\
             back() {{ cp /run/kept {CONFLIST}; }}\n{commands}\n"
        );
        self.cluster.node.run_with(&["sh"], &script);
    }

    /// What doctor says, and whether it says so by its exit status.
    fn examine(&self) -> Value {
        self.examine_with(&[])
    }

    fn examine_with(&self, flags: &[&str]) -> Value {
        let path = format!("/run/bin:{}", cni_path());
        let line = [&["doctor", "--cni-path", &path, "-o", "json"], flags].concat();
        let answer = self.cluster.weirctl(&line);
        let document: Value = serde_json::from_str(&answer.stdout)
            .unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        assert_eq!(answer.succeeded, document["exitStatus"] == 0, "{answer:?}");
        document
    }

    /// Plants each trouble, and requires that doctor finds it, and nothing when it is ended.
    fn meets(&self, troubles_to_plant: &[Trouble]) {
        is_well(&self.examine(), "at first");
        for Trouble { plant, heal, subject, words, advice } in troubles_to_plant {
            self.run(plant);
            finds(&self.examine(), plant, (subject, words, advice));
            self.run(heal);
            is_well(&self.examine(), heal);
        }
    }
}

fn is_well(document: &Value, after: &str) {
    assert_eq!(document["exitStatus"], 0, "{after}: {}", troubles(document));
}

/// Requires that a trouble of the subject has all these words, and this word in its advice; and
/// that every trouble has some advice.
fn finds(document: &Value, planted: &str, (subject, words, advice): (&str, &[&str], &str)) {
    let advice_of = |finding: &Value| finding["advice"].as_str().unwrap_or_default().to_owned();
    let found = findings(document, "trouble").any(|finding| {
        let said = format!("{} {}", finding["what"], finding["value"]);
        finding["subject"] == subject
            && words.iter().all(|word| said.contains(word))
            && advice_of(finding).contains(advice)
    });
    assert!(found, "{planted}: {}", troubles(document));
    let advised = findings(document, "trouble").all(|finding| !advice_of(finding).is_empty());
    assert!(advised, "{planted}: {}", troubles(document));
    assert_eq!(document["exitStatus"], 1, "{planted}");
}

fn findings<'a>(document: &'a Value, grade: &'a str) -> impl Iterator<Item = &'a Value> {
    let all = document["findings"].as_array().into_iter().flatten();
    all.filter(move |finding| finding["grade"] == grade)
}

fn troubles(document: &Value) -> String {
    let not_good = ["trouble", "unseen"].iter().flat_map(|grade| findings(document, grade));
    not_good.map(|finding| format!("\n{finding}")).collect()
}

#[test]
fn a_healthy_node_has_nothing_to_do() {
    let world = World::embedded();
    let answer = world.cluster.weirctl(&["doctor", "--cni-path", &cni_path()]);
    assert!(answer.succeeded, "{answer:?}");
    assert!(answer.stdout.ends_with("\nNothing to do.\n"), "{}", answer.stdout);
}

#[test]
fn each_trouble_of_a_node_is_found() {
    let troubles = [
        Trouble {
            plant: "echo 0 >/proc/sys/net/ipv4/ip_forward",
            heal: "echo 1 >/proc/sys/net/ipv4/ip_forward",
            subject: "kernel",
            words: &["does not forward"],
            advice: "sysctl -w net.ipv4.ip_forward=1",
        },
        Trouble {
            plant: "edit 's/\"type\":\"weir\"/\"allowed_source_prefixes\":[\"10.9.0.0\\/24\"],&/'
                    echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter",
            heal: "back; echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter",
            subject: "kernel",
            words: &["rp_filter = 1", "allowed_source_prefixes"],
            advice: "sysctl -w net.ipv4.conf.all.rp_filter=0",
        },
        Trouble {
            plant: "nft 'add table ip docker; add chain ip docker FORWARD \
                    { type filter hook forward priority 0; policy drop; }'",
            heal: "nft delete table ip docker",
            subject: "firewall",
            words: &["drops what the node forwards", "table ip docker"],
            advice: "plugin \"firewall\" after weir",
        },
        Trouble {
            plant: "nft list table inet weir >/run/nat; nft delete table inet weir",
            heal: "nft -f /run/nat",
            subject: "containers",
            words: &["natOutgoing", "table inet weir"],
            advice: "weirctl node run --once",
        },
        Trouble {
            plant: "nft list table inet weir-sources >/run/sources
                    nft delete table inet weir-sources",
            heal: "nft -f /run/sources",
            subject: "containers",
            words: &["filter of what containers send", "table inet weir-sources"],
            advice: "weirctl node run --once",
        },
        Trouble {
            plant: "for link in $(ls /proc/sys/net/ipv4/conf | grep ^weir); do
                    ip link set $link down; done",
            heal: "weirctl node repair",
            subject: "containers",
            words: &["is down", "container one"],
            advice: "weirctl node repair",
        },
        Trouble {
            plant: "for link in $(ls /proc/sys/net/ipv4/conf | grep ^weir); do
                    ip route flush dev $link proto 77; done",
            heal: "weirctl node repair",
            subject: "containers",
            words: &["no route leads to container two"],
            advice: "weirctl node repair",
        },
        Trouble {
            plant: "for file in /proc/sys/net/ipv4/conf/weir*/proxy_arp; do echo 0 >$file; done",
            heal: "weirctl node repair",
            subject: "containers",
            words: &["container two has lost a setting", "proxy_arp"],
            advice: "weirctl node repair",
        },
        Trouble {
            plant: "ip route show type blackhole >/run/routes; ip route flush type blackhole",
            heal: "ip route add $(cat /run/routes)",
            subject: "cluster",
            words: &["the kernel lacks this route", "10.7.0."],
            advice: "weirctl node run --once",
        },
        Trouble {
            plant: "mv /etc/cni/net.d/10-weir.conflist /run/kept",
            heal: "mv /run/kept /etc/cni/net.d/10-weir.conflist",
            subject: "networks",
            words: &["no network has a plugin of Weir's", "/etc/cni/net.d"],
            advice: "10-weir.conflist",
        },
        Trouble {
            plant: "edit 's/}]}$/},]}/'",
            heal: "back",
            subject: "networks",
            words: &["not a network configuration", "10-weir.conflist"],
            advice: "correct it",
        },
        Trouble {
            plant: "ln -s /nowhere /etc/cni/net.d/20-lost.conflist",
            heal: "rm /etc/cni/net.d/20-lost.conflist",
            subject: "networks",
            words: &["cannot be read", "20-lost.conflist"],
            advice: "move it away",
        },
        Trouble {
            plant: "echo '{\"cniVersion\":\"1.0.0\",\"name\":\"x\",\"type\":\"bridge\"}' \
                    >/etc/cni/net.d/05-bridge.conf",
            heal: "rm /etc/cni/net.d/05-bridge.conf",
            subject: "networks",
            words: &["comes before /etc/cni/net.d/10-weir.conflist", "05-bridge.conf"],
            advice: "mv -n /etc/cni/net.d/05-bridge.conf",
        },
        Trouble {
            plant: "cp /etc/cni/net.d/10-weir.conflist /etc/cni/net.d/11-copy.conflist",
            heal: "rm /etc/cni/net.d/11-copy.conflist",
            subject: "networks",
            words: &["two networks are called pods", "11-copy.conflist"],
            advice: "a name of its own",
        },
        Trouble {
            plant: "cp /etc/cni/net.d/10-weir.conflist /run/kept
                    mv /etc/cni/net.d/10-weir.conflist /etc/cni/net.d/10-weir.conf",
            heal: "back; rm /etc/cni/net.d/10-weir.conf",
            subject: "networks",
            words: &["only a .conflist has a list", "10-weir.conf"],
            advice: "mv -n /etc/cni/net.d/10-weir.conf /etc/cni/net.d/10-weir.conflist",
        },
        Trouble {
            plant: "edit 's/\"1.0.0\"/\"1.3.0\"/'",
            heal: "back",
            subject: "networks",
            words: &["1.3.0", "10-weir.conflist"],
            advice: "use one of 0.1.0",
        },
        Trouble {
            plant: "edit 's/\"type\":\"weir\"/\"etcd_endpoint\":\"http:\\/\\/10.0.0.1:2379\",&/'",
            heal: "back",
            subject: "networks",
            words: &["etcd_endpoint", "10-weir.conflist"],
            advice: "etcd_endpoints",
        },
        Trouble {
            plant: "edit 's/\"log_level\":\"info\"/\"log_level\":\"loud\"/'",
            heal: "back",
            subject: "networks",
            words: &["log_level", "loud"],
            advice: "write error, warning, info or debug",
        },
        Trouble {
            plant: "edit 's/\"type\":\"weir\"/\"type\":\"wier\"/'",
            heal: "back",
            subject: "plugins",
            words: &["plugin wier", "in none of the directories"],
            advice: "correct the type",
        },
        Trouble {
            plant: "mkdir -p /run/bin; echo nothing >/run/bin/weir",
            heal: "rm /run/bin/weir",
            subject: "plugins",
            words: &["plugin weir does not run", "/run/bin/weir"],
            advice: "install it again",
        },
        Trouble {
            plant: "printf '#!/bin/sh\\necho weir 0.0.9: an older one >&2\\n\
                    echo {\\\"supportedVersions\\\":[\\\"1.0.0\\\"]}\\n' >/run/bin/weir
                    chmod +x /run/bin/weir",
            heal: "rm /run/bin/weir",
            subject: "plugins",
            words: &["weir has version 0.0.9, and weirctl has", "/run/bin/weir"],
            advice: "of one release",
        },
        Trouble {
            plant: "edit 's/}]}$/},{\"type\":\"portmap\"}]}/; s/\"1.0.0\"/\"1.1.0\"/'",
            heal: "back",
            subject: "plugins",
            words: &["portmap does not support cniVersion 1.1.0", "/portmap"],
            advice: "\"cniVersion\": \"1.0.0\"",
        },
        Trouble {
            plant: "edit 's/\"type\":\"weir\"/\"mtu\":9000,&/'",
            heal: "back",
            subject: "mtu",
            words: &["mtu 9000 is larger than 1500", "10-weir.conflist"],
            advice: "leave the key mtu out",
        },
        Trouble {
            plant: "ip link set eth0 mtu 1400",
            heal: "ip link set eth0 mtu 1500",
            subject: "mtu",
            words: &["container one has MTU 1500", "takes 1400"],
            advice: "delete and add",
        },
        Trouble {
            plant: "weirctl patch ippool blue -p 'spec: {disabled: true}'",
            heal: "weirctl patch ippool blue -p 'spec: {disabled: false}'",
            subject: "pools",
            words: &["the next container gets no address", "blue"],
            advice: "weirctl",
        },
        Trouble {
            plant: "weirctl patch ippool blue -p 'spec: {ipipMode: Always}'",
            heal: "weirctl patch ippool blue -p 'spec: {ipipMode: Never}'",
            subject: "mtu",
            words: &["container two has MTU 1500", "takes 1480"],
            advice: "delete and add",
        },
        Trouble {
            plant: ": >/run/empty; mount --bind /run/empty $(readlink -f /usr/sbin/nft)",
            heal: "umount $(readlink -f /usr/sbin/nft)",
            subject: "kernel",
            words: &["the program nft does not run"],
            advice: "nftables",
        },
        Trouble {
            plant: "ip address add 10.7.0.200/24 dev eth0",
            heal: "ip address delete 10.7.0.200/24 dev eth0",
            subject: "pools",
            words: &["overlaps", "address 10.7.0.200/24 of eth0", "blue, 10.7.0.0/24"],
            advice: "another range",
        },
        Trouble {
            plant: "edit 's/\"nodename\":\"n1\"/\"nodename\":\"n7\"/'",
            heal: "back",
            subject: "name",
            words: &["n7", "n1", "/var/lib/weir/nodename"],
            advice: "weirctl node rename n1 n7",
        },
        Trouble {
            plant: "edit 's/\"datastore_type\":\"embedded\"/&,\"datastore_path\":\"\\/srv\\/weir.db\"/'",
            heal: "back",
            subject: "datastore",
            words: &["another datastore, /srv/weir.db", "10-weir.conflist"],
            advice: "one datastore",
        },
        Trouble {
            plant: "mv /var/lib/weir/weir.db /run/weir.db; mv /var/lib/weir/weir.db-wal /run",
            heal: "mv /run/weir.db /run/weir.db-wal /var/lib/weir",
            subject: "datastore",
            words: &["is not there", "/var/lib/weir/weir.db"],
            advice: "weirctl init",
        },
        Trouble {
            plant: "cp /var/lib/weir/weir.db /run/weir.db; mv /var/lib/weir/weir.db-wal /run
                    echo nonsense >/var/lib/weir/weir.db",
            heal: "mv /run/weir.db /run/weir.db-wal /var/lib/weir",
            subject: "datastore",
            words: &["/var/lib/weir/weir.db"],
            advice: "restore it from a copy",
        },
    ];
    World::embedded().meets(&troubles);
}

#[test]
fn each_trouble_of_a_store_is_found() {
    let information = "/calico/resources/v3/projectcalico.org/clusterinformations/default";
    assert_eq!(information, weir_common::datastore::keys::CLUSTER_INFORMATION);
    let troubles = [
        Trouble {
            plant: "etcdctl put /calico/resources/v3/projectcalico.org/nodes/n2 \
                    '{\"kind\":\"Node\",\"metadata\":{\"name\":\"n2\"}}'",
            heal: "etcdctl del /calico/resources/v3/projectcalico.org/nodes/n2",
            subject: "name",
            words: &["no node of this name is registered, but n2", "n1"],
            advice: "weirctl node run --once",
        },
        Trouble {
            plant: "KEY=/calico/weir/v1/machines/n1; etcdctl get --print-value-only $KEY >/run/old
                    etcdctl put $KEY '{\"machine\":\"0123456789abcdef\"}'",
            heal: "etcdctl put /calico/weir/v1/machines/n1 -- \"$(cat /run/old)\"",
            subject: "name",
            words: &["node name n1 belongs to machine 0123456789abcdef"],
            advice: "",
        },
        Trouble {
            plant: "KEY=/calico/resources/v3/projectcalico.org/clusterinformations/default
                    etcdctl get --print-value-only $KEY >/run/old
                    etcdctl put $KEY '{\"kind\":\"ClusterInformation\",\"metadata\":\
                    {\"name\":\"default\"},\"spec\":{\"datastoreReady\":false}}'",
            heal: "etcdctl put /calico/resources/v3/projectcalico.org/clusterinformations/default \
                   -- \"$(cat /run/old)\"",
            subject: "pools",
            words: &["the next container gets no address", "datastoreReady"],
            advice: "",
        },
        Trouble {
            plant: "etcdctl put /calico/resources/v3/projectcalico.org/ippools/bad '{\"x\":'",
            heal: "etcdctl del /calico/resources/v3/projectcalico.org/ippools/bad",
            subject: "cluster",
            words: &["ippools/bad", "look at it with the datastore's own client"],
            advice: "",
        },
    ];
    World::etcd().meets(&troubles);
}

#[test]
fn an_etcd_that_is_away_full_or_has_another_time_is_found() {
    let mut world = World::etcd();
    is_well(&world.examine(), "at first");
    world.its_etcd().freeze();
    let endpoint = ["127.0.0.1:2379"];
    finds(&world.examine(), "a frozen etcd", ("datastore", &endpoint, "etcd"));
    world.its_etcd().thaw();
    until("etcd answers", || world.its_etcd().is_healthy());
    world.its_etcd().fill();
    finds(&world.examine(), "a full etcd", ("datastore", &["it is full"], "etcdctl alarm"));
    world.its_etcd().make_room();
    is_well(&world.examine(), "room was made");

    let with = |other: &str| {
        let endpoints = format!("{},http://{other}", world.its_etcd().endpoint());
        world.examine_with(&["--etcd-endpoints", &endpoints])
    };
    let dead = ["this endpoint does not answer", "127.0.0.1:4001"];
    finds(&with("127.0.0.1:4001"), "a dead member", ("datastore", &dead, "endpoint health"));
    let listener = world.cluster.node.enter(|| TcpListener::bind("127.0.0.1:4002").unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // It may be another kind of client, which hangs up.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream
                .write_all(b"HTTP/1.0 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n{}");
        }
    });
    let words = ["this node's clock is", "s ahead of etcd's", "127.0.0.1:4002"];
    finds(&with("127.0.0.1:4002"), "another time", ("datastore", &words, "timedatectl"));

    match &mut world.cluster.store {
        Store::Etcd(etcd) => etcd.stop(),
        Store::Embedded(_) => unreachable!("it has an etcd"),
    }
    finds(&world.examine(), "an etcd that is away", ("datastore", &endpoint, "etcd"));
}

#[test]
fn an_etcd_with_tls_tells_its_time_too() {
    let network = Network::new();
    let node = network.node(1);
    let certificates = Some(Arc::new(Certificates::new()));
    let store = Store::Etcd(Etcd::start_with(
        &node,
        EtcdOptions { certificates, ..EtcdOptions::default() },
    ));
    let cluster = Cluster { node, store };
    let answer = cluster.weirctl(&["doctor", "-o", "json"]);
    let document: Value = serde_json::from_str(&answer.stdout).unwrap();
    let mut good = findings(&document, "good").map(|finding| finding["what"].to_string());
    assert!(good.any(|what| what.contains("clock agrees with etcd's")), "{document}");
}

#[test]
fn an_agent_that_is_not_well_or_has_another_name_is_found() {
    let world = World::etcd();
    let Cluster { node, store } = &world.cluster;
    let agent = Agent::start(node, store, "n1", &[]);
    until("the agent has started", || agent.is_well());
    let well = || world.examine()["exitStatus"] == 0;
    until("the agent has given the containers' routes their source", well);
    world.its_etcd().freeze();
    until("the agent is not well", || agent.is_unwell());
    finds(&world.examine(), "an unwell agent", ("agent", &["not well", "9098"], "journalctl"));
    world.its_etcd().thaw();
    until("the agent is well", || agent.is_well());
    agent.stop();
    let _agent = Agent::start(node, store, "n9", &[]);
    let state = ["grep", "-q", "\"n9\"", "/run/weir/state.json"];
    until("the agent keeps the node as n9", || node.succeeds(&state));
    let words = ["called n1", "its agent runs as n9"];
    finds(&world.examine(), "another name", ("name", &words, "give both one name"));
}

#[test]
fn leaked_addresses_are_found() {
    let world = World::embedded();
    let cluster = &world.cluster;
    cluster.age_allocations();
    world.run("ip link delete $(ls /proc/sys/net/ipv4/conf | grep ^weir | head -n 1)");
    let words = ["10.7.0.", "address-without-attachment"];
    finds(&world.examine(), "a leak", ("addresses", &words, "weirctl ipam check --repair"));
    world.run("weirctl ipam check --repair");
    is_well(&world.examine(), "the leak is repaired");
}

#[test]
fn a_machine_without_anything_is_looked_at_too() {
    let cluster = Cluster::embedded();
    let look = || {
        let mut command = Command::new(binaries().join("weirctl"));
        cluster.node.output(command.args(["doctor", "-o", "json"]), "")
    };
    let answer = look();
    let document: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let nothing = ["nothing names a datastore", "/var/lib/weir/weir.db"];
    finds(&document, "no datastore", ("datastore", &nothing, "weirctl init"));
    finds(&document, "no network", ("networks", &["/etc/cni/net.d"], "10-weir.conflist"));
    assert_eq!(answer.status.code(), Some(1));
    cluster.node.write("/etc/weir/weirctl.yaml", "etcdEndpoint: http://10.0.0.1:2379");
    let document: Value = serde_json::from_slice(&look().stdout).unwrap();
    let misspelt = ["etcdEndpoint", "/etc/weir/weirctl.yaml"];
    finds(&document, "a misspelt key", ("datastore", &misspelt, "etcd_endpoints"));
    cluster.node.run(&["rm", "/etc/weir/weirctl.yaml"]);
    assert!(cluster.weirctl(&["get", "ippool"]).stderr.contains("there is no datastore"));
}
