//! `weirctl ipam explain`

mod request;

use std::path::PathBuf;

use clap::Args;
use weir_common::datastore::{self, keys};
use weir_common::ipam::explain::{
    AddressSource, Considered, Explanation, HeldBlock, HeldState, explain,
};
use weir_common::ipam::{Error, Reserved};
use weir_common::network::{addresses_of_nodes, read_nodes};

use self::request::Asked;
use crate::output::line;
use crate::session::{CommandResult, Failure, Session};

/// Arguments of `weirctl ipam explain`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "The flags --ipv4, --ipv6 and --pool take the place of what the CNI \
                  configuration asks for. With --docker the next container of a Docker network is \
                  meant: say what it was made with (docker network create --ipam-driver weir).\n\
                  Exit status 1 when the next container gets no \
                  address.\n\nExamples:\n  weirctl ipam explain\n  \
                  weirctl ipam explain --conflist /etc/cni/net.d/10-weir.conflist\n  \
                  weirctl ipam explain --node n2 --pool blue --pool 10.8.0.0/24\n  \
                  weirctl ipam explain --ipv6\n  \
                  weirctl ipam explain --docker --subnet 10.8.0.0/16 --ip-range 10.8.4.0/24")]
pub struct ExplainArgs {
    /// The node; this one if not given
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// CNI configuration whose containers are meant, in its datastore; if not
    /// given, the node's first one in the datastore in use
    #[arg(long, value_name = "FILE")]
    pub conflist: Option<PathBuf>,
    /// A pool to ask for, by name or CIDR; may be given several times
    #[arg(long, value_name = "POOL")]
    pub pool: Vec<String>,
    /// Ask for an IPv4 address; the default where nothing else is asked for
    #[arg(long)]
    pub ipv4: bool,
    /// Ask for an IPv6 address
    #[arg(long)]
    pub ipv6: bool,
    /// Ask as a Docker network does, without --subnet as one that was made without
    #[arg(long, conflicts_with = "conflist")]
    pub docker: bool,
    /// The --subnet of the Docker network
    #[arg(long, value_name = "CIDR", requires = "docker", conflicts_with_all = ["ipv4", "ipv6", "pool"])]
    pub subnet: Option<String>,
    /// The --ip-range of the Docker network
    #[arg(long, value_name = "CIDR", requires = "subnet")]
    pub ip_range: Option<String>,
}

/// Explains which address the next container gets.
///
/// # Errors
/// [`Failure`] when it gets none, or the datastore fails.
pub async fn run(arguments: ExplainArgs, session: &Session<'_>) -> CommandResult {
    let asked = request::read(&arguments, session).await?;
    let now = session.environment.now();
    let nearby = nearby(&asked, session).await?;
    let is_seen = nearby.is_some();
    let explained = explain(session.datastore, &asked.request, nearby.unwrap_or_default(), now)
        .await
        .map_err(|error| super::repair::explain(error.into()))?;
    let note = note_on(asked.node(), session).await?;
    let unseen = if is_seen { String::new() } else { not_seen(asked.node()) };
    let output = asked.in_words() + &note + &unseen + &in_words(&explained);
    match explained.outcome {
        Ok(_) => Ok(output),
        Err(error) => Err(Failure { output, message: refused(&error, session) }),
    }
}

/// What is reserved on the network around the node; `None` for another machine.
async fn nearby(asked: &Asked, session: &Session<'_>) -> Result<Option<Vec<Reserved>>, Failure> {
    if !asked.is_here {
        return Ok(None);
    }
    let failed = |error: datastore::Error| super::repair::explain(error.into());
    let nodes = read_nodes(session.datastore).await.map_err(failed)?;
    let network = session.environment.local_network().await?;
    Ok(Some(network.reserved(&addresses_of_nodes(asked.node(), &nodes))))
}

fn not_seen(node: &str) -> String {
    line(&format!(
        "Note: what is in use on the network around {node} (its own addresses, routers, other \
         nodes) cannot be seen from here"
    ))
}

/// What there is to say of the node's name: nothing when it is registered, or no node is.
async fn note_on(node: &str, session: &Session<'_>) -> Result<String, Failure> {
    let failed = |error: datastore::Error| super::repair::explain(error.into());
    let any = session.datastore.list(keys::NODES, None, 1).await.map_err(failed)?;
    let own = session.datastore.get(&keys::node(node)).await.map_err(failed)?;
    let is_unknown = own.is_none() && !any.entries.is_empty();
    Ok(if is_unknown { super::not_registered(node) } else { String::new() })
}

fn in_words(explained: &Explanation) -> String {
    let considered = explained.wants.iter().map(|it| consider(it, &explained.host));
    considered.collect::<String>() + &outcome(explained)
}

fn consider(considered: &Considered, host: &str) -> String {
    let mut text = line(&format!("{} pools for node {host}:", considered.want.family()));
    for (number, pool) in considered.pools.iter().enumerate() {
        text.push_str(&line(&format!("  {}. {} ({}) is used", number + 1, pool.name, pool.cidr)));
    }
    for (pool, why) in &considered.passed_over {
        text.push_str(&line(&format!("  -  {} ({}) {why}", pool.name, pool.cidr)));
    }
    if considered.pools.is_empty() && considered.passed_over.is_empty() {
        text.push_str("  there are none\n");
    }
    text.push_str(&line(&format!("Blocks that {host} holds in them, in the order tried:")));
    for held in &considered.held {
        let cooling = match held.cooling {
            0 => String::new(),
            cooling => format!(", {cooling} released and cooling down (ipCooldownSeconds)"),
        };
        let described = format!("  {} of {}: {}{cooling}", held.block, held.pool, state(held));
        text.push_str(&line(&described));
    }
    if considered.held.is_empty() {
        text.push_str("  there are none\n");
    }
    text
}

fn state(held: &HeldBlock) -> String {
    match &held.state {
        HeldState::Free(0) => "full".to_owned(),
        HeldState::Free(free) => format!("{free} free"),
        HeldState::Reserved(by) => {
            let by: Vec<&str> = by.iter().map(String::as_str).collect();
            format!("its free addresses are reserved by {}", by.join(", "))
        }
        HeldState::NotThereYet => "not there yet; it is made when it is used".to_owned(),
        HeldState::NotTheHosts(Some(owner)) => format!("belongs to host {owner}; passed over"),
        HeldState::NotTheHosts(None) => "belongs to no host; passed over".to_owned(),
        HeldState::Unreadable(why) => format!("cannot be read: {}", why.reason),
    }
}

fn outcome(explained: &Explanation) -> String {
    let Ok(next) = &explained.outcome else { return String::new() };
    let described = |next: &weir_common::ipam::explain::Next| {
        let source = match &next.source {
            AddressSource::Held => "which the node holds".to_owned(),
            AddressSource::Claimed => "which the node claims".to_owned(),
            AddressSource::Borrowed(Some(owner)) => format!("borrowed from host {owner}"),
            AddressSource::Borrowed(None) => "borrowed from a block of no host".to_owned(),
        };
        let passed_over = next.passed_over.iter();
        let passed_over: String = passed_over
            .map(|(address, by)| line(&format!("Passed over: {address} is {}", by.what_it_is())))
            .collect();
        passed_over + &line(&format!("Next: {} from block {}, {source}", next.address, next.block))
    };
    next.iter().map(described).collect()
}

fn refused(error: &Error, session: &Session<'_>) -> String {
    let looked_in = match error.lacks_pools() {
        true => format!("; looked in {}", session.environment.datastore()),
        false => String::new(),
    };
    format!("the next container gets no address: {}{looked_in}", crate::session::chain(error))
}
