//! Puts a main and an IPAM plugin to the test, clause by clause of the CNI
//! contract (docs/cni-conformance.md).
//!
//! It knows nothing of a plugin but the keys of its configuration
//! (`subject.rs`), so that it can be tried on plugins of others. Every check
//! runs on a node of its own.

mod bench;
mod checks;
mod clauses;
mod fake;
mod report;
mod run;
mod subject;
mod verdict;

use std::io::{Error, Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use serde_json::{Map, Value};
use weir_tests::{CNI_PATH, binaries};

use bench::Pair;
use run::Report;
use subject::{Ipam, Main};

/// Puts a CNI main plugin and an IPAM plugin to the test, clause by clause.
#[derive(Parser)]
struct Options {
    /// The main plugin
    #[arg(long, default_value = "weir")]
    main: String,
    /// The IPAM plugin that it delegates to
    #[arg(long, default_value = "weir-ipam")]
    ipam: String,
    /// More keys of the main plugin's configuration
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = object)]
    main_options: Value,
    /// More keys of the ipam section
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = object)]
    ipam_options: Value,
    /// A directory to look for the plugins in first
    #[arg(long, value_name = "DIR")]
    plugin_path: Vec<PathBuf>,
    /// How long one call of a plugin may take
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    call_limit: u16,
    /// Run only this clause or check; may be given again
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// How the findings are printed
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Print which checks there are for each clause, as Markdown, and run none
    #[arg(long)]
    document: bool,
    /// Compare pairs, written MAIN+IPAM, and print Markdown
    #[arg(long, value_name = "PAIR", num_args = 1.., conflicts_with_all = ["main", "ipam"])]
    compare: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> Result<ExitCode, Error> {
    let options = Options::parse();
    if options.document {
        write!(stdout(), "{}", report::document())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut reports = Vec::new();
    for (main, ipam) in pairs(&options) {
        match run::examine(&pair(&options, &main, &ipam), &options.only) {
            Ok(report) => reports.push(report),
            Err(reason) => {
                writeln!(stderr(), "conformance: {reason}")?;
                return Ok(ExitCode::from(2));
            }
        }
    }
    if !options.compare.is_empty() {
        write!(stdout(), "{}", report::comparison(&reports))?;
        return Ok(ExitCode::SUCCESS);
    }
    for report in &reports {
        let text = match options.output {
            Output::Table => report::table(report),
            Output::Json => report::json(report),
        };
        write!(stdout(), "{text}")?;
    }
    Ok(if reports.iter().any(Report::has_failures) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Understands the keys given for a configuration.
fn object(text: &str) -> Result<Value, String> {
    let keys: Map<String, Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(Value::Object(keys))
}

/// The names of the plugins to look at.
fn pairs(options: &Options) -> Vec<(String, String)> {
    if options.compare.is_empty() {
        return vec![(options.main.clone(), options.ipam.clone())];
    }
    let pair = |text: &String| {
        let (main, ipam) = text.split_once('+').unwrap_or((text, "host-local"));
        (main.to_owned(), ipam.to_owned())
    };
    options.compare.iter().map(pair).collect()
}

fn pair(options: &Options, main: &str, ipam: &str) -> Pair {
    let mut directories = options.plugin_path.clone();
    if [main, ipam].iter().any(|name| name.starts_with("weir")) {
        directories.push(binaries());
    }
    directories.push(CNI_PATH.into());
    Pair {
        main: Main::named(main, &options.main_options),
        ipam: Ipam::named(ipam, &options.ipam_options),
        directories,
        call_limit: options.call_limit,
    }
}
