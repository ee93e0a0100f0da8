//! Making, checking and removing attachments on a real kernel.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;

use support::{
    Other, add_addressed_link, add_link, attachment, identity, ip, on_a_node, open, request,
    snapshot,
};
use weir_common::link::MacAddress;
use weir_common::network::{
    Attachment, Expected, GATEWAY_V6, Mismatch, NodeNeeds, RequestedRoute, Side, compare,
    plan_attachment, plan_node,
};
use weir_kernel::{Error, Kernel};

async fn attach(container: &Other, attachment: &Attachment) -> Kernel {
    let kernel = open(container);
    let needs =
        NodeNeeds { ipv4: attachment.has_v4(), ipv6: attachment.has_v6(), ..NodeNeeds::default() };
    let mut steps = plan_attachment(attachment);
    steps.extend(plan_node(&needs, &kernel.node_state(true).unwrap()));
    let _ = kernel.apply(&steps).await.unwrap();
    kernel
}

async fn differences(kernel: &Kernel, attachment: &Attachment) -> Vec<Mismatch> {
    let expected = Expected::of(attachment);
    let found = kernel.inspect(&expected).await.unwrap();
    compare(&expected, &found)
}

/// Two containers, the node and each other, without any other route on the
/// node.
fn reach_each_other(first: &'static [&'static str], second: &'static [&'static str]) {
    on_a_node(move || async move {
        add_addressed_link();
        let containers = [Other::new(), Other::new()];
        let attachments = [attachment("one", first), attachment("two", second)];
        for (container, attachment) in containers.iter().zip(&attachments) {
            let kernel = attach(container, attachment).await;
            assert_eq!(differences(&kernel, attachment).await, []);
            // Those that the plan gives, and none of the kernel's own.
            let host = kernel.inspect(&Expected::of(attachment)).await.unwrap().host.unwrap();
            if attachment.has_v6() {
                let v4 =
                    attachment.has_v4().then_some(IpAddr::from(attachment.identity().arp_source()));
                let wanted = v4.into_iter().chain([IpAddr::from(GATEWAY_V6)]);
                assert_eq!(host.addresses, wanted.collect::<Vec<_>>());
            }
        }
        let node: [IpAddr; 2] = ["198.51.100.1".parse().unwrap(), "fd00:198::1".parse().unwrap()];
        for address in attachments[1].addresses() {
            assert!(containers[0].reaches(*address), "the other container, {address}");
            let node = node.iter().find(|node| node.is_ipv4() == address.is_ipv4()).unwrap();
            assert!(containers[0].reaches(*node), "the node, {node}");
        }
    });
}

#[test]
fn ipv4_containers_reach_each_other_and_the_node() {
    reach_each_other(&["10.1.0.1"], &["10.1.0.2"]);
}

#[test]
fn ipv6_containers_reach_each_other_and_the_node() {
    reach_each_other(&["fd00:1::1"], &["fd00:1::2"]);
}

#[test]
fn dual_stack_containers_reach_each_other_and_the_node() {
    reach_each_other(&["10.1.0.1", "fd00:1::1"], &["10.1.0.2", "fd00:1::2"]);
}

#[test]
fn the_container_does_not_forward_unless_it_may() {
    on_a_node(|| async {
        for allow in [false, true] {
            let container = Other::new();
            let request = support::request("one", &["10.1.0.1", "fd00:1::1"]);
            let request = weir_common::network::AttachmentRequest {
                allow_ip_forwarding: Some(allow),
                ..request
            };
            let attachment = Attachment::new(request).unwrap();
            let kernel = attach(&container, &attachment).await;
            let forwarding = container.within(|| {
                ["ipv4/ip_forward", "ipv6/conf/all/forwarding"].map(|key| {
                    std::fs::read_to_string(format!("/proc/sys/net/{key}")).unwrap() == "1\n"
                })
            });
            assert_eq!(forwarding, [allow, allow]);
            let (link, _) = kernel.remove_routes(attachment.identity()).await.unwrap().unwrap();
            kernel.remove_link(link).await.unwrap();
        }
    });
}

#[test]
fn a_mac_and_routes_that_are_asked_for_are_honoured() {
    on_a_node(|| async {
        let container = Other::new();
        let mac = MacAddress([2, 0, 0, 0, 0, 0x55]);
        let route = |destination: &str| RequestedRoute {
            destination: destination.parse().unwrap(),
            mtu: Some(1300),
            advmss: Some(1200),
            priority: Some(50),
            table: None,
            scope: None,
            has_next_hop: false,
        };
        let attachment = Attachment::new(weir_common::network::AttachmentRequest {
            mac: Some(mac),
            routes: vec![route("203.0.113.7/24"), route("0.0.0.0/0"), route("fd00:9::/64")],
            ..request("one", &["10.1.0.1"])
        })
        .unwrap();
        let kernel = attach(&container, &attachment).await;
        assert_eq!(differences(&kernel, &attachment).await, []);
        let routes = container.ip("route");
        let arp_source = attachment.identity().arp_source();
        let behind = "via 169.254.1.1 dev eth0 proto 77 metric 50 mtu 1300 advmss 1200";
        assert_eq!(
            routes.lines().map(str::trim).collect::<Vec<_>>(),
            [
                format!("default {behind}").as_str(),
                "169.254.1.1 dev eth0 proto 77 scope link",
                format!("{arp_source} dev eth0 proto 77 scope link").as_str(),
                format!("203.0.113.0/24 {behind}").as_str()
            ]
        );
        assert!(container.ip("link show eth0").contains(&mac.to_string()));
    });
}

#[test]
fn check_names_everything_that_was_taken_away() {
    on_a_node(|| async {
        let container = Other::new();
        let attachment = attachment("one", &["10.1.0.1", "fd00:1::1"]);
        let kernel = attach(&container, &attachment).await;
        let host = attachment.identity().host_interface();
        // Both ends lose what hangs on them, one thing after the other.
        ip(&format!("route delete 10.1.0.1/32 dev {host}"));
        ip(&format!("address delete fe80::ecee:eeff:feee:eeee/64 dev {host}"));
        container.ip("-6 route delete default");
        container.ip("address delete fd00:1::1/128 dev eth0");
        container.ip("link set eth0 mtu 1400");
        let found: Vec<String> =
            differences(&kernel, &attachment).await.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                format!("address fe80::ecee:eeff:feee:eeee is missing on link {host} on the node"),
                format!(
                    "route \"10.1.0.1/32 scope global dev {host} proto 77\" is missing on the node"
                ),
                "link eth0 in the container has mtu 1400 and not 1450".to_owned(),
                "address fd00:1::1 is missing on link eth0 in the container".to_owned(),
                "route \"default via fe80::ecee:eeff:feee:eeee dev eth0 proto 77\" is missing in \
                 the container"
                    .to_owned(),
            ]
        );
        ip(&format!("link set {host} alias other"));
        let found = differences(&kernel, &attachment).await;
        assert!(matches!(&found[0], Mismatch::Foreign { .. }), "{found:?}");
        ip(&format!("link delete {host}"));
        let missing = |side, link: &str| Mismatch::LinkMissing { side, link: link.to_owned() };
        assert_eq!(
            differences(&kernel, &attachment).await,
            [missing(Side::Host, &host), missing(Side::Container, "eth0")]
        );
    });
}

#[test]
fn the_attachments_of_the_node_are_listed_from_their_links() {
    on_a_node(|| async {
        ip("link add uplink alias other type veth peer name eth9");
        let containers = [Other::new(), Other::new()];
        let mut kernels = Vec::new();
        for (container, id) in containers.iter().zip(["one", "two"]) {
            let address = format!("10.1.0.{}", kernels.len() + 1);
            kernels.push(attach(container, &attachment(id, &[&address])).await);
        }
        let states = Kernel::open().unwrap().attachment_states().await.unwrap();
        let routed: Vec<_> = states.into_iter().map(|it| (it.identity, it.addresses)).collect();
        let addresses = |text: &str| vec![text.parse().unwrap()];
        assert_eq!(
            routed,
            [(identity("one"), addresses("10.1.0.1")), (identity("two"), addresses("10.1.0.2")),]
        );
    });
}

#[test]
fn removal_leaves_nothing_and_can_be_repeated() {
    on_a_node(|| async {
        let container = Other::new();
        let attachment = attachment("one", &["10.1.0.1", "fd00:1::1"]);
        let _ = attach(&container, &attachment).await;
        let kernel = Kernel::open().unwrap();
        let (link, routed) = kernel.remove_routes(attachment.identity()).await.unwrap().unwrap();
        assert_eq!(link.name(), attachment.identity().host_interface());
        assert_eq!(routed.into_iter().collect::<Vec<_>>(), attachment.addresses());
        assert_eq!(ip("-4 route"), "");
        assert!(!ip("-6 route").contains("fd00:1::1"), "{}", ip("-6 route"));
        // Interrupted between its halves, and from the start again.
        let again = kernel.remove_routes(attachment.identity()).await.unwrap();
        assert_eq!(again, Some((link.clone(), BTreeSet::new())));
        kernel.remove_link(link.clone()).await.unwrap();
        kernel.remove_link(link).await.unwrap();
        assert_eq!(kernel.remove_routes(attachment.identity()).await.unwrap(), None);
        assert!(!ip("link").contains("weir"));
        assert!(!container.ip("link").contains("eth0"));
    });
}

#[test]
fn removal_works_without_the_container() {
    on_a_node(|| async {
        let container = Other::new();
        let attachment = attachment("one", &["10.1.0.1"]);
        drop(attach(&container, &attachment).await);
        // Nothing holds the container's namespace any longer; the pair goes
        // when the kernel gets to it, before or after the calls below.
        drop(container);
        let kernel = Kernel::open().unwrap();
        if let Some((link, _)) = kernel.remove_routes(attachment.identity()).await.unwrap() {
            kernel.remove_link(link).await.unwrap();
        }
        assert_eq!(kernel.remove_routes(attachment.identity()).await.unwrap(), None);
    });
}

#[test]
fn removal_lets_other_tasks_run() {
    on_a_node(|| async {
        let container = Other::new();
        let attachment = attachment("one", &["10.1.0.1"]);
        let kernel = attach(&container, &attachment).await;
        let (link, _) = kernel.remove_routes(attachment.identity()).await.unwrap().unwrap();
        let removal = std::pin::pin!(kernel.remove_link(link));
        // The release of the addresses would stand in the place of `beside`.
        let beside = tokio::task::yield_now();
        let first = tokio::select! {
            biased;
            outcome = removal => Err(outcome),
            () = beside => Ok(()),
        };
        assert!(first.is_ok(), "the removal held the thread until it was done");
    });
}

#[test]
fn a_foreign_link_is_left_alone() {
    on_a_node(|| async {
        let container = Other::new();
        let attachment = attachment("one", &["10.1.0.1"]);
        let host = attachment.identity().host_interface();
        add_link(&host, 1500);
        let before = snapshot(&container);
        let kernel = open(&container);
        let error = kernel.apply(&plan_attachment(&attachment)).await.unwrap_err();
        assert!(matches!(error.cause, Error::ForeignLink { .. }), "{error}");
        assert!(error.left.is_empty());
        let error = kernel.remove_routes(attachment.identity()).await.unwrap_err();
        assert!(error.to_string().contains(&host), "{error}");
        assert_eq!(snapshot(&container), before);
    });
}

#[test]
fn an_interface_of_that_name_is_left_alone() {
    on_a_node(|| async {
        let container = Other::new();
        let attachment = attachment("one", &["10.1.0.1"]);
        container.ip("link add eth0 type veth peer name other");
        let before = snapshot(&container);
        let error = open(&container).apply(&plan_attachment(&attachment)).await.unwrap_err();
        assert!(matches!(error.cause, Error::InterfaceExists { .. }), "{error}");
        assert_eq!(snapshot(&container), before);
        container.ip("link delete eth0");
        // The same for a repeated ADD, whose interface is its own.
        let kernel = attach(&container, &attachment).await;
        let before = snapshot(&container);
        let error = kernel.apply(&plan_attachment(&attachment)).await.unwrap_err();
        assert!(matches!(error.cause, Error::InterfaceExists { .. }), "{error}");
        assert_eq!(snapshot(&container), before);
    });
}

#[test]
fn a_leftover_of_the_same_attachment_is_replaced() {
    on_a_node(|| async {
        let attachment = attachment("one", &["10.1.0.1"]);
        let host = attachment.identity().host_interface();
        // An ADD that was interrupted before the alias was set.
        let container = Other::new();
        ip(&format!("link add {host} address ee:ee:ee:ee:ee:ee type veth peer name other"));
        let kernel = attach(&container, &attachment).await;
        assert_eq!(differences(&kernel, &attachment).await, []);
        // The container is made again under its id, while its old namespace lives.
        let renewed = Other::new();
        let kernel = attach(&renewed, &attachment).await;
        assert_eq!(differences(&kernel, &attachment).await, []);
        assert!(!container.ip("link").contains("eth0"));
    });
}

#[test]
fn a_route_in_the_way_is_named_with_its_owner() {
    on_a_node(|| async {
        let (container, second) = (Other::new(), Other::new());
        let first = attachment("one", &["10.1.0.1"]);
        let _kernel = attach(&container, &first).await;
        let before = snapshot(&second);
        let steps = plan_attachment(&attachment("two", &["10.1.0.1"]));
        let error = open(&second).apply(&steps).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&identity("one").host_interface()), "{text}");
        assert!(text.contains("10.1.0.1/32") && text.contains("test:one:eth0"), "{text}");
        assert_eq!(snapshot(&second), before);
    });
}
