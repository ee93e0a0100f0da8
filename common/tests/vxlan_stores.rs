//! Stores in the form that Calico writes with pools of VXLAN: what a node plans from them, whose
//! the addresses are, and that nothing in them is damage.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;

use support::stores::*;
use support::*;
use weir_common::audit::ThisNode;
use weir_common::datastore::keys;
use weir_common::ipam::Block;
use weir_common::network::{ActualState, ClusterPlan, Underlay, UnderlayLink, diff, plan_cluster};
use weir_common::node::{
    LocalFacts, ensure_tunnel_address, is_tunnel_address, release_tunnel_address,
};
use weir_common::tunnel::TunnelKind;
use weir_datastore::Memory;

use TunnelKind::{Vxlan, VxlanV6};

/// The stores, each with its nodes and the kinds of tunnels that they have.
const STORES: [(&str, &[&str], &[TunnelKind]); 2] = [
    ("vxlan-small", &["n1", "n2"], &[Vxlan]),
    ("vxlan", &["n1", "n2", "n3", "n4"], &[Vxlan, VxlanV6]),
];

/// What the plan of `node`, with these addresses on its only link, changes on a node that has
/// nothing: as command lines.
fn commands(store: &str, node: &str, addresses: &[&str]) -> (ClusterPlan, String) {
    let link = UnderlayLink {
        name: "eth0".to_owned(),
        mtu: 1500,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
    };
    let underlay = Underlay { links: vec![link], ..Underlay::default() };
    let plan = plan_cluster(node, &inventory(&by_hand(store)), &underlay);
    assert_eq!(plan.problems, BTreeSet::new(), "{store} {node}");
    let changes = diff(&plan, &ActualState::default()).changes;
    let lines = changes.iter().map(|change| format!("{change}\n")).collect();
    (plan, lines)
}

#[test]
fn a_node_plans_what_calico_would_make() {
    let (plan, lines) = commands("vxlan-small", "n2", &["172.18.0.12/24"]);
    assert_eq!(lines, include_str!("golden/plan-vxlan-small-n2.txt"));
    assert_eq!((plan.pod_mtu, plan.nat.is_some()), (1450, true));
    let (plan, lines) = commands("vxlan", "n1", &["172.16.1.11/24", "fd16:1::11/64"]);
    assert_eq!(lines, include_str!("golden/plan-vxlan-n1.txt"));
    assert_eq!((plan.pod_mtu, plan.nat.is_some()), (1400, true));
    let senders = &plan.tunnels[&Vxlan].senders;
    assert!(senders.contains(&"172.16.9.0/24".parse().unwrap()), "{senders:?}");
}

/// The MTUs are the node's own, the network identifier and the port the cluster's.
#[test]
fn a_nodes_own_configuration_counts_before_the_clusters() {
    let (plan, lines) = commands("vxlan", "n2", &["172.16.1.12/24", "fd16:1::12/64"]);
    assert_eq!(plan.pod_mtu, 1330);
    for line in ["ip link set vxlan.calico mtu 1350", "ip link set vxlan-v6.calico mtu 1330"] {
        assert!(lines.contains(line), "{lines}");
    }
    assert_eq!(lines.matches(" id 4097 dstport 4790 ").count(), 2, "{lines}");
}

#[tokio::test]
async fn nothing_in_them_is_damage() {
    for (name, nodes, _) in STORES {
        let store = by_hand(name);
        assert_eq!(check(&store, None).await, []);
        // A node on which Weir has no network yet: Calico's containers are not its own.
        for node in nodes {
            let here = ThisNode { host: (*node).to_owned(), ..ThisNode::default() };
            assert_eq!(check(&store, Some(&here)).await, [], "{name} {node}");
        }
    }
}

/// The addresses of a node's tunnel in the blocks: each that has this handle.
fn held(store: &Memory, handle: &str) -> Vec<IpAddr> {
    let of = |block: &Block| -> Vec<IpAddr> {
        let ordinals = block.held_by(|holder| holder.handle_id.as_deref() == Some(handle));
        let tunnels = ordinals.iter().filter(|it| is_tunnel_address(block.holder(**it).unwrap()));
        tunnels.map(|ordinal| block.address(*ordinal)).collect()
    };
    blocks(store).iter().flat_map(of).collect()
}

#[tokio::test]
async fn the_addresses_of_both_handles_are_kept_and_given_back() {
    for (name, nodes, kinds) in STORES {
        let store = by_hand(name);
        for (node, kind) in
            nodes.iter().flat_map(|node| kinds.iter().map(move |kind| (node, *kind)))
        {
            let handle = kind.handle_of(node);
            assert_eq!(TunnelKind::of_handle(&handle), Some((kind, *node)));
            let before = store.dump();
            let [address] = held(&store, &handle)[..] else { panic!("{handle}") };
            let facts = LocalFacts::default();
            let kept = ensure_tunnel_address(&store, kind, node, &facts, now()).await.unwrap();
            assert_eq!(kept, address, "{name} {handle}");
            assert_eq!(store.dump(), before, "{handle}: nothing is written");
            let released = release_tunnel_address(&store, kind, node, None).await.unwrap();
            assert_eq!(released, Some(address));
            assert_eq!(held(&store, &handle), [] as [IpAddr; 0]);
            assert!(!store.dump().contains_key(&keys::handle(&handle)));
            assert_consistent(&store);
        }
        // All else of the Nodes is as before.
        let before = by_hand(name);
        for node in nodes {
            let [mut was, is] = [&before, &store].map(|store| spec(store, node));
            for kind in kinds {
                was.as_object_mut().unwrap().remove(kind.row().address_field[0]);
            }
            assert_eq!(was, is, "{name} {node}");
        }
    }
}

/// As Calico's Felix computes it: `f`, and the first bytes of the name's digest.
#[test]
fn hardware_addresses_are_calicos_for_a_thousand_names() {
    assert_eq!(hex(&sha1(b"abc")), "a9993e364706816aba3e25717850c26c9cd0d89d", "RFC 3174");
    let mut seen = BTreeSet::new();
    for number in 0..1000 {
        let name = match number % 3 {
            0 => format!("node-{number}"),
            1 => format!("ip-10-0-{}-{}.eu-west-1.compute.internal", number / 256, number % 256),
            _ => "n".repeat(number % 253 + 1) + &number.to_string(),
        };
        for (kind, suffix) in [(Vxlan, ""), (VxlanV6, "-v6")] {
            let digest = sha1(format!("{name}{suffix}").as_bytes());
            let mac = kind.mac(&name).unwrap();
            assert_eq!(hex(&mac.0), format!("66{}", hex(&digest[..5])), "{name}");
            assert!(seen.insert(mac), "{name} has another node's");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-1 as RFC 3174 gives it (section 6.1), by no code of Weir's.
fn sha1(message: &[u8]) -> Vec<u8> {
    let mut padded = [message, &[0x80]].concat();
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - message.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let bits = 8 * message.len() as u64;
    let end = padded.len() - 8;
    padded[end..].copy_from_slice(&bits.to_be_bytes());
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in padded.chunks(64) {
        let mut words: Vec<u32> =
            block.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect();
        for t in 16..80 {
            let word = words[t - 3] ^ words[t - 8] ^ words[t - 14] ^ words[t - 16];
            words.push(word.rotate_left(1));
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (t, word) in words.into_iter().enumerate() {
            let (mixed, constant) = match t / 20 {
                0 => ((b & c) | (!b & d), 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let terms = [a.rotate_left(5), mixed, e, word, constant];
            let sum = terms.into_iter().fold(0_u32, u32::wrapping_add);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, sum);
        }
        for (sum, part) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(part);
        }
    }
    state.iter().flat_map(|word| word.to_be_bytes()).collect()
}
