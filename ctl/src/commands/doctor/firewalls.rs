//! Other programs' firewalls and policy rules.

use ipnet::IpNet;
use weir_common::network::{Families, find_firewalls, find_policy_rules};

use super::facts::ExaminedNode;
use super::judgement::{Grade, Judgement};

const SUBJECT: &str = "firewall";

pub fn judge(facts: &ExaminedNode) -> Vec<Judgement> {
    let kernel = match &facts.kernel {
        Ok(kernel) => kernel,
        Err(why) => return vec![Judgement::unseen(SUBJECT, why)],
    };
    let cluster = facts.cluster.as_ref().ok();
    let pools: Vec<IpNet> =
        cluster.iter().flat_map(|it| it.pools.values()).map(|pool| pool.cidr).collect();
    let addresses = kernel.attachments.iter().flat_map(|it| it.addresses.iter().copied());
    let concerned: Vec<IpNet> = pools.iter().copied().chain(addresses.map(IpNet::from)).collect();
    let has = |ipv4: bool| concerned.iter().any(|it| it.addr().is_ipv4() == ipv4);
    let own = kernel.underlay.links.iter().flat_map(|link| &link.addresses);
    let sources: Vec<IpNet> =
        concerned.iter().copied().chain(own.map(|it| IpNet::from(it.addr()))).collect();
    let mut found = find_firewalls(&kernel.filters, Families { ipv4: has(true), ipv6: has(false) });
    found.extend(find_policy_rules(&kernel.rules, &sources, &pools));
    if found.is_empty() {
        let what = "no other program drops or diverts what the node forwards";
        return vec![Judgement::good(SUBJECT, "", what)];
    }
    let judgement = |problem: &weir_common::network::FirewallProblem| {
        let grade = if problem.is_certain() { Grade::Trouble } else { Grade::Note };
        Judgement::told(SUBJECT, grade, "", problem)
    };
    found.iter().map(judgement).collect()
}
