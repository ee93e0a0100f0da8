//! `weirctl doctor`: everything that the containers of this node depend on, in one look.
//!
//! `read.rs` reads the facts, each within a time limit and each able to fail by itself. The
//! files of the subjects judge them, without input or output. `words.rs` prints.

mod addresses;
mod agent;
mod cluster;
mod containers;
mod datastore;
mod facts;
mod firewalls;
mod judgement;
mod kernel;
mod limit;
mod mtu;
mod name;
mod networks;
mod pools;
mod probe;
mod programs;
mod read;
#[cfg(test)]
mod tests;
mod words;

use std::borrow::Cow;
use std::path::Path;

use clap::Args;

use crate::agent_http::AGENT_ADDRESS;
use crate::location::Location;
use crate::output::Style;
use facts::ExaminedNode;
use judgement::{Diagnosis, Grade, Judgement};

pub use networks::is_weirs;

/// Arguments of `weirctl doctor`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit status 0 when there is nothing to do, 1 when there is trouble, 2 when there \
                  is none in what could be looked at, but not everything could be.\n\n\
                  Examples:\n  weirctl doctor\n  weirctl doctor -o json"
)]
pub struct DoctorArgs {
    /// The directories of the CNI plugins, separated by colons
    #[arg(long, value_name = "DIRS", env = "CNI_PATH", default_value = "/opt/cni/bin")]
    pub cni_path: String,
    /// Where this node's agent serves its health
    #[arg(long, value_name = "ADDRESS", default_value = AGENT_ADDRESS)]
    pub metrics_address: String,
    /// Print everything as JSON
    #[arg(short, long, value_name = "FORMAT", value_parser = ["json"])]
    pub output: Option<String>,
}

/// Looks at this node, whose CNI configuration is in `directory`. Answers what to print, and the
/// exit status.
pub async fn run(
    arguments: &DoctorArgs,
    location: Result<Location, String>,
    directory: &Path,
    style: Style,
) -> (String, u8) {
    let facts = read::facts(arguments, location, directory).await;
    let diagnosis = Diagnosis { node: facts.names.own(), judgements: judge(&facts) };
    let text = match arguments.output {
        Some(_) => words::json(&diagnosis),
        None => words::text(&diagnosis, style),
    };
    (text, diagnosis.exit_status())
}

/// Why runtimes or plugins would refuse a network's file with this text, and what to do; `None`
/// where they would not.
pub fn trouble_of_network(path: &Path, text: &str) -> Option<String> {
    let judgements = networks::of_file(path, text).into_iter();
    let trouble = judgements
        .filter(|it| it.grade != Grade::Good)
        .find(|it| it.grade == Grade::Trouble || !networks::is_weirs(text));
    trouble.map(|it| format!("{}; {}", it.what, it.advice))
}

/// Everything there is to say of these facts, subject by subject. What rests on a wrong name or
/// a wrong datastore would be wrong too, and its advice would do harm.
fn judge(facts: &ExaminedNode) -> Vec<Judgement> {
    let mut judgements: Vec<Judgement> =
        [networks::judge, programs::judge].iter().flat_map(|judge| judge(facts)).collect();
    judgements.extend(datastore::judge(facts));
    let of_name = name::judge(facts);
    let is_named = of_name.iter().all(|it| it.grade != Grade::Trouble);
    judgements.extend(of_name);
    let facts = match (datastore::is_in_doubt(&facts.store), is_named) {
        (true, _) => Cow::Owned(facts.without_cluster("the trouble of the datastore comes first")),
        (_, false) => Cow::Owned(facts.without_cluster("the trouble of the name comes first")),
        (false, true) => Cow::Borrowed(facts),
    };
    let subjects = [
        kernel::judge,
        firewalls::judge,
        containers::judge,
        cluster::judge,
        pools::judge,
        mtu::judge,
        agent::judge,
        addresses::judge,
    ];
    judgements.extend(subjects.iter().flat_map(|judge| judge(&facts)));
    judgements
}
