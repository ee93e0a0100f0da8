//! Weir's tables in nftables.
//!
//! What is installed is read by one netlink request of Weir's own; the program
//! nft is run only to change it. nft's JSON is plain text in and out, so it is
//! run directly: the crate `nftables` would discard what nft says when it
//! fails.

use std::io;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;
use weir_common::network::{
    AllowedSources, Before, NatTable, NftTable, PortTable, SourceFilter, TunnelFilter,
};

use crate::Kernel;
use crate::error::Error;
use crate::nfnetlink::{FAMILY_HEADER, list, name_attribute, split_message};

/// Where nft is looked for when PATH does not lead to it, as in a runtime's
/// sparse environment.
const NFT: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// The nft that Weir runs, if there is one.
pub fn find_nft() -> Option<PathBuf> {
    find_program(NFT[0])
}

/// A program of the node's network, by PATH or where distributions have it.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let directories = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&directories);
    let directories = in_path.chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    directories.map(|it| it.join(name)).find(|it| it.is_file())
}

/// How long nft may take: a table of a thousand elements takes 20 ms. What it was told is one
/// transaction, so that one that is killed has done all of it or nothing.
const LONGEST: Duration = Duration::from_secs(10);

/// Numbers of the kernel's netlink interface to nftables (`linux/netfilter/nfnetlink.h`,
/// `nf_tables.h`).
mod abi {
    pub(super) const GET_TABLE: u16 = 10 << 8 | 1;
    pub(super) const GET_RULE: u16 = 10 << 8 | 7;
    pub(super) const GET_ELEMENT: u16 = 10 << 8 | 13;
    /// New elements and deleted ones.
    pub(super) const OF_ELEMENTS: [u16; 2] = [10 << 8 | 12, 10 << 8 | 14];
    pub(super) const FAMILY_INET: u8 = 1;
    pub(super) const TABLE: u16 = 1;
    pub(super) const SET: u16 = 2;
}

impl Kernel {
    /// Whether the node's NAT table has a rule, whichever: one that is not wanted any
    /// more has, one that somebody deleted or emptied has not.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn has_nat(&self) -> Result<bool, Error> {
        let rules = listed(abi::GET_RULE, NatTable::NAME, None);
        let refused = |cause| Error::refused("nft list table inet weir", cause);
        rules.map(|rules| !rules.is_empty()).map_err(refused)
    }

    /// Whether the filter of what containers send is installed as it should be.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn has_source_filter(&self) -> Result<bool, Error> {
        let refused = |cause| Error::refused("nft list table inet weir-sources", cause);
        let rules = listed(abi::GET_RULE, SourceFilter::NAME, None).map_err(refused)?;
        Ok(is_installed(Some(&SourceFilter), &rules))
    }

    /// Whether the filter of what containers send allows anything more than their own
    /// addresses; with a host end, whether it allows its container more. One that cannot be
    /// asked allows nothing.
    pub fn allows_more(&self, host_end: Option<&str>) -> bool {
        let set_allows = |set: &String| {
            let listed = listed(abi::GET_ELEMENT, SourceFilter::NAME, Some(set));
            let header = FAMILY_HEADER
                + name_attribute(abi::TABLE, SourceFilter::NAME).len()
                + name_attribute(abi::SET, set).len();
            let allows = |body: &Vec<u8>| match host_end {
                // The list of elements has a header too.
                None => body.len() > header + 4,
                Some(name) => body.windows(name.len()).any(|window| window == name.as_bytes()),
            };
            listed.is_ok_and(|bodies| bodies.iter().any(allows))
        };
        SourceFilter::sets().iter().any(set_allows)
    }

    /// Fills the sets of the filter of what containers send.
    ///
    /// # Errors
    /// The filter is not installed, or the program nft refuses.
    pub(crate) async fn fill_source_filter(&self, sources: &AllowedSources) -> Result<(), Error> {
        let action = "nft add element inet weir-sources";
        install::<SourceFilter>(&SourceFilter::fill(sources), action).await
    }

    /// Sees to it that the filter of the tunnel is `wanted`, or that there is
    /// none. A filter is replaced in one transaction, and only if it is not the
    /// wanted one; changes of its set by hand are not noticed.
    ///
    /// # Errors
    /// The program nft is missing, or refuses.
    pub async fn ensure_tunnel_filter(&self, wanted: Option<&TunnelFilter>) -> Result<(), Error> {
        ensure(wanted).await.map(|_: Before| ())
    }
}

/// Sees to it that `wanted` is installed; without one, that a table of its name
/// that is there is retired.
pub(crate) async fn ensure<T: NftTable>(wanted: Option<&T>) -> Result<Before, Error> {
    let rules = match listed(abi::GET_RULE, T::NAME, None) {
        Ok(rules) => rules,
        // A kernel without nftables has no table to remove; nft will say more
        // where one is wanted.
        Err(_) if wanted.is_none() => return Ok(Before::Same),
        Err(_) => Vec::new(),
    };
    let retired = if rules.is_empty() { None } else { T::retired() };
    let wanted = wanted.or(retired.as_ref());
    if is_installed(wanted, &rules) {
        return Ok(Before::Same);
    }
    let before = if rules.is_empty() { Before::Absent } else { Before::Was(listing::<T>().await?) };
    let ruleset = wanted.map_or_else(T::removal, T::ruleset);
    install::<T>(&ruleset, &format!("nft replace table inet {}", T::NAME)).await?;
    Ok(before)
}

/// Removes the table; without one nothing is asked of nft.
pub(crate) async fn remove<T: NftTable>() -> Result<(), Error> {
    // A kernel without nftables has no table to remove.
    match listed(abi::GET_TABLE, T::NAME, None) {
        Ok(tables) if !tables.is_empty() => {
            install::<T>(&T::removal(), &format!("nft delete table inet {}", T::NAME)).await
        }
        _ => Ok(()),
    }
}

/// Puts the table back as `listing` has it, or removes it.
pub(crate) async fn restore<T: NftTable>(listing: Option<&str>) -> Result<(), Error> {
    let action = format!("nft restore table inet {}", T::NAME);
    let Value::Object(mut document) = T::removal() else {
        return Ok(());
    };
    if let (Some(listing), Some(Value::Array(commands))) = (listing, document.get_mut("nftables")) {
        let listing: Value = serde_json::from_str(listing).map_err(|error| Error::Nft {
            action: action.clone(),
            output: format!("its own listing cannot be read: {error}"),
        })?;
        let objects = listing["nftables"].as_array().into_iter().flatten();
        let objects = objects.filter(|object| object.get("metainfo").is_none());
        commands.extend(objects.map(|object| json!({ "add": object })));
    }
    install::<T>(&Value::Object(document), &action).await
}

/// Whether the rules are those of `wanted`: as many, and each with its
/// fingerprint.
fn is_installed<T: NftTable>(wanted: Option<&T>, rules: &[Vec<u8>]) -> bool {
    let Some(wanted) = wanted else {
        return rules.is_empty();
    };
    let fingerprint = wanted.fingerprint();
    let has_fingerprint = |rule: &Vec<u8>| {
        rule.windows(fingerprint.len()).any(|window| window == fingerprint.as_bytes())
    };
    rules.len() == wanted.rules() && rules.iter().all(has_fingerprint)
}

/// The rules of a table, the table itself, or the elements of a `set` of it, as raw
/// messages, whichever the `request` lists; none without the table. A rule's comment, and
/// so the fingerprint, stands in it as text.
fn listed(request: u16, table: &str, set: Option<&str>) -> io::Result<Vec<Vec<u8>>> {
    let mut attributes = name_attribute(abi::TABLE, table);
    attributes.extend(set.into_iter().flat_map(|set| name_attribute(abi::SET, set)));
    // Tables are all listed, whatever was asked for.
    list(request, abi::FAMILY_INET, &attributes, |body| is_of(body, table))
}

/// The elements of a map of the table for published ports, as raw messages.
pub(crate) fn elements(map: &str) -> io::Result<Vec<Vec<u8>>> {
    listed(abi::GET_ELEMENT, PortTable::NAME, Some(map))
}

/// Whether a datagram that the kernel sent to all who listen to nftables tells of
/// a table's change, or of something in it; not of what is in its sets, which ADD and DEL change
/// by themselves.
pub(crate) fn tells_of(datagram: &[u8], table: &str) -> bool {
    let mut rest = datagram;
    while let Some((kind, _, body, next)) = split_message(rest) {
        rest = next;
        if !abi::OF_ELEMENTS.contains(&kind) && is_of(body, table) {
            return true;
        }
    }
    false
}

/// Whether a message is about a table or something in it: all such messages name
/// the table first (`nf_tables_fill_*` in `net/netfilter/nf_tables_api.c`).
fn is_of(body: &[u8], table: &str) -> bool {
    let attributes = body.get(FAMILY_HEADER..).unwrap_or_default();
    body.first() == Some(&abi::FAMILY_INET)
        && attributes.starts_with(&name_attribute(abi::TABLE, table))
}

async fn listing<T: NftTable>() -> Result<String, Error> {
    let action = format!("nft list table inet {}", T::NAME);
    let output = nft::<T>(&["-j", "list", "table", "inet", T::NAME], "", &action).await?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) async fn install<T: NftTable>(ruleset: &Value, action: &str) -> Result<(), Error> {
    nft::<T>(&["-j", "-f", "-"], &ruleset.to_string(), action).await.map(|_| ())
}

async fn nft<T: NftTable>(arguments: &[&str], input: &str, action: &str) -> Result<Output, Error> {
    for program in NFT {
        let mut command = Command::new(program);
        let running = run_program(command.args(arguments), input);
        let Ok(outcome) = timeout(LONGEST, running).await else {
            return Err(Error::NftTooSlow { action: action.to_owned(), limit: LONGEST });
        };
        let output = match outcome {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
            outcome => outcome.map_err(|cause| failed(action, &cause.to_string()))?,
        };
        if output.status.success() {
            return Ok(output);
        }
        return Err(failed(action, String::from_utf8_lossy(&output.stderr).trim()));
    }
    Err(Error::NftMissing { reason: T::REASON, alternative: T::ALTERNATIVE })
}

/// Runs a program with this input until it ends. It is killed when it is given up.
///
/// # Errors
/// It cannot be started.
pub async fn run_program(command: &mut Command, input: &str) -> io::Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that ends early says why by its status, and may not read its input.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    child.wait_with_output().await
}

fn failed(action: &str, output: &str) -> Error {
    Error::Nft { action: action.to_owned(), output: output.to_owned() }
}
