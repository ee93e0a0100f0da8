//! Forgetting connections on a real kernel: those of an address, and no others.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;

use support::{ip, on_a_node};
use weir_kernel::Kernel;

/// Two addresses of each family, and one to talk to.
const ADDRESSES: [&str; 6] = ["10.1.0.1", "10.1.0.2", "10.1.0.9", "fd00::1", "fd00::2", "fd00::9"];

/// A node that tracks connections, and translates port 5001 of `.9` to port 5000 of `.1`.
fn node() {
    for address in ADDRESSES {
        let nodad = if address.contains(':') { "nodad" } else { "" };
        ip(&format!("address add {address} dev lo {nodad}"));
    }
    for command in [
        "add table inet t",
        "add chain inet t nat { type nat hook output priority -100; }",
        "add rule inet t nat ip daddr 10.1.0.9 udp dport 5001 dnat ip to 10.1.0.1:5000",
        "add rule inet t nat ip6 daddr fd00::9 udp dport 5001 dnat ip6 to [fd00::1]:5000",
    ] {
        nft(command);
    }
    // None expires before it is counted.
    for limit in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
        std::fs::write(format!("/proc/sys/net/netfilter/{limit}"), "3600").unwrap();
    }
}

fn nft(command: &str) {
    assert!(Command::new("nft").arg(command).status().unwrap().success(), "{command}");
}

/// Sends a packet, which begins a connection, from a port of its own.
fn send(from: &str, to: &str, port: u16) {
    let from: IpAddr = from.parse().unwrap();
    let socket = UdpSocket::bind((from, 0)).unwrap();
    let sent = socket.send_to(b"x", (to.parse::<IpAddr>().unwrap(), port));
    // Nobody listens, which the kernel may say at once.
    drop(sent);
}

fn tracked() -> usize {
    let count = std::fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack").unwrap();
    let entries = count.lines().nth(1).and_then(|line| line.split_whitespace().next());
    usize::from_str_radix(entries.unwrap(), 16).unwrap()
}

async fn forget(addresses: &[&str]) -> usize {
    let addresses: BTreeSet<IpAddr> = addresses.iter().map(|it| it.parse().unwrap()).collect();
    Kernel::open().unwrap().forget_connections(addresses).await.unwrap()
}

#[test]
fn connections_of_an_address_are_forgotten_and_no_others() {
    on_a_node(|| async {
        node();
        let before = tracked();
        for [first, second, peer] in
            [["10.1.0.1", "10.1.0.2", "10.1.0.9"], ["fd00::1", "fd00::2", "fd00::9"]]
        {
            send(first, peer, 53);
            send(peer, first, 53);
            // By the translation alone.
            send(second, peer, 5001);
            send(second, peer, 53);
            send(peer, second, 53);
        }
        assert_eq!(tracked() - before, 10);
        assert_eq!(forget(&["10.1.0.1"]).await, 3);
        assert_eq!(forget(&["10.1.0.1"]).await, 0);
        assert_eq!(tracked() - before, 7);
        assert_eq!(forget(&["fd00::1"]).await, 3);
        assert_eq!(tracked() - before, 4);
        // Several at once.
        assert_eq!(forget(&["10.1.0.2", "fd00::2", "10.1.0.77"]).await, 4);
        assert_eq!(tracked() - before, 0);
    });
}

/// So many that the kernel looks for them itself.
#[test]
fn connections_of_an_address_are_found_among_many() {
    on_a_node(|| async {
        node();
        let peer: IpAddr = "10.1.0.9".parse().unwrap();
        let _open = UdpSocket::bind((peer, 53)).unwrap();
        let socket = UdpSocket::bind(("10.1.0.2", 0)).unwrap();
        for port in 10_000..17_000 {
            socket.send_to(b"x", (peer, port)).ok();
        }
        let many = tracked();
        assert!(many >= 7_000, "{many}");
        send("10.1.0.1", "10.1.0.9", 53);
        send("10.1.0.9", "10.1.0.1", 53);
        send("10.1.0.2", "10.1.0.9", 5001);
        send("fd00::1", "fd00::9", 53);
        assert_eq!(forget(&["10.1.0.1"]).await, 3);
        assert_eq!(forget(&["fd00::1"]).await, 1);
        assert_eq!(tracked(), many);
    });
}

/// The same addresses in another network of the node, which another program keeps apart.
#[test]
fn connections_in_zones_are_others() {
    on_a_node(|| async {
        node();
        nft("add chain inet t zones { type filter hook output priority -300; }");
        nft("add rule inet t zones udp dport 54 ct zone set 7");
        nft("add rule inet t zones udp dport 55 ct original zone set 7");
        let before = tracked();
        for [own, peer] in [["10.1.0.1", "10.1.0.9"], ["fd00::1", "fd00::9"]] {
            for port in [53, 54, 55] {
                send(own, peer, port);
            }
        }
        assert_eq!(tracked() - before, 6);
        assert_eq!(forget(&["10.1.0.1", "fd00::1"]).await, 2);
        assert_eq!(tracked() - before, 4);
    });
}

#[test]
fn a_node_that_tracks_nothing_has_nothing_to_forget() {
    on_a_node(|| async {
        ip("address add 10.1.0.1 dev lo");
        assert_eq!(forget(&["10.1.0.1"]).await, 0);
        assert_eq!(forget(&[]).await, 0);
    });
}
