//! What other programs' rules do to the packets of containers: firewalls that drop what the node
//! forwards, and policy rules that send answers elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;

use super::plan::Families;

/// The IP versions of a table in nftables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TableFamily {
    /// IPv4, iptables' too.
    Ip,
    /// IPv6, ip6tables' too.
    Ip6,
    /// Both.
    Inet,
}

/// A table of nftables.
pub type TableName = (TableFamily, String);

/// What a rule does with packets that match it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleEffect {
    /// It goes on to a chain of the same table, and comes back at its end.
    Chain(String),
    /// It goes on to a chain of the same table. At its end comes what comes at the end of its own
    /// chain.
    GoTo(String),
    /// It ends its chain for packets that match.
    Return,
    /// It accepts packets, or may.
    Accept,
    /// It drops or rejects all packets.
    DropAll,
    /// It accepts none.
    Other,
}

/// Which packets a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RulePackets {
    /// All.
    All,
    /// All that come from Weir's containers.
    FromContainers,
    /// All that go to Weir's containers.
    ToContainers,
    /// Others, or fewer.
    Others,
}

/// A rule, as far as it decides whether packets of containers pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardRule {
    /// What it does.
    pub effect: RuleEffect,
    /// With which packets.
    pub packets: RulePackets,
    /// The names of links that its packets come or go by.
    pub links: Vec<String>,
}

/// A chain that sees what the node forwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardChain {
    /// Its table.
    pub table: TableName,
    /// Its name.
    pub name: String,
    /// Whether its policy is to drop.
    pub drops: bool,
}

/// How many jumps the kernel follows at most (`NFT_JUMP_STACK_SIZE`).
const LONGEST_WAY: u32 = 16;

/// Which packets of Weir's containers are accepted for sure.
#[derive(Default)]
struct Accepted {
    from_containers: bool,
    to_containers: bool,
}

/// The chains of the node's forward hook, and the rules of their tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardFilters {
    /// The chains.
    pub chains: Vec<ForwardChain>,
    /// The rules of each chain, in order; none of tables with no chain that could drop all.
    pub rules: BTreeMap<(TableName, String), Vec<ForwardRule>>,
    /// Whether tables of the old iptables filter too, which nftables does not show.
    pub legacy: bool,
}

/// A policy rule that sends packets by another table than the main one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// Its priority.
    pub priority: u32,
    /// The packets that it concerns, by their source.
    pub source: IpNet,
    /// Its table.
    pub table: u32,
    /// The destinations of that table's routes.
    pub routes: Vec<IpNet>,
}

/// Something of another program that drops packets of containers or sends them elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FirewallProblem {
    /// The chain drops all that the node forwards for its containers.
    Drops {
        /// Its table.
        table: TableName,
        /// The chain.
        chain: String,
    },
    /// The chain drops what none of its rules accepts, and some may accept.
    MayDrop {
        /// Its table.
        table: TableName,
        /// The chain.
        chain: String,
    },
    /// The old iptables has tables.
    Legacy,
    /// A rule may send answers to containers elsewhere.
    MaySendElsewhere {
        /// Its priority.
        priority: u32,
        /// The packets that it concerns.
        source: IpNet,
        /// The table that it sends them by.
        table: u32,
    },
}

impl FirewallProblem {
    /// Whether packets are lost for sure.
    pub fn is_certain(&self) -> bool {
        matches!(self, Self::Drops { .. })
    }
}

/// What keeps packets of these IP versions from containers, or may.
pub fn find_firewalls(filters: &ForwardFilters, families: Families) -> Vec<FirewallProblem> {
    let concerns = |chain: &&ForwardChain| match chain.table.0 {
        TableFamily::Ip => families.ipv4,
        TableFamily::Ip6 => families.ipv6,
        TableFamily::Inet => families.ipv4 || families.ipv6,
    };
    let problem = |chain: &ForwardChain| {
        let may_accept = filters.may_accept(chain);
        let (table, chain) = (chain.table.clone(), chain.name.clone());
        match may_accept {
            true => FirewallProblem::MayDrop { table, chain },
            false => FirewallProblem::Drops { table, chain },
        }
    };
    let drops = |chain: &&ForwardChain| filters.drops(chain) && !filters.accepts_containers(chain);
    let dropping = filters.chains.iter().filter(drops).filter(concerns);
    let mut problems: Vec<_> = dropping.map(problem).collect();
    problems.extend(filters.legacy.then_some(FirewallProblem::Legacy));
    problems
}

/// The policy rules that may keep answers from containers: they concern packets from `sources`
/// (the pools and the node's addresses), and their tables lead elsewhere, but not to `pools`.
pub fn find_policy_rules(
    rules: &[PolicyRule],
    sources: &[IpNet],
    pools: &[IpNet],
) -> Vec<FirewallProblem> {
    let overlap = |one: &IpNet, other: &IpNet| one.contains(other) || other.contains(one);
    let is_everything = |range: &IpNet| range.prefix_len() == 0;
    let leads_elsewhere = |rule: &&PolicyRule| {
        let leads_to = |pool: &IpNet| {
            rule.routes.iter().any(|route| !is_everything(route) && overlap(route, pool))
        };
        let same_version = |pool: &&IpNet| pool.addr().is_ipv4() == rule.source.addr().is_ipv4();
        rule.routes.iter().any(is_everything) && !pools.iter().filter(same_version).all(leads_to)
    };
    let concerned = rules.iter().filter(|rule| {
        !is_everything(&rule.source) && sources.iter().any(|source| overlap(source, &rule.source))
    });
    let problem = |rule: &PolicyRule| FirewallProblem::MaySendElsewhere {
        priority: rule.priority,
        source: rule.source,
        table: rule.table,
    };
    concerned.filter(leads_elsewhere).map(problem).collect()
}

impl ForwardFilters {
    /// Whether the chain drops what nothing accepts: by its policy, or by its last rule.
    fn drops(&self, chain: &ForwardChain) -> bool {
        let mut rules = self.rules_of(&chain.table, &chain.name).iter();
        chain.drops || rules.any(|rule| rule.effect == RuleEffect::DropAll)
    }

    fn rules_of(&self, table: &TableName, chain: &str) -> &[ForwardRule] {
        let rules = self.rules.get(&(table.clone(), chain.to_owned()));
        rules.map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether all that comes from Weir's containers or goes to them is accepted before the
    /// chain drops it. What rules before drop of it, they are there to drop.
    fn accepts_containers(&self, base: &ForwardChain) -> bool {
        let mut accepted = Accepted::default();
        self.accept(base, &base.name, LONGEST_WAY, &mut accepted);
        accepted.from_containers && accepted.to_containers
    }

    /// Follows what is for all packets. Whether that ends in this chain.
    fn accept(&self, base: &ForwardChain, chain: &str, left: u32, accepted: &mut Accepted) -> bool {
        if left == 0 {
            return true;
        }
        for rule in self.rules_of(&base.table, chain) {
            match (&rule.effect, rule.packets) {
                (RuleEffect::Accept, RulePackets::FromContainers) => {
                    accepted.from_containers = true;
                }
                (RuleEffect::Accept, RulePackets::ToContainers) => accepted.to_containers = true,
                (RuleEffect::Chain(next), RulePackets::All)
                    if self.accept(base, next, left - 1, accepted) =>
                {
                    return true;
                }
                (RuleEffect::GoTo(next), RulePackets::All) => {
                    return self.accept(base, next, left - 1, accepted);
                }
                (RuleEffect::Return, RulePackets::All) => return false,
                (RuleEffect::DropAll, _) => return true,
                _ => {}
            }
        }
        false
    }

    /// Whether any rule that packets of containers may come to may accept them.
    fn may_accept(&self, base: &ForwardChain) -> bool {
        let (mut seen, mut left) = (BTreeSet::new(), vec![base.name.as_str()]);
        while let Some(chain) = left.pop() {
            if !seen.insert(chain) {
                continue;
            }
            // What ends this chain early is left to the policy.
            let end_accepts = chain == base.name && !base.drops;
            for rule in self.rules_of(&base.table, chain) {
                match &rule.effect {
                    _ if rule.links.iter().any(|link| is_other_programs_bridge(link)) => {}
                    RuleEffect::Accept => return true,
                    RuleEffect::Return | RuleEffect::GoTo(_) if end_accepts => return true,
                    RuleEffect::Chain(next) | RuleEffect::GoTo(next) => left.push(next),
                    // What comes after it sees no packet.
                    RuleEffect::DropAll => break,
                    RuleEffect::Return | RuleEffect::Other => {}
                }
            }
        }
        false
    }
}

/// Whether a link is one to another program's containers or machines, by its name, and so none
/// that packets of Weir's containers come or go by.
fn is_other_programs_bridge(link: &str) -> bool {
    let is_number = |rest: &str| !rest.is_empty() && rest.bytes().all(|it| it.is_ascii_digit());
    let numbered = ["docker", "virbr", "podman", "cni-podman", "lxcbr", "lxdbr"];
    let of_docker = link.strip_prefix("br-").is_some_and(|id| {
        id.len() == 12 && id.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
    });
    let mut rests = numbered.iter().filter_map(|name| link.strip_prefix(name));
    of_docker || rests.any(is_number)
}

impl fmt::Display for TableFamily {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        })
    }
}

impl fmt::Display for FirewallProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drops { table: (family, table), chain } => write!(
                formatter,
                "another program's firewall drops what the node forwards, so containers reach \
                 neither each other nor the world outside: chain {chain} of \"table {family} \
                 {table}\" in nftables; {}",
                advice(*family, table, chain)
            ),
            Self::MayDrop { table: (family, table), chain } => write!(
                formatter,
                "another program's firewall drops what it does not accept of what the node \
                 forwards: chain {chain} of \"table {family} {table}\" in nftables; if containers \
                 do not reach each other, {}",
                advice(*family, table, chain)
            ),
            Self::Legacy => write!(
                formatter,
                "the old iptables has filters on this node, which nftables does not show; if \
                 containers do not reach each other, look at \"iptables-legacy -S FORWARD\" and \
                 accept their pools there"
            ),
            Self::MaySendElsewhere { priority, source, table } => write!(
                formatter,
                "the policy rule {priority} sends what comes from {source} by table {table}, which \
                 has a default route and no route to every pool; if containers get no answers, \
                 look at \"ip rule\" and \"ip route show table {table}\", and add \"ip rule add to \
                 POOL lookup main priority N\" with an N below {priority} for each pool"
            ),
        }
    }
}

/// What makes a chain let packets of containers pass.
fn advice(family: TableFamily, table: &str, chain: &str) -> String {
    let iptables = match (family, chain) {
        (TableFamily::Ip, "FORWARD") => " (or \"iptables -I FORWARD -i weir+ -j ACCEPT\" and -o)",
        (TableFamily::Ip6, "FORWARD") => " (or \"ip6tables -I FORWARD -i weir+ -j ACCEPT\" and -o)",
        _ => "",
    };
    format!(
        "chain the CNI plugin \"firewall\" after weir, or have that program accept packets from and \
         to containers: \"nft insert rule {family} {table} {chain} iifname \\\"weir*\\\" accept\" \
         and the same with oifname{iptables}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Families = Families { ipv4: true, ipv6: false };
    const V6: Families = Families { ipv4: false, ipv6: true };

    fn filters(drops: bool, rules: &[(&str, RuleEffect, &[&str])]) -> ForwardFilters {
        let table = (TableFamily::Ip, "filter".to_owned());
        let mut filters = ForwardFilters {
            chains: vec![ForwardChain { table: table.clone(), name: "FORWARD".to_owned(), drops }],
            ..ForwardFilters::default()
        };
        for (chain, effect, links) in rules {
            let links = links.iter().map(|&link| link.to_owned()).collect();
            let packets = RulePackets::Others;
            let rule = ForwardRule { effect: effect.clone(), packets, links };
            filters.rules.entry((table.clone(), (*chain).to_owned())).or_default().push(rule);
        }
        filters
    }

    /// Whether packets are lost: for sure, perhaps, or not.
    fn judged(drops: bool, rules: &[(&str, RuleEffect, &[&str])]) -> Option<bool> {
        let problems = find_firewalls(&filters(drops, rules), V4);
        assert!(problems.len() < 2);
        problems.first().map(FirewallProblem::is_certain)
    }

    fn to(chain: &str) -> RuleEffect {
        RuleEffect::Chain(chain.to_owned())
    }

    #[test]
    fn a_policy_to_drop_is_certain_where_nothing_accepts() {
        use RuleEffect::{Accept, DropAll, Other};
        assert_eq!(judged(false, &[]), None);
        assert_eq!(judged(false, &[("FORWARD", Accept, &[])]), None);
        assert_eq!(judged(true, &[]), Some(true));
        assert_eq!(judged(true, &[("FORWARD", Other, &[])]), Some(true));
        assert_eq!(judged(true, &[("FORWARD", Accept, &[])]), Some(false));
        assert_eq!(judged(true, &[("FORWARD", Accept, &["weir+"])]), Some(false));
        assert_eq!(judged(true, &[("FORWARD", Accept, &["eth0"])]), Some(false));
        // A rule at the end does the same (firewalld).
        assert_eq!(judged(false, &[("FORWARD", DropAll, &[])]), Some(true));
        let accepting = [("FORWARD", Accept, &[][..]), ("FORWARD", DropAll, &[][..])];
        assert_eq!(judged(false, &accepting), Some(false));
        let hidden = [("FORWARD", DropAll, &[][..]), ("FORWARD", Accept, &[][..])];
        assert_eq!(judged(false, &hidden), Some(true));
    }

    #[test]
    fn what_leaves_a_chain_early_is_left_to_its_policy() {
        use RuleEffect::{Accept, DropAll, Other, Return};
        let go_to = || RuleEffect::GoTo("A".to_owned());
        for early in [Return, go_to()] {
            let rules = [("FORWARD", early.clone(), &[][..]), ("FORWARD", DropAll, &[])];
            assert_eq!(judged(false, &rules), Some(false), "{early:?}");
            assert_eq!(judged(true, &rules), Some(true), "{early:?}");
            let late = [("FORWARD", DropAll, &[][..]), ("FORWARD", early.clone(), &[])];
            assert_eq!(judged(false, &late), Some(true), "{early:?}");
            let others = [("FORWARD", early, &["docker0"][..]), ("FORWARD", DropAll, &[])];
            assert_eq!(judged(false, &others), Some(true));
        }
        // From a chain that was jumped to, both lead back to the rule after the jump.
        for early in [Return, go_to()] {
            let rules = [
                ("FORWARD", to("B"), &[][..]),
                ("FORWARD", DropAll, &[]),
                ("B", early.clone(), &[]),
                ("A", Other, &[]),
            ];
            assert_eq!(judged(false, &rules), Some(true), "{early:?}");
        }
        // What the chain accepts is found.
        let accepting = [("FORWARD", go_to(), &[][..]), ("A", Accept, &[])];
        assert_eq!(judged(true, &accepting), Some(false));
    }

    #[test]
    fn chains_are_followed_but_not_those_of_other_programs_bridges() {
        use RuleEffect::{Accept, Other};
        let docker: [(&str, RuleEffect, &[&str]); 5] = [
            ("FORWARD", to("USER"), &[]),
            ("FORWARD", to("DOCKER"), &[]),
            ("USER", Other, &[]),
            ("DOCKER", Accept, &["docker0"]),
            ("DOCKER", Accept, &["br-0123456789ab"]),
        ];
        assert_eq!(judged(true, &docker), Some(true));
        let mut accepting = docker.to_vec();
        accepting.push(("USER", Accept, &[]));
        assert_eq!(judged(true, &accepting), Some(false));
        // A circle, and a chain that is not there.
        let circle =
            [("FORWARD", to("A"), &[][..]), ("A", to("FORWARD"), &[]), ("A", to("B"), &[])];
        assert_eq!(judged(true, &circle), Some(true));
        for link in ["br-lan", "br-ex", "docker", "eth0", "weir84bd87e317f", "virbr0x"] {
            assert!(!is_other_programs_bridge(link), "{link}");
        }
    }

    #[test]
    fn nothing_is_told_of_a_chain_that_accepts_all_of_containers_first() {
        use RuleEffect::{Accept, DropAll, Return};
        use RulePackets::{All, FromContainers, Others, ToContainers};
        let is_told = |rules: &[(&str, RuleEffect, RulePackets)]| {
            let mut filters = filters(true, &[]);
            let table = filters.chains[0].table.clone();
            for (chain, effect, packets) in rules {
                let (effect, packets) = (effect.clone(), *packets);
                let rule = ForwardRule { effect, packets, links: Vec::new() };
                filters.rules.entry((table.clone(), (*chain).to_owned())).or_default().push(rule);
            }
            !find_firewalls(&filters, V4).is_empty()
        };
        let own = [
            ("WEIR", Return, Others),
            ("WEIR", Accept, FromContainers),
            ("WEIR", Accept, ToContainers),
        ];
        let docker = [
            ("FORWARD", to("USER"), All),
            ("FORWARD", DropAll, All),
            ("USER", DropAll, Others),
            ("USER", to("WEIR"), All),
            ("USER", Return, All),
        ];
        let with = |rules: &[(&'static str, RuleEffect, RulePackets)]| {
            is_told(&[rules, &own[..]].concat())
        };
        assert!(is_told(&docker));
        // A rule that drops all stands before it, by the test's own DropAll.
        assert!(with(&docker));
        let mut docker = docker.to_vec();
        docker.remove(2);
        assert!(!with(&docker));
        // One way only; not all packets; behind the end.
        assert!(is_told(&[&docker[..], &own[..2]].concat()));
        docker[2].2 = Others;
        assert!(with(&docker));
        docker[2].2 = All;
        docker.swap(2, 3);
        assert!(with(&docker));
        // A circle comes to an end.
        assert!(is_told(&[("FORWARD", to("FORWARD"), All)]));
    }

    #[test]
    fn only_chains_of_the_containers_ip_version_count() {
        let mut filters = filters(true, &[]);
        assert!(find_firewalls(&filters, V6).is_empty());
        filters.chains[0].table.0 = TableFamily::Ip6;
        assert!(find_firewalls(&filters, V4).is_empty());
        assert_eq!(find_firewalls(&filters, V6).len(), 1);
        filters.chains[0].table.0 = TableFamily::Inet;
        assert_eq!(
            (find_firewalls(&filters, V4).len(), find_firewalls(&filters, V6).len()),
            (1, 1)
        );
        let legacy = ForwardFilters { legacy: true, ..ForwardFilters::default() };
        assert_eq!(find_firewalls(&legacy, V4), [FirewallProblem::Legacy]);
        assert!(!FirewallProblem::Legacy.is_certain());
    }

    #[test]
    fn a_finding_names_its_table_and_what_to_do() {
        let told = find_firewalls(&filters(true, &[]), V4)[0].to_string();
        for words in ["chain FORWARD", "table ip filter", "nft insert rule ip filter FORWARD"] {
            assert!(told.contains(words), "{words}: {told}");
        }
    }

    #[test]
    fn policy_rules_count_where_they_send_answers_elsewhere() {
        let ranges = |texts: &[&str]| -> Vec<IpNet> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let (sources, pools) =
            (ranges(&["10.7.0.0/16", "172.30.0.11/32"]), ranges(&["10.7.0.0/16"]));
        let told = |source: &str, routes: &[&str]| {
            let source = source.parse().unwrap();
            let rule = PolicyRule { priority: 100, source, table: 7, routes: ranges(routes) };
            !find_policy_rules(&[rule], &sources, &pools).is_empty()
        };
        assert!(told("172.30.0.11/32", &["0.0.0.0/0"]));
        assert!(told("10.7.3.0/24", &["0.0.0.0/0", "192.168.0.0/16"]));
        assert!(!told("10.9.0.0/24", &["0.0.0.0/0"]), "others' packets");
        assert!(!told("0.0.0.0/0", &["0.0.0.0/0"]), "every packet, and so by intent");
        assert!(!told("10.7.3.0/24", &[]), "what the table does not have, others do");
        assert!(!told("10.7.3.0/24", &["0.0.0.0/0", "10.0.0.0/8"]));
    }
}
