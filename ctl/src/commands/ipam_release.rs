//! `weirctl ipam release`

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use weir_common::ipam::audit::Report;
use weir_common::ipam::release_one::{Release, Seen, look_up, release};

use crate::session::{CommandResult, Failure, Session};

/// Arguments of `weirctl ipam release`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "An address is released only as long as it has the holder that it had when it \
                  was looked at.\nSeveral reports release what is in all of them.\n\n\
                  Examples:\n  weirctl ipam release --ip=10.7.0.4\n  \
                  weirctl ipam check -o json > report.json; weirctl ipam release --from-report=report.json"
)]
#[group(required = true, multiple = false)]
pub struct ReleaseArgs {
    /// The address to release
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<String>,
    /// A report of `weirctl ipam check -o json`, whose addresses without a
    /// container are released
    #[arg(long, value_name = "FILE")]
    pub from_report: Vec<PathBuf>,
}

/// Releases addresses.
///
/// # Errors
/// [`Failure`] when one is not released, or the datastore fails.
pub async fn run(arguments: ReleaseArgs, session: &Session<'_>) -> CommandResult {
    match &arguments.ip {
        Some(text) => release_address(text, session).await,
        None => release_reported(&arguments.from_report, session).await,
    }
}

async fn release_address(text: &str, session: &Session<'_>) -> CommandResult {
    let address: IpAddr = text.parse().map_err(|_| {
        Failure::new(format!("'{text}' is no IP address; write for example --ip=10.7.0.4"))
    })?;
    let found = look_up(session.datastore, address)
        .await
        .map_err(|error| Failure::caused_by(&error))?
        .ok_or_else(|| Failure::new(format!("IP address {address} is not assigned")))?;
    match give_back(&Seen::from(&found), session).await? {
        Release::NotInUse => Err(Failure::new(format!("IP address {address} is not assigned"))),
        done => told(address, &done),
    }
}

async fn release_reported(files: &[PathBuf], session: &Session<'_>) -> CommandResult {
    let mut reports = Vec::new();
    for file in files {
        reports.push(read(file, session)?);
    }
    let in_all = |seen: &Seen| reports.iter().all(|report| report.contains(seen));
    let wanted = reports.first().into_iter().flatten().filter(|seen| in_all(seen));
    let (mut output, mut failures) = (String::new(), Vec::new());
    for seen in wanted {
        let done = give_back(seen, session).await;
        match done.and_then(|done| told(seen.address, &done)) {
            Ok(line) => output.push_str(&line),
            Err(failure) => failures.push(failure.message),
        }
    }
    if output.is_empty() && failures.is_empty() {
        output.push_str("No addresses to release\n");
    }
    if failures.is_empty() {
        return Ok(output);
    }
    Err(Failure { output, message: failures.join("\n") })
}

fn read(file: &Path, session: &Session<'_>) -> Result<Vec<Seen>, Failure> {
    let shown = file.display();
    let text = session.surroundings.read_file(file).map_err(|error| {
        Failure::new(format!("{shown} cannot be read: {error}; name a file that can be"))
    })?;
    let report: Report = serde_json::from_str(&text).map_err(|error| {
        Failure::new(format!(
            "{shown} is no report: {error}; make one: weirctl ipam check -o json > report.json"
        ))
    })?;
    Ok(report.releasable())
}

async fn give_back(seen: &Seen, session: &Session<'_>) -> Result<Release, Failure> {
    release(session.datastore, seen).await.map_err(|error| Failure::caused_by(&error))
}

fn told(address: IpAddr, done: &Release) -> CommandResult {
    match done {
        Release::Released => Ok(format!("Successfully released IP address {address}\n")),
        Release::NotInUse => Ok(format!("IP address {address} is released already\n")),
        Release::Reassigned(now) => Err(Failure::new(format!(
            "IP address {address} is not released: it was assigned anew, to handle {}; \
             look at it with: weirctl ipam show --ip={address}",
            now.handle.as_deref().unwrap_or("none")
        ))),
    }
}
