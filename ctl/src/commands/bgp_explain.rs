//! `weirctl bgp explain`

use std::net::IpAddr;

use clap::Args;
use ipnet::IpNet;
use serde_json::json;
use weir_common::network::{
    BgpQuestion, ClusterSnapshot, ClusterState, Underlay, UnderlayLink, explain_bgp,
};

use crate::output::{json, line};
use crate::session::{CommandResult, Failure, Session};

/// Arguments of `weirctl bgp explain`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "It asks no daemon: it says what is configured, not what is up.\n\nExamples:\n  \
                  weirctl bgp explain\n  weirctl bgp explain --node n2 10.0.0.254\n  \
                  weirctl bgp explain 10.244.1.0/26\n  weirctl bgp explain rack1-tor -o json"
)]
pub struct BgpExplainArgs {
    /// A peer's address, node or BGPPeer, or a prefix or address; every session if not given
    #[arg(value_name = "PREFIX|PEER")]
    pub what: Option<String>,
    /// The node; this one if not given
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Print everything as JSON
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json"])]
    pub output: Option<String>,
}

/// Explains a node's BGP.
///
/// # Errors
/// [`Failure`] when nothing is known by the name that is asked for, or the datastore or this
/// node's links cannot be read.
pub async fn run(arguments: BgpExplainArgs, session: &Session<'_>) -> CommandResult {
    let own = session.environment.own_name();
    let is_here = |node: &String| own.as_ref().is_ok_and(|own| own == node);
    let is_here = arguments.node.as_ref().is_none_or(is_here);
    let node = arguments.node.map_or(own, Ok)?;
    let state = ClusterSnapshot::read_whole(session.datastore).await?.state;
    let underlay = match is_here {
        true => session.environment.cluster().await?.0,
        false => registered_links(&node, &state),
    };
    let question = arguments.what.as_deref().map_or(BgpQuestion::Sessions, question);
    let explained = explain_bgp(&node, &state, &underlay, &question);
    if let (BgpQuestion::Named(name), true) = (&question, explained.sessions.is_empty()) {
        return Err(Failure::new(format!(
            "node {node} has no session of the name {name}, nor with a node or by a BGPPeer of \
             it; see: weirctl bgp explain --node {node}"
        )));
    }
    if arguments.output.is_some() {
        // Serialising plain data does not fail.
        return Ok(json::document(&serde_json::to_value(&explained).unwrap_or_else(|_| json!({}))));
    }
    let mut text = String::new();
    if !state.nodes.contains_key(&node) {
        text.push_str(&super::not_registered(&node));
    }
    if !is_here {
        text.push_str(&line(&format!(
            "Note: the links of {node} cannot be seen from here; the subnets that it is \
             registered with are taken for them"
        )));
    }
    Ok(explained.lines().iter().fold(text, |text, one| text + &line(one)))
}

fn question(what: &str) -> BgpQuestion {
    let address = what.parse::<IpAddr>().map(IpNet::from);
    match address.or_else(|_| what.parse::<IpNet>()) {
        Ok(range) => BgpQuestion::Range(range.trunc()),
        Err(_) => BgpQuestion::Named(what.to_owned()),
    }
}

/// The links that another node has, as far as it is registered.
fn registered_links(node: &str, state: &ClusterState) -> Underlay {
    let addresses = state.nodes.get(node).map(|peer| [peer.ipv4, peer.ipv6]);
    let addresses: Vec<IpNet> = addresses.into_iter().flatten().flatten().collect();
    let link = UnderlayLink { name: "its link".to_owned(), mtu: 1500, addresses };
    Underlay { links: vec![link], ..Underlay::default() }
}
