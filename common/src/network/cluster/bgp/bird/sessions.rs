//! Sessions as protocols of BIRD.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::session::{BgpPlan, BgpSession, ExportedOthers, Flow, NextHop, Origin};
use super::BirdText;
use super::filters::function;
use super::problem::BirdProblem;
use super::text::{BirdFamily, is_unicast};
use crate::printable;
use crate::resources::bgp::SecretReference;

/// How many prefixes are taken from one peer: more are a mistake, and would fill the memory.
const MOST_PREFIXES: u32 = 50_000;

/// The longest restart time that a message can carry (RFC 4724: 12 bits).
const LONGEST_RESTART: u32 = 4095;

/// The longest interval between keepalives of which a hold time (16 bits) has three.
const LONGEST_KEEPALIVE: u32 = 21_845;

/// The longest password (`TCP_MD5SIG_MAXKEYLEN` of Linux).
const LONGEST_PASSWORD: usize = 80;

/// Prints the protocols; `filters` are the names of those that have functions.
pub fn print(
    plan: &BgpPlan,
    passwords: &BTreeMap<SecretReference, String>,
    filters: &BTreeSet<&str>,
    output: &mut BirdText,
) {
    let mut bodies = Vec::new();
    for (name, session) in &plan.sessions {
        let printer = SessionPrinter { plan, session, filters };
        match printer.obstacle(name, passwords) {
            Some(problem) => drop(output.problems.insert(problem)),
            None => bodies.push((name, printer)),
        }
    }
    let with_bfd = |(_, printer): &(_, SessionPrinter<'_>)| printer.session.bfd.is_some();
    if bodies.iter().any(with_bfd) {
        output.line("protocol bfd weir_bfd { }");
    }
    for (name, printer) in bodies {
        output.begin(format!("{} ({name})", resource(&printer.session.origin)));
        let password = printer.session.password.as_ref().and_then(|it| passwords.get(it));
        output.line(format!("protocol bgp {name} from weir_peer {{"));
        printer.body(password, output);
        output.line("}");
    }
}

/// What made a session, in words.
fn resource(origin: &Origin) -> String {
    match origin {
        Origin::Mesh => "BGPConfiguration (the mesh)".to_owned(),
        Origin::Global(name) | Origin::Node(name) | Origin::Reverse(name) => {
            format!("BGPPeer {}", printable(name))
        }
    }
}

struct SessionPrinter<'a> {
    plan: &'a BgpPlan,
    session: &'a BgpSession,
    filters: &'a BTreeSet<&'a str>,
}

/// Whether BIRD can have a session, its password aside.
pub fn is_usable(plan: &BgpPlan, name: &str, session: &BgpSession) -> bool {
    SessionPrinter { plan, session, filters: &BTreeSet::new() }.unusable(name).is_none()
}

impl SessionPrinter<'_> {
    /// What keeps BIRD from having the session.
    fn obstacle(
        &self,
        name: &str,
        passwords: &BTreeMap<SecretReference, String>,
    ) -> Option<BirdProblem> {
        let (resource, peer) = (resource(&self.session.origin), self.session.address);
        if let Some(cause) = self.unusable(name) {
            return Some(BirdProblem::UnusableSession { resource, peer, cause });
        }
        let secret = self.session.password.clone()?;
        match passwords.get(&secret) {
            None => Some(BirdProblem::NoPassword { resource, peer, secret }),
            Some(text) if !is_password(text) => {
                Some(BirdProblem::UnusablePassword { resource, peer, secret })
            }
            Some(_) => None,
        }
    }

    fn unusable(&self, name: &str) -> Option<&'static str> {
        let session = self.session;
        let local = self.local_address();
        if !is_protocol_name(name) {
            Some("its name is not one of a protocol")
        } else if !is_unicast(session.address) {
            Some("its address is not one that a session can have")
        } else if local.is_some_and(|it| it.is_ipv4() != session.address.is_ipv4()) {
            Some("the address of this node is of the other family")
        } else if local.is_some_and(|it| !is_unicast(it)) {
            Some("the address of this node is not one that a session can have")
        } else if local == Some(session.address) {
            Some("it is this node's own address")
        } else if session.as_number == 0 || session.local_as == 0 {
            Some("AS numbers are at least 1")
        } else if session.port == 0 || self.plan.listen_port == 0 {
            Some("ports are at least 1")
        } else if session.ttl_security == Some(0) {
            Some("ttlSecurity is at least 1")
        } else {
            None
        }
    }

    /// The address to speak from: the session's, or else the one that is listened on.
    fn local_address(&self) -> Option<IpAddr> {
        let is_ipv4 = self.session.address.is_ipv4();
        let listened = self.plan.listen_addresses.iter().find(|it| it.is_ipv4() == is_ipv4);
        self.session.local_address.or(listened.copied())
    }

    fn body(&self, password: Option<&String>, output: &mut BirdText) {
        let session = self.session;
        let local = self.local_address();
        let address = local.map(|it| format!(" {it}")).unwrap_or_default();
        let port = self.plan.listen_port;
        let mut line = |text: String| output.line(format!("  {text}"));
        line(format!("local{address} port {port} as {};", session.local_as));
        line(format!(
            "neighbor {} port {} as {};",
            session.address, session.port, session.as_number
        ));
        line(match (self.is_direct(), session.ttl_security) {
            (true, Some(_)) => "ttl security on; direct;".to_owned(),
            (true, None) => "direct;".to_owned(),
            (false, Some(hops)) => format!("ttl security on; multihop {hops};"),
            (false, None) => "multihop;".to_owned(),
        });
        if local.is_some_and(|it| self.plan.listen_addresses.contains(&it)) {
            line("strict bind on;".to_owned());
        }
        if session.is_passive {
            line("passive on;".to_owned());
        }
        if let Some(password) = password {
            line(format!("password \"{password}\";"));
        }
        if let Some(time) = session.restart_time {
            line(format!("graceful restart time {};", time.min(LONGEST_RESTART)));
        }
        if let Some(time) = session.keepalive_time {
            let time = time.clamp(1, LONGEST_KEEPALIVE);
            line(format!("keepalive time {time}; hold time {};", time * 3));
        }
        if let Some(count) = session.allowed_own_as {
            line(format!("allow local as {count};"));
        }
        if let Some(cluster_id) = self.reflects_as() {
            line(format!("rr client; rr cluster id {cluster_id};"));
        }
        self.bfd(local, output);
        self.channel(output);
    }

    /// Whether the session is one of a single hop, as BFD on a link is (RFC 5881). All others are
    /// of several: such a session takes no notice of links.
    fn is_direct(&self) -> bool {
        let session = self.session;
        session.bfd.is_some()
            && session.is_on_link
            && matches!(session.ttl_security, None | Some(1))
            && self.local_address().is_some()
    }

    fn reflects_as(&self) -> Option<std::net::Ipv4Addr> {
        self.session.reflects_as.filter(|_| !self.session.is_external())
    }

    /// BIRD refuses BFD over several hops without an address of its own. Not `graceful`: then the
    /// routes of a lost peer that can restart would stay for as long as that may take.
    fn bfd(&self, local: Option<IpAddr>, output: &mut BirdText) {
        let Some(bfd) = self.session.bfd else { return };
        if local.is_none() {
            let resource = resource(&self.session.origin);
            output.problems.insert(BirdProblem::NoBfd { resource, peer: self.session.address });
            return;
        }
        let (interval, multiplier) = (bfd.interval.clamp(1, 60_000), bfd.multiplier.max(1));
        output.line(format!(
            "  bfd {{ min rx interval {interval} ms; min tx interval {interval} \
             ms; multiplier {multiplier}; }};"
        ));
    }

    fn channel(&self, output: &mut BirdText) {
        let digit = BirdFamily::of(self.session.address).digit();
        output.line(format!("  ipv{digit} {{"));
        let mut line = |text: &str| output.line(format!("    {text}"));
        line(&format!("igp table igp{digit};"));
        line("gateway recursive;");
        line(&format!("import limit {MOST_PREFIXES} action block;"));
        match self.session.next_hop {
            // BIRD would tell a router on the link the next hops of others on it, past this node.
            NextHop::Auto if self.is_direct() && self.session.is_external() => {
                line("next hop self;");
            }
            NextHop::Auto => {}
            NextHop::Itself => line("next hop self;"),
            NextHop::Keep => line("next hop keep;"),
        }
        // On a link a peer tells its link-local address, too, and BIRD would take that one.
        if self.is_direct() && digit == 6 {
            line("next hop prefer global;");
        }
        // A reflector's clients learn all ways to a prefix, not the reflector's best one alone.
        if self.reflects_as().is_some() {
            line("add paths on;");
        } else if !self.session.is_external() && self.session.origin != Origin::Mesh {
            line("add paths rx;");
        }
        line(&format!("import {};", self.import()));
        line(&format!("export filter {{ {} }};", self.export()));
        output.line("  };");
    }

    fn import(&self) -> String {
        let digit = BirdFamily::of(self.session.address).digit();
        format!("filter {{ weir_import{digit}(); {}accept; }}", self.calls(Flow::Import))
    }

    fn export(&self) -> String {
        let digit = BirdFamily::of(self.session.address).digit();
        // Whatever a filter accepts, the node's own routes are not told.
        let mut text =
            format!("if source != RTS_BGP && proto != \"announce{digit}\" then reject; ");
        // A router that is told a route by way of itself logs an error for each.
        if self.session.is_external() {
            text += &format!("if gw = {} then reject; ", self.session.address);
        }
        text += &format!("weir_communities{digit}(); ");
        text += &self.calls(Flow::Export);
        if self.reflects_as().is_some() {
            text += "if source = RTS_BGP then accept; ";
        }
        text + &format!("weir_export{digit}({});", self.exports_others())
    }

    /// The condition under which what other nodes announce is told.
    fn exports_others(&self) -> String {
        match &self.session.exports_others {
            ExportedOthers::None => "false".to_owned(),
            ExportedOthers::All => "true".to_owned(),
            ExportedOthers::Of(nodes) => {
                let is_of_family = |it: &&IpAddr| it.is_ipv4() == self.session.address.is_ipv4();
                let nodes = nodes.iter().filter(is_of_family).map(ToString::to_string);
                match nodes.collect::<Vec<_>>().join(", ") {
                    none if none.is_empty() => "false".to_owned(),
                    nodes => format!("defined(bgp_next_hop) && bgp_next_hop ~ [ {nodes} ]"),
                }
            }
        }
    }

    /// The calls of the filters, in their order; if one does not exist, everything is rejected.
    fn calls(&self, flow: Flow) -> String {
        let filters = &self.session.filters;
        if filters.iter().any(|name| !self.filters.contains(name.as_str())) {
            return "reject; ".to_owned();
        }
        let family = BirdFamily::of(self.session.address);
        let is_external = self.session.is_external();
        filters
            .iter()
            .map(|name| format!("{}({is_external}); ", function(name, flow, family)))
            .collect()
    }
}

/// Whether a name is one of a session's protocol (`Mesh_10_0_1_12`), which no word of BIRD is.
fn is_protocol_name(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.len() < 64
        && name.bytes().all(is_word)
        && ["Mesh_", "Global_", "Node_"].iter().any(|prefix| name.starts_with(prefix))
}

fn is_password(text: &str) -> bool {
    (1..=LONGEST_PASSWORD).contains(&text.len())
        && !text.contains(|character: char| character == '"' || character.is_control())
}
