//! The agent of this node.

use super::facts::ExaminedNode;
use super::judgement::Judgement;

const SUBJECT: &str = "agent";

pub fn judge(facts: &ExaminedNode) -> Vec<Judgement> {
    let agent = &facts.agent;
    if !agent.runs {
        let others = facts.cluster.as_ref().map_or(0, |it| it.nodes.len());
        let what = "no agent runs on this node: each ADD does its work";
        return vec![match others > 1 {
            true => Judgement::note(SUBJECT, "", what)
                .advise("in a cluster, run it: systemctl enable --now weir-node"),
            false => Judgement::good(SUBJECT, "", what),
        }];
    }
    let mut judgements = Vec::new();
    if let (Some((_, place)), Ok(location)) = (&agent.keeps, &facts.store.location)
        && *place != location.configuration.place()
    {
        let what = format!(
            "the agent keeps the routes and NAT of another datastore, {place}, than {}",
            location.configuration.place()
        );
        judgements.push(Judgement::note(SUBJECT, location, what).advise(
            "if these are not one cluster: give the agent and the networks one datastore, and \
             restart the agent",
        ));
    }
    let address = &agent.address;
    judgements.push(match &agent.health {
        Some(Ok((true, _))) => Judgement::good(SUBJECT, address, "it runs and is well"),
        Some(Ok((false, words))) => {
            let what = format!("it is not well: {}", words.trim().replace('\n', "; "));
            Judgement::trouble(SUBJECT, address, what)
                .advise("do what it says; its log: journalctl -u weir-node")
        }
        Some(Err(why)) => {
            let what = format!("it runs, but does not tell its health: {why}");
            Judgement::note(SUBJECT, address, what)
                .advise("name its address with --metrics-address; see journalctl -u weir-node")
        }
        None => Judgement::good(SUBJECT, "", "it runs"),
    });
    judgements
}
