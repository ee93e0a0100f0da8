//! BGP plans with hostile texts, printed for BIRD.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use weir_common::network::{
    BgpPlan, BgpSession, BirdConfiguration, DIGEST_CONSTANT, ExportedOthers, NextHop, Origin,
    StaticRoute,
};
use weir_common::resources::bgp::{
    Bfd, BgpFilter, Community, FilterAction, FilterOperation, FilterRule, LogSeverity, PeerType,
    PrefixAdvertisement, PrefixMatch, PrefixOperator, SecretReference,
};

/// Texts that would be syntax if they were printed as they are.
const HOSTILE: [&str; 16] = [
    "",
    "a",
    "eth*",
    "only-pools",
    "only_2dpools",
    "\"",
    "\"; } protocol static evil { ipv4; route 0.0.0.0/0 blackhole; } #",
    "x; accept; }",
    "include \"/etc/shadow\";",
    "\n}\nprotocol bgp Mesh_evil { }\n",
    "# comment",
    "/* comment",
    "' quote",
    "\u{0}",
    "ünï\u{2028}code",
    "accept",
];

/// Whatever the plan is, its text has the plan's protocols and filters and no other.
pub fn run(input: &[u8]) {
    let (plan, passwords) = plan(input);
    let configuration = BirdConfiguration::of(&plan, &passwords);
    assert_eq!(configuration, BirdConfiguration::of(&plan, &passwords));
    assert_sound(&plan, &passwords, &configuration);
    let leaving = configuration.leaving();
    assert_eq!(blocks(&leaving.text, "protocol"), blocks(&configuration.text, "protocol"));
}

/// What must hold of a printed plan.
///
/// # Panics
/// When it does not.
pub fn assert_sound(
    plan: &BgpPlan,
    passwords: &BTreeMap<SecretReference, String>,
    configuration: &BirdConfiguration,
) {
    let text = &configuration.text;
    let first = format!("define {DIGEST_CONSTANT} = \"{}\";", configuration.digest);
    assert_eq!(text.lines().next(), Some(first.as_str()));
    let protocols = blocks(text, "protocol");
    let of_sessions: BTreeSet<&str> =
        protocols.iter().filter_map(|it| it.strip_prefix("bgp ")?.split(' ').next()).collect();
    let omitted = plan.sessions.len() - of_sessions.len();
    let told = configuration.problems.iter().filter(|it| it.to_string().contains("no session"));
    assert!(of_sessions.iter().all(|name| plan.sessions.contains_key(*name)), "{text}");
    // Two sessions may have one problem.
    assert_eq!(omitted == 0, told.count() == 0, "{:?}\n{text}", configuration.problems);
    for name in &of_sessions {
        let session = &plan.sessions[*name];
        let password = session.password.as_ref().map(|it| &passwords[it]);
        assert!(password.is_none_or(|it| text.contains(&format!("password \"{it}\";"))));
    }
    let others = protocols.len() - of_sessions.len();
    let most = if plan.static_routes.is_empty() { 11 } else { 13 };
    assert!((10..=most).contains(&others), "{others}: {text}");
    let used: BTreeSet<&String> = plan.sessions.values().flat_map(|it| &it.filters).collect();
    let used = used.into_iter().filter(|name| plan.filters.contains_key(*name)).count();
    assert_eq!(blocks(text, "function").len(), 6 + 4 * used, "{text}");
    assert_eq!(blocks(text, "filter").len(), 2, "{text}");
}

/// The heads of the blocks of a kind outside of all others, as BIRD's lexer would find them.
fn blocks(text: &str, kind: &str) -> Vec<String> {
    let (mut depth, mut statement, mut heads) = (0_usize, String::new(), Vec::new());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => drop(characters.by_ref().take_while(|it| *it != '"').count()),
            '#' => drop(characters.by_ref().take_while(|it| *it != '\n').count()),
            '{' => {
                if depth == 0 {
                    heads.push(std::mem::take(&mut statement).trim().to_owned());
                }
                depth += 1;
            }
            '}' => {
                depth = depth.checked_sub(1).expect("braces that match");
                statement.clear();
            }
            ';' => statement.clear(),
            _ if depth == 0 => statement.push(character),
            _ => {}
        }
    }
    assert_eq!(depth, 0, "{text}");
    let of_kind = |head: String| head.strip_prefix(kind)?.strip_prefix(' ').map(str::to_owned);
    heads.into_iter().filter_map(of_kind).collect()
}

/// A plan that these bytes mean, and passwords for some of its sessions.
pub fn plan(input: &[u8]) -> (BgpPlan, BTreeMap<SecretReference, String>) {
    let mut dice = Dice(input);
    let filters: BTreeMap<String, BgpFilter> =
        (0..dice.below(4)).map(|_| (dice.text(), dice.filter())).collect();
    let sessions: BTreeMap<String, BgpSession> = (0..dice.below(6))
        .map(|_| {
            let session = dice.session();
            (dice.protocol(session.address), session)
        })
        .collect();
    let secrets = sessions.values().filter_map(|it| it.password.clone());
    let passwords = secrets.collect::<Vec<_>>().into_iter();
    let passwords = passwords.filter_map(|it| dice.one_in(4, |_| ()).is_none().then_some(it));
    let passwords = passwords.collect::<Vec<_>>().into_iter().map(|it| (it, dice.text()));
    let passwords = passwords.collect();
    let plan = BgpPlan {
        need: None,
        router_id: dice.v4(),
        as_number: dice.number(),
        listen_port: dice.port(),
        listen_addresses: (0..dice.below(2)).map(|_| dice.address()).collect(),
        log_severity: [LogSeverity::Info, LogSeverity::None, LogSeverity::Debug][dice.below(3)],
        ignored_interfaces: (0..dice.below(3)).map(|_| dice.text()).collect(),
        sessions,
        filters,
        pools: (0..dice.below(3)).map(|_| dice.net()).collect(),
        not_exported: (0..dice.below(3)).map(|_| dice.net()).collect(),
        of_agent: (0..dice.below(3)).map(|_| dice.net()).collect(),
        prefix_advertisements: (0..dice.below(3))
            .map(|_| PrefixAdvertisement { cidr: dice.net(), communities: dice.communities() })
            .collect(),
        static_routes: (0..dice.below(3))
            .map(|_| StaticRoute { peer: dice.address(), via: dice.address() })
            .collect(),
        problems: BTreeSet::new(),
    };
    (plan, passwords)
}

/// Choices by the bytes of an input; the first of each, where there are no more.
struct Dice<'a>(&'a [u8]);

impl Dice<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    fn one_in<T>(&mut self, count: usize, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(count) == 1).then(|| make(self))
    }

    fn number(&mut self) -> u32 {
        match self.below(8) {
            0 => 0,
            1 => u32::MAX,
            2 => 2_147_483_648,
            3 => 64512,
            4 => 64513,
            _ => u32::from_be_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    fn port(&mut self) -> u16 {
        [179, 1790, 65535, 0][self.below(4)]
    }

    fn text(&mut self) -> String {
        match self.below(HOSTILE.len() + 3) {
            index if index < HOSTILE.len() => HOSTILE[index].to_owned(),
            index if index == HOSTILE.len() => "x".repeat(usize::from(self.byte())),
            _ => {
                let length = self.below(12).min(self.0.len());
                let (text, rest) = self.0.split_at(length);
                self.0 = rest;
                String::from_utf8_lossy(text).into_owned()
            }
        }
    }

    fn v4(&mut self) -> Ipv4Addr {
        match self.below(12) {
            0 => Ipv4Addr::UNSPECIFIED,
            1 => Ipv4Addr::BROADCAST,
            2 => Ipv4Addr::LOCALHOST,
            3 => Ipv4Addr::new(224, 0, 0, 1),
            4..=9 => Ipv4Addr::new(10, 0, 1, self.byte()),
            _ => Ipv4Addr::from_bits(self.number()),
        }
    }

    fn v6(&mut self) -> Ipv6Addr {
        match self.below(12) {
            0 => Ipv6Addr::UNSPECIFIED,
            1 => Ipv6Addr::LOCALHOST,
            2 => "fe80::1".parse().expect("an address"),
            3 => self.v4().to_ipv6_mapped(),
            4..=9 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, self.byte().into()),
            _ => Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|_| self.byte())),
        }
    }

    fn address(&mut self) -> IpAddr {
        if self.below(3) == 2 { self.v6().into() } else { self.v4().into() }
    }

    fn net(&mut self) -> IpNet {
        let address = self.address();
        let longest = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, self.byte() % (longest + 1)).expect("a length that fits")
    }

    fn communities(&mut self) -> Vec<Community> {
        (0..self.below(3)).map(|_| self.community()).collect()
    }

    fn community(&mut self) -> Community {
        match self.below(2) {
            0 => Community::Standard(self.port(), self.port()),
            _ => Community::Large(self.number(), self.number(), self.number()),
        }
    }

    fn filter(&mut self) -> BgpFilter {
        let mut rules = || (0..self.below(3)).map(|_| self.rule()).collect();
        BgpFilter { export_v4: rules(), import_v4: rules(), export_v6: rules(), import_v6: rules() }
    }

    fn rule(&mut self) -> FilterRule {
        let operators = [
            PrefixOperator::Equal,
            PrefixOperator::NotEqual,
            PrefixOperator::In,
            PrefixOperator::NotIn,
        ];
        FilterRule {
            prefix: self.one_in(2, |dice| PrefixMatch {
                cidr: dice.net(),
                operator: operators[dice.below(4)],
                length: dice.one_in(2, |dice| (dice.byte(), dice.byte())),
            }),
            is_from_peers: self.below(2) == 1,
            interface: self.one_in(3, Self::text),
            peer_type: self
                .one_in(3, |dice| [PeerType::External, PeerType::Internal][dice.below(2)]),
            communities: self.communities(),
            as_path_prefix: (0..self.below(3)).map(|_| self.number()).collect(),
            priority: self.one_in(3, Self::number),
            action: [FilterAction::Accept, FilterAction::Reject][self.below(2)],
            operations: (0..self.below(3)).map(|_| self.operation()).collect(),
        }
    }

    fn operation(&mut self) -> FilterOperation {
        match self.below(3) {
            0 => FilterOperation::AddCommunity(self.community()),
            1 => {
                FilterOperation::PrependAsPath((0..self.below(3)).map(|_| self.number()).collect())
            }
            _ => FilterOperation::SetPriority(self.number()),
        }
    }

    fn session(&mut self) -> BgpSession {
        let address = self.address();
        let name = self.text();
        let origins = [Origin::Mesh, Origin::Global(name.clone()), Origin::Node(name)];
        BgpSession {
            origin: origins[self.below(3)].clone(),
            node: self.one_in(2, Self::text),
            address,
            port: self.port(),
            as_number: self.number(),
            local_as: self.number(),
            local_address: self.one_in(2, Self::address),
            is_passive: self.below(2) == 1,
            reflects_as: self.one_in(3, Self::v4),
            next_hop: [NextHop::Auto, NextHop::Itself, NextHop::Keep][self.below(3)],
            ttl_security: self.one_in(3, Self::byte),
            restart_time: self.one_in(3, Self::number),
            keepalive_time: self.one_in(3, Self::number),
            allowed_own_as: self.one_in(3, Self::byte),
            password: self
                .one_in(3, |dice| SecretReference { name: dice.text(), key: dice.text() }),
            bfd: self.one_in(3, |dice| Bfd { interval: dice.number(), multiplier: dice.byte() }),
            is_on_link: self.below(2) == 1,
            filters: (0..self.below(3)).map(|_| self.text()).collect(),
            exports_others: match self.below(3) {
                0 => ExportedOthers::None,
                1 => ExportedOthers::All,
                _ => ExportedOthers::Of((0..self.below(3)).map(|_| self.address()).collect()),
            },
        }
    }

    /// The name of a session's protocol: mostly as plans have it.
    fn protocol(&mut self, address: IpAddr) -> String {
        let kind = ["Mesh", "Global", "Node"][self.below(3)];
        match self.below(8) {
            0 => self.text(),
            1 => format!("{kind}_{}", self.text()),
            _ => format!("{kind}_{}", address.to_string().replace(['.', ':'], "_")),
        }
    }
}
