//! The node's part in the cluster, as `weirctl node status` shows it.

use super::facts::{ExaminedNode, Fact};
use super::judgement::{Grade, Judgement};
use crate::commands::node_status::Status;

const SUBJECT: &str = "cluster";

pub fn judge(facts: &ExaminedNode) -> Vec<Judgement> {
    let (status, is_kept) = match status(facts) {
        Ok(status) => status,
        Err(why) => return vec![Judgement::unseen(SUBJECT, why)],
    };
    // They hold names from the store, which must not become part of a command.
    let trouble = |problem: &String| {
        Judgement::trouble(SUBJECT, "", problem)
            .advise("do what this says; weirctl node status shows more")
    };
    let mut judgements: Vec<Judgement> = status.problems.iter().map(trouble).collect();
    let missing = status.missing.iter().map(|it| (it.clone(), "the kernel lacks this"));
    let routes =
        status.ranges.iter().filter_map(|it| Some((it.range.to_string(), it.kernel.fault()?)));
    // Without an agent the first ADD does all that.
    let grade = if is_kept { Grade::Trouble } else { Grade::Note };
    judgements.extend(missing.chain(routes).map(|(value, what)| {
        Judgement::told(SUBJECT, grade, value, what)
            .advise("weirctl node status shows it; start the agent, or: weirctl node run --once")
    }));
    if judgements.is_empty() {
        let value = format!("{} other nodes", status.peers.len());
        let what = "the kernel has the routes that pools and nodes ask for";
        judgements.push(Judgement::good(SUBJECT, value, what));
    }
    judgements
}

/// The status, and whether something has kept the node already.
fn status(facts: &ExaminedNode) -> Fact<(Status, bool)> {
    let kernel = facts.kernel.as_ref().map_err(String::clone)?;
    let cluster = facts.cluster.as_ref().map_err(String::clone)?;
    let name = facts.names.own().ok_or("the node's name is not known")?;
    let status = Status::of(&name, cluster, &kernel.underlay, &kernel.actual);
    Ok((status, facts.agent.runs || !kernel.attachments.is_empty()))
}
