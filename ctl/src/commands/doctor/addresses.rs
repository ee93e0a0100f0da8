//! The addresses in use: leaked ones, and other damage.

use std::collections::BTreeMap;

use weir_common::audit::{Finding, UnjudgedReason};

use super::facts::ExaminedNode;
use super::judgement::Judgement;

const SUBJECT: &str = "addresses";

pub fn judge(facts: &ExaminedNode) -> Vec<Judgement> {
    let audit = match &facts.audit {
        Ok(audit) => audit,
        Err(why) => return vec![Judgement::unseen(SUBJECT, why)],
    };
    let mut kinds: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
    for finding in &audit.findings {
        kinds.entry(finding.kind.name()).or_default().push(finding);
    }
    let mut judgements: Vec<Judgement> =
        kinds.iter().map(|(kind, all)| of_kind(kind, all)).collect();
    // What other nodes have only they can judge.
    let unjudged = audit.not_judged_addresses.iter();
    judgements.extend(unjudged.filter(|it| it.reason != UnjudgedReason::OtherNode).map(|it| {
        let what = format!("addresses {}: they are not judged", it.whose(None));
        Judgement::note(SUBJECT, it.addresses, what).advise(&it.advice)
    }));
    if judgements.is_empty() {
        let value = format!("{} in use", audit.addresses);
        judgements.push(Judgement::good(SUBJECT, value, "none is leaked, and nothing is damaged"));
    }
    judgements
}

fn of_kind(kind: &str, findings: &[&Finding]) -> Judgement {
    let Some(first) = findings.first() else { return Judgement::good(SUBJECT, kind, "") };
    let more = match findings.len() {
        1 => String::new(),
        count => format!(", and {} more of this kind", count - 1),
    };
    let advice = match findings.iter().any(|it| it.safe) {
        true => "weirctl ipam check --repair",
        false => "weirctl ipam check says what stands in the way of a repair",
    };
    Judgement::trouble(SUBJECT, kind, format!("{}{more}", first.problem)).advise(advice)
}
