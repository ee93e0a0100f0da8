//! `weirctl support-bundle`: what a maintainer needs to see of this node, in one text file.
//!
//! `contents.rs` lists the sections. `section.rs` reads them, each within a limit of time and
//! size and each able to fail by itself. `secrets.rs` takes secrets out of what was read.

mod contents;
mod secrets;
mod section;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::agent_http::AGENT_ADDRESS;
use crate::location::Sources;
use crate::session::{CommandResult, Failure};
use contents::BundleContents;
use section::{Reader, SectionText};

/// How long all sections may take together.
const TIME: Duration = Duration::from_secs(30);

/// The most bytes of a bundle.
const LARGEST: usize = 20 << 20;

/// Arguments of `weirctl support-bundle`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "The bundle is a text file: read it before you send it. It has names and addresses of nodes, \
                  containers and pods. Passwords, tokens and private keys are taken out. It takes at most 30 s \
                  and 20 MiB. What cannot be read says why. Run it as root, on the node that is in trouble.\n\n\
                  Exit status 0 when the file is written, whatever it says; else 1.\n\n\
                  Examples:\n  weirctl support-bundle\n  weirctl support-bundle /tmp/n1.txt"
)]
pub struct SupportBundleArgs {
    /// The new file; without it weir-support-HOST-TIME.txt in this directory
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Where this node's agent serves its health
    #[arg(long, value_name = "ADDRESS", default_value = AGENT_ADDRESS)]
    pub metrics_address: String,
}

/// Writes the bundle of this node. `flags` are those of the datastore, which the commands in the
/// bundle are run with; `sources` are the files that name it.
///
/// # Errors
/// [`Failure`] when the file is there already, or cannot be written.
pub async fn run(
    arguments: &SupportBundleArgs,
    flags: &[String],
    sources: Sources,
) -> CommandResult {
    let now = Timestamp::now();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let path = arguments.file.clone().unwrap_or_else(|| default_name(host, now));
    let failed = |error: std::io::Error| {
        Failure::new(format!(
            "{} cannot be written: {error}; name another file: weirctl support-bundle FILE",
            path.display()
        ))
    };
    let mut file = create(&path).map_err(failed)?;
    let contents = BundleContents::of_node(arguments, flags, sources);
    let reader = Reader::new(contents.secrets, Instant::now() + TIME);
    let sections = read(reader, contents.probe, contents.sections, contents.of_datastore).await;
    let head = format!(
        "Support bundle of Weir {}, made on {host:?} at {now}.\n\
         Passwords, tokens and private keys are taken out. Names and addresses are not.\n",
        env!("CARGO_PKG_VERSION")
    );
    let text = layout(&head, &sections);
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
        // A part of a bundle would be taken for one.
        let _ = std::fs::remove_file(&path);
        failed(error)
    })?;
    let remarks = sections.iter().filter(|it| it.trouble.is_some()).count();
    Ok(format!(
        "Wrote {}: {} section(s), {remarks} of them with a remark (not there, cut, failed), {} bytes\n\
         Read it before you send it: names and addresses are in it.\n",
        path.display(),
        sections.len(),
        text.len()
    ))
}

fn default_name(host: &str, now: Timestamp) -> PathBuf {
    let plain = |it: char| if it.is_ascii_alphanumeric() || it == '-' { it } else { '_' };
    let host: String = host.chars().map(plain).collect();
    format!("weir-support-{host}-{}.txt", now.strftime("%Y%m%dT%H%M%SZ")).into()
}

/// A new file that only its owner may read. A link of this name is no new file.
fn create(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Reads all sections, in their order. Those of a datastore that does not answer the probe are
/// left out.
async fn read(
    reader: Reader,
    probe: section::Section,
    mut sections: Vec<section::Section>,
    of_datastore: Vec<section::Section>,
) -> Vec<SectionText> {
    let probed = reader.read_all(vec![probe]).await;
    let answers = probed.iter().all(|it| it.trouble.is_none());
    let left_out = match answers {
        true => {
            sections.extend(of_datastore);
            Vec::new()
        }
        false => of_datastore,
    };
    let without = |it: section::Section| {
        SectionText::left_out(it.title, "the datastore does not answer: see the first section")
    };
    let read = reader.read_all(sections).await;
    probed.into_iter().chain(read).chain(left_out.into_iter().map(without)).collect()
}

/// The text of a bundle: a head, a table of contents, and the sections as far as there is room.
fn layout(head: &str, sections: &[SectionText]) -> String {
    let mut text = format!("{head}\nContents:\n");
    for (index, section) in sections.iter().enumerate() {
        let trouble = section.trouble.as_ref().map(|it| format!(" ({it})")).unwrap_or_default();
        text.push_str(&format!("{:>3}. {}{trouble}\n", index + 1, section.title));
    }
    const CUT: &str = "\n[the bundle is full]\n";
    for (index, section) in sections.iter().enumerate() {
        text.push_str(&format!("\n======== {}. {}\n", index + 1, section.title));
        if let Some(trouble) = &section.trouble {
            text.push_str(&format!("[{trouble}]\n"));
        }
        let room = LARGEST.saturating_sub(text.len() + CUT.len());
        if section.text.len() > room {
            text.push_str(&section.text[..section.text.floor_char_boundary(room)]);
            text.push_str(CUT);
            break;
        }
        text.push_str(&section.text);
    }
    text
}
