//! `weirctl bgp peers`: this node's BGP sessions, as its agent tells them.

use clap::Args;
use serde_json::json;

use crate::agent_http::{self, AGENT_ADDRESS};
use crate::bgp_status::{BgpStatus, SessionStatus};
use crate::output::{Style, boxed, json, line};
use crate::session::{CommandResult, Failure};

/// Arguments of `weirctl bgp peers`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Asks this node's agent, for which no privilege is needed. Exit status 1 when a \
                  session is not up, or a problem is listed.\n\n\
                  Examples:\n  weirctl bgp peers\n  weirctl bgp peers -o json"
)]
pub struct PeersArgs {
    /// Where this node's agent serves its metrics
    #[arg(long, value_name = "ADDRESS", default_value = AGENT_ADDRESS)]
    pub metrics_address: String,
    /// Print everything as JSON
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json"])]
    pub output: Option<String>,
}

/// Shows the sessions.
///
/// # Errors
/// [`Failure`] when the agent does not answer, or something is wrong with a session.
pub async fn run(arguments: &PeersArgs, style: Style) -> CommandResult {
    let status = ask(&arguments.metrics_address).await.map_err(|why| {
        Failure::new(format!(
            "this node's agent does not answer at {}: {why}; start it (weirctl node run), or name \
             its address with --metrics-address",
            arguments.metrics_address
        ))
    })?;
    let output = match arguments.output {
        // Serialising plain data does not fail.
        Some(_) => json::document(&serde_json::to_value(&status).unwrap_or_else(|_| json!({}))),
        None => text(&status, style),
    };
    match complaint(&status) {
        None => Ok(output),
        Some(message) => Err(Failure { output, message }),
    }
}

/// What the agent at `address` says of the node's BGP.
///
/// # Errors
/// Why it says nothing, in words.
pub async fn ask(address: &str) -> Result<BgpStatus, String> {
    let answer = agent_http::get(address, "/bgp").await?;
    serde_json::from_str(&answer.body).map_err(|error| format!("its answer is not JSON: {error}"))
}

/// What is wrong, in one line; `None` when nothing is.
pub fn complaint(status: &BgpStatus) -> Option<String> {
    let down = status.sessions.iter().filter(|session| !session.is_established()).count();
    match (down, status.problems.len()) {
        (0, 0) => None,
        (0, problems) => Some(format!("BGP: {problems} problem(s) listed")),
        (down, 0) => Some(format!("{down} BGP session(s) not established")),
        (down, problems) => {
            Some(format!("{down} BGP session(s) not established, {problems} problem(s) listed"))
        }
    }
}

/// Calico's two tables, the reasons below, and the problems.
pub fn text(status: &BgpStatus, style: Style) -> String {
    let mut text = tables(status, style);
    for (title, sentences) in [("BGP problems", &status.problems), ("BGP notes", &status.notes)] {
        if !sentences.is_empty() {
            let lines: String = sentences.iter().map(|it| line(&format!("- {it}"))).collect();
            text.push_str(&format!("\n{}\n{lines}", style.title(title)));
        }
    }
    text
}

/// A table for each IP version (`calicoctl/commands/node/status.go`), and below it why sessions
/// are not up.
fn tables(status: &BgpStatus, style: Style) -> String {
    let families = [("IPv4", true), ("IPv6", false)];
    let table = |(family, is_ipv4): (&str, bool)| {
        let of_family = |it: &&SessionStatus| it.peer.is_ipv4() == is_ipv4;
        let sessions: Vec<&SessionStatus> = status.sessions.iter().filter(of_family).collect();
        let title = style.title(&format!("{family} BGP status"));
        if sessions.is_empty() {
            return format!("{title}\nNo {family} peers found.\n");
        }
        let rows: Vec<Vec<String>> = sessions.iter().map(|session| row(session)).collect();
        let reason =
            |it: &&SessionStatus| Some(line(&format!("- {}: {}", it.peer, it.why.as_ref()?)));
        let reasons: String = sessions.iter().filter_map(reason).collect();
        format!("{title}\n{}{reasons}", boxed::table(&PEERS, &rows, style))
    };
    families.map(table).join("\n")
}

const PEERS: [&str; 5] = ["PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"];

fn row(session: &SessionStatus) -> Vec<String> {
    vec![
        session.peer.to_string(),
        session.kind.word().to_owned(),
        session.state.clone(),
        session.since.clone(),
        session.info.clone(),
    ]
}
