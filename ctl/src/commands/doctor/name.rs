//! The node's name, from all sources.

use super::facts::{ExaminedNode, Fact};
use super::judgement::{Grade, Judgement};
use weir_common::network::NamedNode;
use weir_common::shell_word;

const SUBJECT: &str = "name";

pub fn judge(facts: &ExaminedNode) -> Vec<Judgement> {
    let names = &facts.names;
    let wrong = |(file, named): &(_, Fact<NamedNode>)| {
        let why = named.as_ref().err()?;
        let file: &std::path::PathBuf = file;
        Some(Judgement::told(SUBJECT, Grade::Trouble, file.display(), why))
    };
    let mut judgements: Vec<Judgement> = names.networks.iter().filter_map(wrong).collect();
    let own = names.networks.first().map_or(&names.default, |(_, named)| named);
    let own = match own {
        Ok(own) => own,
        Err(why) if names.networks.is_empty() => {
            return vec![Judgement::told(SUBJECT, Grade::Trouble, "", why)];
        }
        Err(_) => return judgements,
    };
    judgements.extend(others(facts, own));
    if let Ok(cluster) = &facts.cluster
        && !cluster.nodes.is_empty()
        && !cluster.nodes.contains_key(&own.name)
    {
        let registered: Vec<&str> = cluster.nodes.keys().map(String::as_str).take(3).collect();
        let what = format!("no node of this name is registered, but {} are", registered.join(", "));
        judgements.push(Judgement::trouble(SUBJECT, &own.name, what).advise(
            "start the agent (systemctl enable --now weir-node), or: weirctl node run --once; if \
             the node has another name: weirctl get nodes",
        ));
    }
    if let Some(clash) = &names.clash {
        judgements.push(Judgement::told(SUBJECT, Grade::Trouble, &own.name, clash));
    }
    if judgements.is_empty() {
        judgements.push(Judgement::good(SUBJECT, &own.name, format!("from {}", own.source)));
    }
    judgements
}

/// The sources that say something else.
fn others(facts: &ExaminedNode, own: &NamedNode) -> Vec<Judgement> {
    let names = &facts.names;
    let mut judgements = Vec::new();
    let is_other = |named: &&NamedNode| named.name != own.name;
    for (file, named) in &names.networks {
        if let Some(other) = named.as_ref().ok().filter(is_other) {
            let what =
                format!("this network calls the node {}, another one {}", other.name, own.name);
            judgements.push(
                Judgement::trouble(SUBJECT, file.display(), what)
                    .advise("write the same nodename into all networks of the node"),
            );
        }
    }
    if let Some((agents, _)) = &facts.agent.keeps
        && agents.name != own.name
    {
        let what = format!(
            "this node is called {} (from {}), but its agent runs as {} (from {})",
            own.name, own.source, agents.name, agents.source
        );
        judgements.push(
            Judgement::trouble(SUBJECT, &own.name, what)
                .advise("give both one name (nodename, --node), and restart the agent"),
        );
    }
    for (file, kept) in names.kept.iter().filter(|(_, kept)| **kept != own.name) {
        let what =
            format!("the node is called {} by {}, but {kept} in this file", own.name, own.source);
        let is_weirs = *file == *std::path::Path::new(weir_process::NODE_NAME_FILE);
        judgements.push(match is_weirs {
            true => Judgement::trouble(SUBJECT, file.display(), what).advise(format!(
                "if the node has another name now: weirctl node rename {} {}; else set nodename \
                 to {kept}",
                shell_word(kept),
                shell_word(&own.name)
            )),
            false => Judgement::note(SUBJECT, file.display(), what)
                .advise(format!("if addresses of Calico's are to count: set nodename to {kept}")),
        });
    }
    judgements
}
