//! What is said of facts, without a node.

use std::time::Duration;

use jiff::Timestamp;
use weir_common::audit::{AuditContext, Report};
use weir_common::ipam::IpamSnapshot;
use weir_common::network::{
    ActualState, AttachmentIdentity, AttachmentState, ClusterPool, ClusterState, Families,
    ForwardFilters, NamedNode, NodeState, Peer, PolicyRule, PoolTunnel, Underlay, UnderlayLink,
};
use weir_common::tunnel::TunnelKind;
use weir_kernel::Occupied;

use super::facts::{
    AgentFacts, ExaminedNode, KernelFacts, NameFacts, NetworkFacts, NextAddress, ProgramFacts,
    StoreFacts,
};
use super::judgement::{Diagnosis, Grade};
use super::{judge, words};
use crate::kernel_modules::KERNEL_MODULES;
use crate::location::{Location, Source};
use crate::output::Style;
use crate::tests::golden;

const LIST: &str = r#"{"name": "pods", "cniVersion": "1.0.0", "plugins": [
    {"type": "weir", "ipam": {"type": "weir-ipam"}}, {"type": "portmap"}]}"#;

fn program(name: &str) -> ProgramFacts {
    ProgramFacts {
        name: name.to_owned(),
        file: "/etc/cni/net.d/10-weir.conflist".into(),
        cni_version: "1.0.0".to_owned(),
        path: Some(format!("/opt/cni/bin/{name}").into()),
        directories: "/opt/cni/bin".to_owned(),
        supports: Ok(vec!["0.4.0".to_owned(), "1.0.0".to_owned()]),
        release: None,
    }
}

fn kernel() -> KernelFacts {
    let attachment = AttachmentState {
        identity: AttachmentIdentity::new("pods", "c1", "eth0").unwrap(),
        up: true,
        mtu: 1500,
        carrier: true,
        is_checked: true,
        allowed_sources: [].into(),
        sandbox: None,
        addresses: vec!["10.7.0.1".parse().unwrap()],
        ready_for: Families::default(),
    };
    let link = UnderlayLink {
        name: "eth0".to_owned(),
        mtu: 1500,
        addresses: vec!["172.16.0.1/24".parse().unwrap()],
    };
    KernelFacts {
        release: "6.1.0-13-amd64".to_owned(),
        missing_modules: Vec::new(),
        is_node: Some(true),
        state: NodeState { ipv4_forwarding: true, ..NodeState::default() },
        rp_filter: "0".to_owned(),
        attachments: vec![attachment],
        host_ends: Vec::new(),
        has_nat: Ok(true),
        has_source_filter: Ok(true),
        filters: ForwardFilters::default(),
        rules: Vec::new(),
        occupied: Vec::new(),
        underlay: Underlay { links: vec![link], ..Underlay::default() },
        actual: ActualState::default(),
        uplink_mtu: 1500,
    }
}

/// A node with nothing to do.
fn healthy() -> ExaminedNode {
    let file = || "/etc/cni/net.d/10-weir.conflist".into();
    let named = || NamedNode { name: "n1".to_owned(), source: "the host's name".to_owned() };
    let pool = ClusterPool {
        cidr: "10.7.0.0/16".parse().unwrap(),
        tunnel: None,
        nat_outgoing: true,
        has_tunnel_addresses: true,
        is_exported: true,
    };
    let node = Peer { ipv4: Some("172.16.0.1/24".parse().unwrap()), ..Peer::default() };
    ExaminedNode {
        networks: NetworkFacts {
            directory: "/etc/cni/net.d".into(),
            files: vec![(file(), LIST.to_owned())],
            unreadable: Vec::new(),
            has_docker: false,
        },
        programs: vec![program("weir"), program("portmap")],
        store: StoreFacts {
            location: Ok(Location { configuration: Default::default(), source: Source::Default }),
            missing: None,
            answer: Ok(Duration::from_millis(2)),
            writable: Ok(()),
            elsewhere: Vec::new(),
            clocks: Vec::new(),
        },
        names: NameFacts {
            networks: vec![(file(), Ok(named()))],
            default: Ok(named()),
            kept: Default::default(),
            clash: None,
        },
        kernel: Ok(kernel()),
        nft: Ok("nftables v1.0.6".to_owned()),
        cluster: Ok(ClusterState {
            nodes: [("n1".to_owned(), node)].into(),
            pools: [("blue".to_owned(), pool)].into(),
            ..ClusterState::default()
        }),
        next: Ok(vec![NextAddress {
            file: file(),
            outcome: Ok(vec!["10.7.0.2".parse().unwrap()]),
        }]),
        audit: Ok(Report::new(
            &IpamSnapshot::default(),
            &[],
            &AuditContext::new(None, Timestamp::UNIX_EPOCH),
        )),
        agent: AgentFacts::default(),
    }
}

fn diagnose(facts: &ExaminedNode) -> Diagnosis {
    Diagnosis { node: facts.names.own(), judgements: judge(facts) }
}

/// What is said with this grade after a change of the healthy node.
fn said(grade: Grade, change: impl FnOnce(&mut ExaminedNode)) -> String {
    let mut facts = healthy();
    change(&mut facts);
    let diagnosis = diagnose(&facts);
    let of_grade = diagnosis.of_grade(grade);
    of_grade
        .map(|it| format!("{}: {} ({}); {}\n", it.subject, it.what, it.value, it.advice))
        .collect()
}

fn kernel_of(facts: &mut ExaminedNode) -> &mut KernelFacts {
    facts.kernel.as_mut().unwrap()
}

#[test]
fn a_healthy_node_has_nothing_to_do() {
    let diagnosis = diagnose(&healthy());
    let other = diagnosis.judgements.iter().find(|it| it.grade != Grade::Good);
    assert_eq!((other, diagnosis.exit_status()), (None, 0));
}

type Change = fn(&mut ExaminedNode);

/// Those that the end-to-end tests cannot plant.
#[test]
fn each_trouble_is_named_and_advised() {
    let troubles: [(Change, [&str; 2]); 15] = [
        (
            |it| kernel_of(it).release = "4.19.0".to_owned(),
            ["kernel: Weir needs Linux 5.6", "boot"],
        ),
        (
            |it| kernel_of(it).missing_modules = KERNEL_MODULES.iter().collect(),
            [
                "kernel: the kernel lacks a module for NAT (natOutgoing) and published ports",
                "modprobe veth",
            ],
        ),
        (|it| kernel_of(it).is_node = Some(false), ["kernel: this network namespace", "nsenter"]),
        (
            |it| kernel_of(it).attachments[0].addresses.push("fd00::1".parse().unwrap()),
            ["net.ipv6.conf.all.forwarding = 0", "sysctl -w net.ipv6.conf.all.forwarding=1"],
        ),
        (
            |it| {
                let cluster = it.cluster.as_mut().unwrap();
                let other =
                    Peer { ipv4: Some("172.16.0.2/24".parse().unwrap()), ..Peer::default() };
                cluster.nodes.insert("n2".to_owned(), other);
                let block = "10.7.1.0/26".parse().unwrap();
                cluster.blocks.insert(block, ["n2".to_owned()].into());
                let pool = cluster.pools.get_mut("blue").unwrap();
                pool.tunnel = Some(tunnel(TunnelKind::Ipip));
            },
            ["containers: a pool tunnels", "modprobe ipip"],
        ),
        (
            |it| {
                let pools = &mut it.cluster.as_mut().unwrap().pools;
                pools.get_mut("blue").unwrap().tunnel = Some(tunnel(TunnelKind::Vxlan));
                let vxlan = KERNEL_MODULES.iter().filter(|it| it.name == "vxlan");
                kernel_of(it).missing_modules = vxlan.collect();
            },
            ["a module for tunnels (vxlanMode) (vxlan)", "modprobe vxlan"],
        ),
        (|it| it.nft = Err("not found".to_owned()), ["kernel: the program nft", "nftables"]),
        (|it| it.nft = Ok("nftables v0.9.3".to_owned()), ["older than 0.9.4", "nftables"]),
        (
            |it| it.names.networks.push(("/b".into(), Ok(named("n2")))),
            ["name: this network calls the node n2, another one n1 (/b)", "same nodename"],
        ),
        (
            |it| it.store.location = Err("a.yaml cannot be read; check it".to_owned()),
            ["datastore: a.yaml cannot be read", "; check it"],
        ),
        (
            |it| it.store.clocks.push(("http://a".to_owned(), Ok(-3600))),
            ["datastore: this node's clock is 3600 s ahead of etcd's (http://a)", "timedatectl"],
        ),
        (
            |it| it.store.clocks.push(("http://a".to_owned(), Ok(60))),
            ["datastore: this node's clock is 60 s behind etcd's (http://a)", "timedatectl"],
        ),
        (
            |it| it.networks.files[0].1 = LIST.replace("\"weir\"", "\"weir\", \"mtu\": 10"),
            ["mtu 10", "correct the key mtu"],
        ),
        (
            |it| it.networks.files[0].1 = LIST.replace("[\n", "{\"type\": [\n"),
            ["networks: the file is not a network configuration", "correct it"],
        ),
        (
            |it| it.programs[1].supports = Err("no JSON".to_owned()),
            ["portmap does not run", "again"],
        ),
    ];
    for (change, words) in troubles {
        let text = said(Grade::Trouble, change);
        assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
    }
}

fn tunnel(kind: TunnelKind) -> PoolTunnel {
    PoolTunnel { kind, cross_subnet: false }
}

fn named(name: &str) -> NamedNode {
    NamedNode { name: name.to_owned(), source: "nodename".to_owned() }
}

/// What may be as it should be is no trouble.
#[test]
fn what_may_be_right_is_noted() {
    let notes: [(Change, &str); 9] = [
        (
            |it| {
                let pools = &mut it.cluster.as_mut().unwrap().pools;
                pools.get_mut("blue").unwrap().tunnel = Some(tunnel(TunnelKind::Vxlan));
                kernel_of(it).release = "5.7.0".to_owned();
                kernel_of(it).attachments[0].mtu = 1450;
            },
            "ethtool -K vxlan.calico tx off",
        ),
        (|it| it.store.answer = Ok(Duration::from_millis(250)), "it answers after 250 ms"),
        (|it| it.networks.files[0].1 = LIST.replace("1.0.0", ""), "cniVersion is missing"),
        (|it| it.networks.files.push(("/z.conf".into(), "{".to_owned())), "(/z.conf)"),
        (
            |it| {
                let nodes = &mut it.cluster.as_mut().unwrap().nodes;
                nodes.insert("n2".to_owned(), Peer::default());
            },
            "agent: no agent runs",
        ),
        (
            |it| {
                it.names.kept = [("/var/lib/calico/nodename".into(), "n2".to_owned())].into();
            },
            "set nodename to n2",
        ),
        (
            |it| {
                let range = "10.0.0.0/8".parse().unwrap();
                let what = "route 10.0.0.0/8 by eth0".to_owned();
                let occupied = Occupied { range, what, is_address: false, by_weir: false };
                kernel_of(it).occupied.push(occupied);
            },
            "overlaps a network of this node: route 10.0.0.0/8",
        ),
        (|it| kernel_of(it).filters.legacy = true, "iptables-legacy"),
        (
            |it| {
                let (source, routes) =
                    ("10.7.0.0/16".parse().unwrap(), vec!["0.0.0.0/0".parse().unwrap()]);
                kernel_of(it).rules.push(PolicyRule { priority: 5, source, table: 7, routes });
            },
            "policy rule 5",
        ),
    ];
    for (change, words) in notes {
        assert_eq!(said(Grade::Trouble, change), "", "{words}");
        let text = said(Grade::Note, change);
        assert!(text.contains(words), "{words}: {text}");
    }
}

/// Multus calls other networks, and Weir's own routes overlap its pools.
#[test]
fn what_is_as_it_should_be_is_not_told() {
    let fine: [Change; 5] = [
        (|it| {
            let tunnels = KERNEL_MODULES.iter().filter(|it| ["ipip", "vxlan"].contains(&it.name));
            kernel_of(it).missing_modules = tunnels.collect();
        }),
        (|it| {
            let multus = r#"{"name": "m", "cniVersion": "1.0.0", "type": "multus"}"#;
            it.networks.files.push(("/etc/cni/net.d/00-multus.conf".into(), multus.to_owned()));
        }),
        (|it| {
            let range = "10.7.0.0/26".parse().unwrap();
            let what = "route 10.7.0.0/26 by no link".to_owned();
            let occupied = Occupied { range, what, is_address: false, by_weir: true };
            kernel_of(it).occupied.push(occupied);
        }),
        (|it| it.store.clocks.push(("http://a".to_owned(), Ok(-2)))),
        (|it| kernel_of(it).rp_filter = "1".to_owned()),
    ];
    for change in fine {
        assert_eq!(said(Grade::Trouble, change) + &said(Grade::Note, change), "");
    }
}

/// What rests on a wrong name or store is not judged, so that no advice does harm.
#[test]
fn what_rests_on_trouble_is_not_judged() {
    let grounds: [Change; 3] = [
        (|it| it.store.missing = Some("/srv/weir.db".into())),
        (|it| it.names.clash = Some("n1 belongs to machine x; adopt it".to_owned())),
        (|it| {
            let unread = || "the datastore cannot be read".to_owned();
            (it.cluster, it.store.answer) = (Err(unread()), Err(unread()));
            it.next = Err(unread());
            it.audit = Err(unread());
        }),
    ];
    for change in grounds {
        let unseen = said(Grade::Unseen, change);
        let subjects: Vec<&str> = unseen.lines().filter_map(|it| it.split(':').next()).collect();
        assert_eq!(subjects, ["cluster", "pools", "addresses"], "{unseen}");
    }
}

#[test]
fn the_exit_status_tells_trouble_from_what_was_not_seen() {
    let mut facts = healthy();
    facts.audit = Err("the audit: no answer within 3 s".to_owned());
    assert_eq!(diagnose(&facts).exit_status(), 2);
    facts.nft = Err("not found".to_owned());
    assert_eq!(diagnose(&facts).exit_status(), 1);
}

#[test]
fn a_diagnosis_is_shown() {
    let mut facts = healthy();
    let kernel = kernel_of(&mut facts);
    for number in 1..=7 {
        let identity = AttachmentIdentity::new("pods", format!("c{number}"), "eth0").unwrap();
        let attachment = AttachmentState { identity, mtu: 9000, ..kernel.attachments[0].clone() };
        kernel.attachments.push(attachment);
    }
    kernel_of(&mut facts).state.ipv4_forwarding = false;
    facts.store.answer = Ok(Duration::from_millis(250));
    facts.audit = Err("the audit: no answer within 3 s".to_owned());
    facts.programs[1].path = Some("/opt/cni/bin/port\u{1b}[2Jmap".into());
    let (ill, well) = (diagnose(&facts), diagnose(&healthy()));
    // Its lines are as long as what they say, however wide the terminal is.
    let style = Style::default();
    let texts = [words::text(&well, style), words::text(&ill, style), words::json(&ill)];
    golden::check("doctor", 80, &texts.join("\n"));
}
