//! The MTU: of containers, and of the paths that their packets take.

use weir_common::network::{Mtu, plan_cluster};

use super::facts::{ExaminedNode, KernelFacts};
use super::judgement::{Grade, Judgement};
use crate::network::plugins;

const SUBJECT: &str = "mtu";

pub fn judge(facts: &ExaminedNode) -> Vec<Judgement> {
    let kernel = match &facts.kernel {
        Ok(kernel) => kernel,
        Err(why) => return vec![Judgement::unseen(SUBJECT, why)],
    };
    let path = path_mtu(facts, kernel);
    let mut judgements = configured(facts, path);
    let too_large = kernel.attachments.iter().filter(|it| it.mtu > path);
    judgements.extend(too_large.map(|it| {
        let (link, container) = (it.identity.host_interface(), it.identity.container_id());
        let what = format!(
            "the interface of container {container} has MTU {}, and the path to other nodes \
             takes {path}: large packets are lost",
            it.mtu
        );
        Judgement::trouble(SUBJECT, link, what).advise("delete and add the container again")
    }));
    if judgements.is_empty() {
        let what = "the packets of containers fit into the paths to other nodes";
        judgements.push(Judgement::good(SUBJECT, path, what));
    }
    judgements
}

/// The smallest MTU in bytes of the paths to other nodes and outside.
fn path_mtu(facts: &ExaminedNode, kernel: &KernelFacts) -> u32 {
    let cluster = facts.cluster.as_ref().ok().zip(facts.names.own());
    let planned =
        cluster.map(|(cluster, node)| plan_cluster(&node, cluster, &kernel.underlay).pod_mtu);
    planned.unwrap_or(kernel.uplink_mtu)
}

/// The MTUs that networks name, or else the path's.
fn configured(facts: &ExaminedNode, path: u32) -> Vec<Judgement> {
    let wants_ipv6 = facts.next.as_ref().is_ok_and(|next| {
        next.iter().flat_map(|it| it.outcome.iter().flatten()).any(|it| it.is_ipv6())
    });
    let mut judgements = Vec::new();
    for (file, text) in &facts.networks.files {
        let plugins = plugins(text).unwrap_or_default().into_iter();
        let weir = plugins.filter(|it| it.get("type").is_some_and(|it| it == "weir"));
        for mtu in
            weir.filter_map(|it| it.get("mtu")?.as_u64()).filter_map(|it| u32::try_from(it).ok())
        {
            let file = file.display();
            if let Err(error) = Mtu::configured(mtu).check(wants_ipv6) {
                judgements.push(Judgement::told(SUBJECT, Grade::Trouble, file, error));
            } else if mtu > path {
                let what = format!(
                    "mtu {mtu} is larger than {path}, which the path to other nodes takes: large \
                     packets are lost"
                );
                judgements.push(Judgement::trouble(SUBJECT, file, what).advise(format!(
                    "leave the key mtu out, or write at most {path}; then delete and add the \
                     containers again"
                )));
            }
        }
    }
    judgements
}
