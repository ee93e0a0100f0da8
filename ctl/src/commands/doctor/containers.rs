//! What the node's side of the attached containers has lost.

use weir_common::network::{
    HealthProblem, HostEnd, NatPool, NodeHealth, NodeState, find_problems, plan_cluster,
    tunnel_needs,
};

use super::facts::{ExaminedNode, KernelFacts};
use super::judgement::{Grade, Judgement};

const SUBJECT: &str = "containers";

pub fn judge(facts: &ExaminedNode) -> Vec<Judgement> {
    let kernel = match &facts.kernel {
        Ok(kernel) => kernel,
        Err(why) => return vec![Judgement::unseen(SUBJECT, why)],
    };
    let mut judgements: Vec<Judgement> = [&kernel.has_nat, &kernel.has_source_filter]
        .iter()
        .filter_map(|it| it.as_ref().err())
        .map(|why| Judgement::told(SUBJECT, Grade::Trouble, "nftables", why))
        .collect();
    let problems = find_problems(&kernel.attachments, &health(facts, kernel));
    judgements
        .extend(problems.iter().map(|it| Judgement::told(SUBJECT, Grade::Trouble, value(it), it)));
    judgements.extend(kernel.host_ends.iter().filter_map(lost));
    if judgements.is_empty() {
        let what = "links, routes, NAT and filters of the attached containers are there";
        let value = format!("{} attached", kernel.attachments.len());
        judgements.push(Judgement::good(SUBJECT, value, what));
    }
    judgements
}

/// What a host end has lost besides what [`find_problems`] tells: parameters, its hardware address.
fn lost(end: &HostEnd) -> Option<Judgement> {
    let steps = end.repair(&end.state.addresses);
    let first = steps.first().filter(|_| end.state.up)?;
    let container = end.state.identity.container_id();
    let what = format!("the host's end of container {container} has lost a setting: {first}");
    Some(
        Judgement::trouble(SUBJECT, end.state.identity.host_interface(), what)
            .advise("weirctl node repair"),
    )
}

/// Without what the subjects kernel and firewall say.
fn health(facts: &ExaminedNode, kernel: &KernelFacts) -> NodeHealth {
    let cluster = facts.cluster.as_ref().ok();
    let pools = || cluster.iter().flat_map(|it| it.pools.values()).map(NatPool::from).collect();
    let needs = cluster
        .zip(facts.names.own())
        .map(|(cluster, node)| tunnel_needs(&plan_cluster(&node, cluster, &kernel.underlay)));
    let state = NodeState { ipv4_forwarding: true, ipv6_forwarding: true, ..kernel.state.clone() };
    NodeHealth {
        state,
        needs: needs.unwrap_or_default(),
        tunnels: kernel.actual.tunnels.clone(),
        without_nat: if kernel.has_nat == Ok(false) { pools() } else { Vec::new() },
        without_source_filter: kernel.has_source_filter == Ok(false),
        ..NodeHealth::default()
    }
}

fn value(problem: &HealthProblem) -> String {
    match problem {
        HealthProblem::LinkDown(identity) | HealthProblem::RouteMissing { identity, .. } => {
            format!("container {}", identity.container_id())
        }
        HealthProblem::NatMissing => "table inet weir".to_owned(),
        HealthProblem::SourceFilterMissing => "table inet weir-sources".to_owned(),
        HealthProblem::TunnelMissing(kind)
        | HealthProblem::TunnelDown(kind)
        | HealthProblem::TunnelWithoutAddress(kind, _) => kind.device().to_owned(),
        HealthProblem::NotForwarding { .. }
        | HealthProblem::Firewall(_)
        | HealthProblem::NotRegistered(_) => String::new(),
    }
}
