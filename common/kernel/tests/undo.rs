//! A plan that fails leaves everything as it was, wherever it fails.

#![allow(clippy::unwrap_used)]

mod support;

use std::io;

use support::{Other, add_addressed_link, attachment, on_a_node, open, request, snapshot};
use weir_common::network::{
    Attachment, AttachmentRequest, Nat, NatPool, NatTable, NodeNeeds, Step, plan_attachment,
    plan_node,
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
    NatTable::from_pools(&[NatPool { cidr: cidr.parse().unwrap(), nat_outgoing: true }])
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
