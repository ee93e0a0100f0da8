//! Removing many links at once on a real kernel, and nothing beside them.

#![allow(clippy::unwrap_used)]

mod support;

use support::{Other, add_link, attachment, ip, on_a_node, open};
use weir_common::network::plan_attachment;
use weir_kernel::{Kernel, MadeLink, OwnLink};

/// Attaches containers with these ids.
async fn attach(ids: impl Iterator<Item = u8>) -> Vec<Other> {
    let mut containers = Vec::new();
    for id in ids {
        let container = Other::new();
        let attachment = attachment(&format!("c{id}"), &[&format!("10.1.0.{id}")]);
        let _ = open(&container).apply(&plan_attachment(&attachment)).await.unwrap();
        containers.push(container);
    }
    containers
}

async fn made(kernel: &Kernel) -> Vec<MadeLink> {
    kernel.made_links().await.unwrap()
}

fn links(made: &[MadeLink]) -> Vec<OwnLink> {
    made.iter().map(|made| made.link.clone()).collect()
}

#[test]
fn many_links_go_together_and_no_other() {
    on_a_node(|| async {
        add_link("uplink", 1500);
        let containers = attach(1..=12).await;
        let kernel = Kernel::open().unwrap();
        let all = made(&kernel).await;
        assert_eq!(all.len(), 12);
        let stale = links(&all[1..]);
        assert!(kernel.remove_links(&stale).await.is_empty());
        assert_eq!(made(&kernel).await, all[..1]);
        assert!(containers[0].ip("-oneline link").contains("eth0"));
        assert!(!containers[5].ip("-oneline link").contains("eth0"));
        assert_eq!(ip("-oneline -4 route show proto 77").lines().count(), 1);
        assert!(ip("-oneline link").contains("uplink"));
        // What is gone is not an error.
        assert!(kernel.remove_links(&stale).await.is_empty());
    });
}

#[test]
fn a_link_of_the_same_group_that_is_not_meant_stays() {
    on_a_node(|| async {
        let _containers = attach(1..=3).await;
        let kernel = Kernel::open().unwrap();
        let all = made(&kernel).await;
        let spared = all[0].link.name();
        let group = u32::from_be_bytes(*b"weir");
        ip(&format!("link set dev {spared} group {group}"));
        assert!(kernel.remove_links(&links(&all[1..])).await.is_empty());
        assert_eq!(made(&kernel).await, all[..1]);
    });
}

#[test]
fn a_link_without_alias_is_told_from_others() {
    on_a_node(|| async {
        let _containers = attach(1..=2).await;
        let kernel = Kernel::open().unwrap();
        let all = made(&kernel).await;
        ip(&format!("link set dev {} alias {}", all[0].link.name(), "somebody's"));
        ip("link add weir0123456789a type veth peer name p0");
        let after = made(&kernel).await;
        assert_eq!(after, all[1..]);
        // iproute2 takes no empty alias for an argument of its own.
        support::run("ip", &["link", "set", "dev", all[1].link.name(), "alias", ""]);
        let after = made(&kernel).await;
        assert_eq!(links(&after), links(&all[1..]));
        assert_eq!(after[0].identity, None);
    });
}

#[test]
fn what_says_whether_packets_can_pass() {
    on_a_node(|| async {
        let containers = attach(1..=1).await;
        let kernel = Kernel::open().unwrap();
        let look = async || kernel.attachment_states().await.unwrap().remove(0);
        let whole = look().await;
        assert!(whole.up && whole.carrier);
        assert_eq!(whole.addresses, ["10.1.0.1".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(whole.identity.container_id(), "c1");
        ip("route delete 10.1.0.1");
        assert!(look().await.addresses.is_empty());
        containers[0].ip("link set eth0 down");
        assert!(!look().await.carrier);
        ip(&format!("link set {} down", whole.identity.host_interface()));
        assert!(!look().await.up);
    });
}
