//! The pools: whether they give addresses, and what they overlap.

use std::net::IpAddr;

use ipnet::IpNet;
use weir_common::shell_word;

use super::facts::ExaminedNode;
use super::judgement::Judgement;
use crate::network::{asks_weir_ipam, plugins};

const SUBJECT: &str = "pools";

pub fn judge(facts: &ExaminedNode) -> Vec<Judgement> {
    let mut judgements = match &facts.next {
        Ok(next) => next.iter().map(|it| of_next(it.file.display(), &it.outcome)).collect(),
        Err(why) => vec![Judgement::unseen(SUBJECT, why)],
    };
    judgements.extend(overlaps(facts));
    judgements
}

fn of_next(file: impl ToString, outcome: &Result<Vec<IpAddr>, String>) -> Judgement {
    match outcome {
        Ok(addresses) => {
            let next: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
            Judgement::good(SUBJECT, file, format!("the next container gets {}", next.join(", ")))
        }
        Err(why) => {
            let message = format!("the next container gets no address: {why}");
            // It may hold names from the store, which must not become part of a command.
            Judgement::trouble(SUBJECT, file, message)
                .advise("do what this says; weirctl ipam explain shows more")
        }
    }
}

/// A pool over the node's own network takes it away from containers, and them from it. Under
/// another main plugin (bridge, macvlan) a pool is part of such a network; and a route over a
/// pool may be a router's.
fn overlaps(facts: &ExaminedNode) -> Vec<Judgement> {
    let (Ok(kernel), Ok(cluster)) = (&facts.kernel, &facts.cluster) else { return Vec::new() };
    let is_other_plugin = |(_, text): &(_, String)| {
        let plugins = plugins(text).unwrap_or_default();
        plugins.iter().any(|it| asks_weir_ipam(it) && it.get("type").is_some_and(|it| it != "weir"))
    };
    let may_share = facts.networks.files.iter().any(is_other_plugin);
    let overlap = |one: &IpNet, other: &IpNet| one.contains(other) || other.contains(one);
    let mut judgements = Vec::new();
    for (name, pool) in &cluster.pools {
        let occupied = kernel.occupied.iter().filter(|it| !it.by_weir);
        // Routes to parts of a pool are those of BGP.
        let over = occupied.filter(|it| match it.is_address {
            true => overlap(&it.range, &pool.cidr),
            false => it.range.contains(&pool.cidr),
        });
        for occupied in over {
            let (value, what) = (format!("{name}, {}", pool.cidr), &occupied.what);
            let what = format!("the pool overlaps a network of this node: {what}");
            let advice = format!(
                "use another range for containers: disable this pool (weirctl patch ippool {} \
                 -p 'spec: {{disabled: true}}'), or end that route",
                shell_word(name)
            );
            let is_certain = occupied.is_address && !may_share;
            judgements.push(match is_certain {
                true => Judgement::trouble(SUBJECT, value, what).advise(advice),
                false => Judgement::note(SUBJECT, value, what).advise(advice),
            });
        }
    }
    judgements
}
