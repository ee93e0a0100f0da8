//! A plan that fails leaves everything as it was, wherever it fails.

#![allow(clippy::unwrap_used)]

mod support;

use std::io;

use support::{Other, add_addressed_link, attachment, ip, on_a_node, open, request, snapshot};
use weir_common::link::SourceCheck;
use weir_common::network::{
    Attachment, AttachmentRequest, Nat, NatPool, NatTable, NodeNeeds, Route, Side, Step,
    plan_attachment, plan_node,
};
use weir_kernel::{Checkpoint, Kernel};

/// Fails before or after one step.
struct FailAt {
    position: usize,
    done: bool,
}

impl FailAt {
    fn outcome(&self, position: usize, done: bool) -> io::Result<()> {
        if (position, done) == (self.position, self.done) {
            return Err(io::Error::other("failed on cue"));
        }
        Ok(())
    }
}

impl Checkpoint for FailAt {
    fn before(&mut self, position: usize, _: &Step) -> io::Result<()> {
        self.outcome(position, false)
    }

    fn after(&mut self, position: usize, _: &Step) -> io::Result<()> {
        self.outcome(position, true)
    }
}

fn nat(cidr: &str) -> Option<NatTable> {
    NatTable::from_pools(&[NatPool { cidr: cidr.parse().unwrap(), nat_outgoing: true }], None)
}

/// The whole of an ADD: the attachment, then the node.
fn whole_plan(kernel: &Kernel, attachment: &Attachment) -> Vec<Step> {
    let needs = NodeNeeds { ipv4: true, ipv6: true, nat: Nat::Exactly(nat("10.1.0.0/16")) };
    let mut steps = plan_attachment(attachment);
    steps.extend(plan_node(&needs, &kernel.node_state(true).unwrap()));
    steps
}

async fn fails_everywhere_without_a_trace(container: &Other) {
    let attachment = Attachment::new(AttachmentRequest {
        allow_ip_forwarding: Some(true),
        source_check: SourceCheck::Strict,
        allowed_sources: Default::default(),
        ..request("one", &["10.1.0.1", "fd00:1::1"])
    })
    .unwrap();
    let kernel = open(container);
    let before = snapshot(container);
    let steps = whole_plan(&kernel, &attachment);
    for position in 0..steps.len() {
        for done in [false, true] {
            let error = kernel
                .apply_with(&steps, &mut FailAt { position, done })
                .await
                .expect_err("the plan fails on cue");
            assert_eq!(error.step, steps[position].to_string());
            assert!(error.left.is_empty(), "{error}");
            let after = snapshot(container);
            assert!(after == before, "after {error}:\n{after}\nbefore:\n{before}");
        }
    }
    // What was applied whole can be taken back as well.
    let applied = kernel.apply(&steps).await.unwrap();
    assert!(snapshot(container) != before);
    assert!(kernel.undo(applied).await.is_empty());
    assert_eq!(snapshot(container), before);
}

#[test]
fn a_failure_at_any_step_leaves_no_trace() {
    on_a_node(|| async {
        add_addressed_link();
        fails_everywhere_without_a_trace(&Other::new()).await;
    });
}

#[test]
fn an_older_nat_table_is_put_back() {
    on_a_node(|| async {
        let container = Other::new();
        let kernel = open(&container);
        let _ = kernel.apply(&[Step::EnsureNat(nat("10.9.0.0/16"))]).await.unwrap();
        let before = snapshot(&container);
        let steps = [Step::EnsureNat(nat("fd00:1::/64"))];
        for done in [false, true] {
            let checkpoint = &mut FailAt { position: 0, done };
            kernel.apply_with(&steps, checkpoint).await.expect_err("the plan fails on cue");
            assert_eq!(snapshot(&container), before);
        }
    });
}

#[test]
fn what_other_attachments_need_stays() {
    on_a_node(|| async {
        let (container, second) = (Other::new(), Other::new());
        let kernel = open(&container);
        let applied = kernel.apply(&whole_plan(&kernel, &attachment("one", &["10.1.0.1"]))).await;
        let applied = applied.unwrap();
        let other = open(&second);
        let _ = other.apply(&plan_attachment(&attachment("two", &["10.1.0.2"]))).await.unwrap();
        assert!(kernel.undo(applied).await.is_empty());
        let state = kernel.node_state(true).unwrap();
        assert!(state.ipv4_forwarding && state.ipv6_forwarding);
        assert!(support::run("nft", &["list", "ruleset"]).contains("masquerade"));
        assert!(!container.ip("link").contains("eth0"));
    });
}

/// The addresses of one container, and routes of the cluster to them from when other
/// nodes had them.
const STALE: [(&str, [&str; 2]); 2] = [
    (
        "10.1.0.1",
        [
            "10.1.0.1 via 198.51.100.3 dev uplink proto 77 src 198.51.100.1",
            "blackhole 10.1.0.1 proto 77",
        ],
    ),
    (
        "fd00:1::1",
        ["fd00:1::1 via fd00:198::3 dev uplink proto 77", "blackhole fd00:1::1 proto 77"],
    ),
];

#[test]
fn a_stale_route_of_the_cluster_makes_room_and_is_put_back() {
    on_a_node(|| async {
        add_addressed_link();
        let container = Other::new();
        let kernel = open(&container);
        for (address, routes) in STALE {
            let steps = plan_attachment(&attachment("one", &[address]));
            for stale in routes {
                ip(&format!("route add {stale}"));
                let before = snapshot(&container);
                let last = &mut FailAt { position: steps.len() - 1, done: true };
                let error = kernel.apply_with(&steps, last).await.expect_err("fails on cue");
                assert!(error.to_string().contains("on cue") && error.left.is_empty(), "{error}");
                assert_eq!(snapshot(&container), before, "{stale}");
                let applied = kernel.apply(&steps).await.unwrap();
                assert_ne!(snapshot(&container), before);
                assert!(container.reaches(own_address(address)), "{address}");
                assert!(kernel.undo(applied).await.is_empty());
                assert_eq!(snapshot(&container), before, "{stale}");
                ip(&format!("route delete {stale}"));
            }
        }
    });
}

/// The node's address in the family of `like`.
fn own_address(like: &str) -> std::net::IpAddr {
    let own = if like.contains(':') { "fd00:198::1" } else { "198.51.100.1" };
    own.parse().unwrap()
}

#[test]
fn a_stale_route_that_came_back_meanwhile_is_no_error() {
    on_a_node(|| async {
        add_addressed_link();
        let container = Other::new();
        let kernel = open(&container);
        let (address, [stale, _]) = STALE[0];
        ip(&format!("route add {stale}"));
        let before = snapshot(&container);
        let applied = kernel.apply(&plan_attachment(&attachment("one", &[address]))).await.unwrap();
        ip(&format!("route delete {address}"));
        ip(&format!("route add {stale}"));
        assert!(kernel.undo(applied).await.is_empty());
        assert_eq!(snapshot(&container), before);
    });
}

#[test]
fn routes_that_are_no_stale_ones_of_the_cluster_stay() {
    on_a_node(|| async {
        add_addressed_link();
        let container = Other::new();
        let kernel = open(&container);
        for (address, other) in [
            ("10.1.0.1", "10.1.0.1 via 198.51.100.3 dev uplink"),
            ("10.1.0.1", "blackhole 10.1.0.1 proto bird"),
            ("10.1.0.1", "10.1.0.1 dev uplink scope link proto 77"),
            ("fd00:1::1", "fd00:1::1 via fd00:198::3 dev uplink"),
            ("fd00:1::1", "fd00:1::1 dev uplink proto 77"),
        ] {
            ip(&format!("route add {other}"));
            let before = snapshot(&container);
            let steps = plan_attachment(&attachment("one", &[address]));
            let error = kernel.apply(&steps).await.expect_err(other);
            assert!(error.to_string().contains("there is already a route"), "{error}");
            assert_eq!(snapshot(&container), before);
            ip(&format!("route delete {other}"));
        }
        // In a container such routes are of its other attachments.
        let _ = kernel.apply(&plan_attachment(&attachment("one", &["10.1.0.1"]))).await.unwrap();
        let default = Route::via("0.0.0.0/0".parse().unwrap(), "169.254.1.1".parse().unwrap());
        let again = Step::AddRoute { side: Side::Container, link: "eth0".into(), route: default };
        kernel.apply(&[again]).await.expect_err("there is one");
    });
}
