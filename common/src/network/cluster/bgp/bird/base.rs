//! What does not depend on sessions: the log, the kernel's tables, what is taken into them.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::super::session::{BgpPlan, StaticRoute};
use super::BirdText;
use super::problem::BirdProblem;
use super::sessions::is_usable;
use super::text::{BirdFamily, is_interface_pattern, is_unicast, prefix_set};
use crate::network::ROUTE_PROTOCOL;
use crate::network::cluster::actual::ANNOUNCE_TABLE;
use crate::resources::bgp::LogSeverity;

/// The line that lets routes stay when BIRD ends.
pub const PERSIST: &str = "persist;";

/// Says whose file it is.
const WRITER: &str = "# Written by Weir's agent, which replaces it.";

/// Prints what BIRD needs to start at all: a router id, where no link has an address, and a
/// protocol.
pub fn print_least(output: &mut BirdText) {
    output.line(WRITER);
    output.line(format!("log stderr {{ {} }};", log_classes(LogSeverity::Info)));
    output.line("router id 0.0.0.1;");
    output.line("protocol device { }");
}

/// Prints everything up to the filters and sessions.
pub fn print(plan: &BgpPlan, output: &mut BirdText) {
    output.begin("BGPConfiguration".to_owned());
    output.line(WRITER);
    output.line(format!("log stderr {{ {} }};", log_classes(plan.log_severity)));
    output.line(format!("router id {};", plan.router_id));
    output.line("timeformat protocol iso long;");
    // A peer that is away keeps a daemon that recovers waiting for as long: until then it writes
    // nothing to the kernel.
    output.line("graceful restart wait 20;");
    output.line("protocol device { scan time 10; }");
    direct(&plan.ignored_interfaces, output);
    for family in BirdFamily::BOTH {
        announced(family, output);
        kernel(plan, family, output);
        resolving(family, output);
        reachable(plan, family, output);
        import(plan, family, output);
        export(plan, family, output);
    }
    output.line("template bgp weir_peer {");
    output.line("  graceful restart on;");
    output.line("  connect delay time 2;");
    output.line("  connect retry time 5;");
    output.line("  error wait time 5, 30;");
    output.line("  keepalive time 30; hold time 90;");
    output.line("}");
}

/// The classes of messages. BIRD has none for none at all; its own bugs are always told.
fn log_classes(severity: LogSeverity) -> &'static str {
    match severity {
        LogSeverity::None => "bug",
        LogSeverity::Fatal => "fatal, bug",
        LogSeverity::Error => "auth, error, fatal, bug",
        LogSeverity::Warning => "remote, warning, auth, error, fatal, bug",
        LogSeverity::Info => "info, remote, warning, auth, error, fatal, bug",
        LogSeverity::Debug => "debug, trace, info, remote, warning, auth, error, fatal, bug",
    }
}

/// The subnets of the node's links, for next hops alone; not those of host ends.
fn direct(ignored: &[String], output: &mut BirdText) {
    let (usable, unusable): (Vec<_>, Vec<_>) =
        ignored.iter().partition(|pattern| is_interface_pattern(pattern));
    output.problems.extend(
        unusable.into_iter().map(|it| BirdProblem::UnusableInterface { pattern: it.clone() }),
    );
    let fixed = ["weir*", "cali*", "kube-ipvs*"];
    let patterns = usable.iter().map(|it| it.as_str()).chain(fixed);
    let patterns: String = patterns.map(|pattern| format!("-\"{pattern}\", ")).collect();
    output.line(format!("protocol direct {{ ipv4; ipv6; interface {patterns}\"*\"; }}"));
}

/// What this node announces, out of its own table. It is preferred to what peers say about the
/// same prefix, or else it would not be announced.
fn announced(family: BirdFamily, output: &mut BirdText) {
    let digit = family.digit();
    output.line(format!("ipv{digit} table weir{digit};"));
    output.line(format!("protocol kernel announce{digit} {{"));
    output.line("  learn;");
    output.line(format!("  {PERSIST}"));
    output.line("  scan time 60;");
    output.line(format!("  kernel table {ANNOUNCE_TABLE};"));
    output.line("  netlink rx buffer 8388608;");
    output.line(format!(
        "  ipv{digit} {{ table weir{digit}; import where krt_source = {ROUTE_PROTOCOL}; export \
         none; }};"
    ));
    output.line("}");
    output.line(format!(
        "protocol pipe own{digit} {{ table master{digit}; peer table weir{digit}; import filter \
         {{ preference = 300; accept; }}; export none; }}"
    ));
}

/// The main table: foreign routes are learned to resolve next hops, and what peers tell is put
/// into it, but for pools that are the agent's. The metrics never change: routes of another one
/// would stay behind.
fn kernel(plan: &BgpPlan, family: BirdFamily, output: &mut BirdText) {
    let digit = family.digit();
    output.line(format!("filter weir_kernel{digit} {{"));
    // A next hop that is not known (yet) is no reason to keep packets from another route.
    output.line("  if dest = RTD_UNREACHABLE then reject;");
    if let Some(set) = prefix_set(family, &plan.of_agent) {
        output.line(format!("  if net ~ {set} then reject;"));
    }
    output.line("  if source = RTS_BGP || source = RTS_STATIC then accept;");
    output.line("  reject;");
    output.line("}");
    let metric = match family {
        BirdFamily::V4 => 1024,
        BirdFamily::V6 => 2048,
    };
    output.line(format!("protocol kernel main{digit} {{"));
    output.line("  learn;");
    output.line(format!("  {PERSIST}"));
    output.line("  scan time 60;");
    output.line("  graceful restart;");
    output.line("  merge paths on limit 16;");
    output.line(format!("  metric {metric};"));
    output.line(format!(
        "  ipv{digit} {{ import where krt_source != {ROUTE_PROTOCOL}; export filter \
         weir_kernel{digit}; }};"
    ));
    output.line("}");
}

/// The table in which next hops are looked up: without what peers tell, or a default route of
/// theirs would hide the way to every node that is not on the link.
fn resolving(family: BirdFamily, output: &mut BirdText) {
    let digit = family.digit();
    output.line(format!("ipv{digit} table igp{digit};"));
    output.line(format!(
        "protocol pipe resolve{digit} {{ table igp{digit}; peer table master{digit}; import where \
         source != RTS_BGP; export none; }}"
    ));
}

/// What is never taken from a peer: a host route to a peer, which would lead the session through
/// itself, or take a node's traffic to another one.
fn import(plan: &BgpPlan, family: BirdFamily, output: &mut BirdText) {
    let digit = family.digit();
    let usable = plan.sessions.iter().filter(|(name, session)| is_usable(plan, name, session));
    let peers = usable.map(|(_, session)| session.address);
    let peers: BTreeSet<IpNet> =
        peers.filter(|it| BirdFamily::of(*it) == family).map(IpNet::from).collect();
    let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
    output.line(format!("function weir_import{digit}() {{"));
    if !peers.is_empty() {
        output.line(format!("  if net ~ [ {} ] then reject;", peers.join(", ")));
    }
    output.line("}");
}

/// The routes to peers that are reached through a router.
fn reachable(plan: &BgpPlan, family: BirdFamily, output: &mut BirdText) {
    let of_family = plan.static_routes.iter().filter(|route| BirdFamily::of(route.peer) == family);
    let (usable, unusable): (Vec<&StaticRoute>, Vec<_>) = of_family.partition(|route| {
        route.via.is_ipv4() == route.peer.is_ipv4()
            && route.via != route.peer
            && is_unicast(route.via)
            && is_unicast(route.peer)
    });
    output.problems.extend(
        unusable.iter().map(|it| BirdProblem::UnusableRoute { peer: it.peer, via: it.via }),
    );
    if usable.is_empty() {
        return;
    }
    let digit = family.digit();
    output.line(format!("protocol static reachable{digit} {{"));
    output.line(format!("  ipv{digit};"));
    for StaticRoute { peer, via } in usable {
        let length = if peer.is_ipv4() { 32 } else { 128 };
        output.line(format!("  route {peer}/{length} via {via};"));
    }
    output.line("}");
}

/// What peers are told when no filter decides, and the communities that it has.
fn export(plan: &BgpPlan, family: BirdFamily, output: &mut BirdText) {
    let digit = family.digit();
    output.line(format!("function weir_communities{digit}() {{"));
    for advertisement in &plan.prefix_advertisements {
        let Some(set) = prefix_set(family, [&advertisement.cidr]) else { continue };
        let adding = advertisement.communities.iter().map(|it| super::filters::adding(*it));
        output.line(format!("  if net ~ {set} then {{ {}}}", adding.collect::<String>()));
    }
    output.line("}");
    output.line(format!("function weir_export{digit}(bool with_others) {{"));
    if let Some(set) = prefix_set(family, &plan.not_exported) {
        output.line(format!("  if net ~ {set} then reject;"));
    }
    output.line(format!("  if proto = \"announce{digit}\" then accept;"));
    if let Some(set) = prefix_set(family, &plan.pools) {
        output.line(format!("  if with_others && source = RTS_BGP && net ~ {set} then accept;"));
    }
    output.line("  reject;");
    output.line("}");
}
