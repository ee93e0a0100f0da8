//! The host's side of an attachment whose container's end another program moves (dockerd).

#![allow(clippy::unwrap_used)]

mod support;

use std::net::IpAddr;

use support::{Other, add_addressed_link, attachment, identity, ip, on_a_node, snapshot};
use weir_common::network::{
    Attachment, NodeNeeds, Sandbox, allowed_sources, plan_host_side, plan_node,
};
use weir_kernel::{Error, Kernel};

const LINK: &str = "temp0123456789a";

async fn make(kernel: &Kernel, attachment: &Attachment, link: &str) {
    let needs = NodeNeeds { ipv4: true, ipv6: true, ..NodeNeeds::default() };
    let mut steps = plan_host_side(attachment, link);
    steps.extend(plan_node(&needs, &kernel.node_state(true).unwrap()));
    let _ = kernel.apply(&steps).await.unwrap();
}

/// What dockerd does with the link, and the answer to Join.
fn move_into(container: &Other, attachment: &Attachment, link: &str, name: &str) {
    ip(&format!("link set {link} netns {} name {name}", container.path().display()));
    let (v4, v6) = (attachment.identity().arp_source(), attachment.identity().gateway_v6());
    container.ip(&format!("link set {name} up"));
    for address in attachment.addresses() {
        let nodad = if address.is_ipv6() { "nodad" } else { "" };
        container.ip(&format!("address add {} dev {name} {nodad}", ipnet::IpNet::from(*address)));
    }
    container.ip(&format!("route add {v4}/32 dev {name} scope link"));
    container.ip(&format!("route append default via {v4} dev {name}"));
    container.ip(&format!("-6 route append default via {v6} dev {name}"));
}

#[test]
fn a_container_reaches_others_and_the_node_once_its_end_was_moved() {
    on_a_node(|| async {
        add_addressed_link();
        let containers = [Other::new(), Other::new()];
        let attachments = [
            attachment("one", &["10.1.0.1", "fd00:1::1"]),
            attachment("two", &["10.1.0.2", "fd00:1::2"]),
        ];
        let kernel = Kernel::open().unwrap();
        for (place, attachment) in attachments.iter().enumerate() {
            let link = format!("temp{place}");
            make(&kernel, attachment, &link).await;
            let ends = kernel.host_ends(Default::default()).await.unwrap();
            let end = ends.iter().find(|it| it.state.identity == *attachment.identity()).unwrap();
            assert!(end.looks_whole(), "{:?}", end.repair(attachment.addresses()));
            move_into(&containers[place], attachment, &link, "eth0");
        }
        let node: [IpAddr; 2] = ["198.51.100.1".parse().unwrap(), "fd00:198::1".parse().unwrap()];
        for address in attachments[1].addresses().iter().chain(&node) {
            assert!(containers[0].reaches(*address), "{address}");
        }
        for end in kernel.host_ends(Default::default()).await.unwrap() {
            assert!(end.looks_whole(), "{:?}", end.repair(&end.state.addresses));
        }
    });
}

#[test]
fn a_leftover_is_made_again_and_a_link_of_another_is_left_alone() {
    on_a_node(|| async {
        let container = Other::new();
        let attachment = attachment("one", &["10.1.0.1", "fd00:1::1"]);
        let kernel = Kernel::open().unwrap();
        let before = snapshot(&container);
        let steps = plan_host_side(&attachment, LINK);
        // As a driver that was killed leaves it.
        let _ = kernel.apply(&steps[..1]).await.unwrap();
        let _ = kernel.apply(&steps).await.unwrap();
        let _ = kernel.apply(&steps).await.unwrap();
        assert!(ip("link").contains(LINK));
        let (link, addresses) = kernel.remove_routes(attachment.identity()).await.unwrap().unwrap();
        assert_eq!(addresses.len(), 2);
        kernel.remove_link(link).await.unwrap();
        assert_eq!(snapshot(&container), before);
        ip(&format!("link add {LINK} type veth peer name other"));
        let with_other = snapshot(&container);
        let error = kernel.apply(&steps).await.unwrap_err();
        assert!(matches!(&error.cause, Error::ForeignLink { link, .. } if link == LINK), "{error}");
        assert_eq!(snapshot(&container), with_other);
    });
}

#[test]
fn a_sandbox_is_recorded_changed_and_taken_back() {
    on_a_node(|| async {
        let kernel = Kernel::open().unwrap();
        let sandbox = |id: &str, network: &str| Sandbox {
            id: id.to_owned(),
            network: format!("{network}{}", "f".repeat(62)),
        };
        let missing = kernel.record_sandbox(&identity("one"), Some(&sandbox("s1", "n1"))).await;
        assert!(matches!(missing, Err(Error::LinkMissing { .. })));
        for (container, address) in
            [("one", "10.1.0.1"), ("two", "10.1.0.2"), ("three", "10.1.0.3")]
        {
            make(&kernel, &attachment(container, &[address]), &format!("t-{container}")).await;
        }
        let calls = [
            ("one", "s0", "n1"),
            ("one", "s1", "n1"),
            ("one", "s1", "n1"),
            ("three", "s1", "n2"),
            // The other one has left without a word.
            ("two", "s1", "n2"),
        ];
        for (container, id, network) in calls {
            let sandbox = sandbox(id, network);
            kernel.record_sandbox(&identity(container), Some(&sandbox)).await.unwrap();
        }
        let expected =
            [("s1", "n1", true), ("s1", "n2", true), ("s0", "n1", false), ("s1", "n0", false)];
        for (id, network, is_recorded) in expected {
            let found = kernel.has_sandbox(&sandbox(id, network)).await.unwrap();
            assert_eq!(found, is_recorded, "{id} {network}");
        }
        let states = kernel.attachment_states().await.unwrap();
        let recorded: Vec<_> = states.iter().map(|it| it.sandbox.as_deref()).collect();
        assert_eq!(recorded, [Some("s1"), Some("s1"), None]);
        assert_eq!(allowed_sources(&states).len(), 2);
        kernel.record_sandbox(&identity("two"), None).await.unwrap();
        let states = kernel.attachment_states().await.unwrap();
        assert_eq!(allowed_sources(&states).len(), 0);
    });
}
