//! What does not depend on sessions: the log, the kernel's tables, what is taken into them.

use std::net::IpAddr;

use super::super::session::{BgpPlan, StaticRoute};
use super::BirdText;
use super::problem::BirdProblem;
use super::text::{BirdFamily, is_interface_pattern, prefix_set};
use crate::network::ROUTE_PROTOCOL;
use crate::network::cluster::diff::ANNOUNCE_TABLE;
use crate::resources::bgp::LogSeverity;

/// The line that lets routes stay when BIRD ends.
pub const PERSIST: &str = "persist;";

/// Prints everything up to the filters and sessions.
pub fn print(plan: &BgpPlan, output: &mut BirdText) {
    output.begin("BGPConfiguration".to_owned());
    output.line("# Written by Weir's agent, which replaces it.");
    output.line(format!("log stderr {{ {} }};", log_classes(plan.log_severity)));
    output.line(format!("router id {};", plan.router_id));
    output.line("timeformat protocol iso long;");
    output.line("graceful restart wait 60;");
    output.line("protocol device { scan time 10; }");
    direct(&plan.ignored_interfaces, output);
    for family in BirdFamily::BOTH {
        announced(family, output);
        kernel(plan, family, output);
        reachable(plan, family, output);
        export(plan, family, output);
    }
    output.line("template bgp weir_peer {");
    output.line("  graceful restart on;");
    output.line("  connect delay time 2;");
    output.line("  connect retry time 5;");
    output.line("  error wait time 5, 30;");
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

/// Whether an address can be one of a peer or router; BIRD wants an interface with those of the
/// link.
pub fn is_unicast(address: IpAddr) -> bool {
    let is_of_no_host = match address {
        IpAddr::V4(it) => it.is_broadcast(),
        IpAddr::V6(it) => it.is_unicast_link_local() || it.to_ipv4_mapped().is_some(),
    };
    !is_of_no_host && !address.is_unspecified() && !address.is_multicast()
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
