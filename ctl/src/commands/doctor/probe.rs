//! Programs that others wrote, or other releases of Weir's: they are run to see what they are.

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::process::Command;
use weir_kernel::{find_nft, run_program};

use super::facts::{Fact, NetworkFacts, ProgramFacts};
use super::limit::within;
use super::networks::is_weirs;
use crate::network::plugins;

/// The plugins that Weir's networks name, each looked for in these directories and asked for
/// its versions.
pub async fn programs(networks: &NetworkFacts, directories: &str) -> Vec<ProgramFacts> {
    let mut programs: Vec<ProgramFacts> = Vec::new();
    for (file, name, cni_version) in named(networks) {
        let known = programs.iter().any(|it| (&it.name, &it.cni_version) == (&name, &cni_version));
        if known {
            continue;
        }
        // A type is a file's name, and no path (CNI specification, "type").
        let is_plain = !name.is_empty() && !name.contains('/');
        let mut paths = std::env::split_paths(directories).map(|it| it.join(&name));
        let path = paths.find(|it| is_plain && it.is_file());
        let (supports, release) = match &path {
            Some(path) => (versions(path, &cni_version).await, release(path, &name).await),
            None => (Ok(Vec::new()), None),
        };
        let directories = directories.to_owned();
        programs.push(ProgramFacts {
            name,
            file,
            cni_version,
            path,
            directories,
            supports,
            release,
        });
    }
    programs
}

/// The types in Weir's networks, each with the file and its cniVersion. `weir` has its IPAM
/// inside.
fn named(networks: &NetworkFacts) -> Vec<(PathBuf, String, String)> {
    let mut named = Vec::new();
    for (file, text) in networks.files.iter().filter(|(_, text)| is_weirs(text)) {
        for plugin in plugins(text).unwrap_or_default() {
            let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
            let version = text(plugin.get("cniVersion")).filter(|it| !it.is_empty());
            let version = version.unwrap_or_else(|| "0.1.0".to_owned());
            let (main, ipam) =
                (text(plugin.get("type")), text(plugin.get("ipam").map(|it| &it["type"])));
            let is_inside = main.as_deref() == Some("weir") && ipam.as_deref() == Some("weir-ipam");
            let types = main.into_iter().chain(ipam.filter(|_| !is_inside));
            named.extend(types.map(|name| (file.clone(), name, version.clone())));
        }
    }
    named
}

/// What VERSION answers (CNI specification, section 2).
async fn versions(path: &PathBuf, cni_version: &str) -> Fact<Vec<String>> {
    let mut command = Command::new(path);
    command.env("CNI_COMMAND", "VERSION");
    let input = json!({"cniVersion": cni_version}).to_string();
    let (answer, _) = within("VERSION", run(command, &input)).await?;
    let answer: Value = serde_json::from_str(&answer)
        .map_err(|_| "its answer to VERSION is not JSON".to_owned())?;
    let supported = answer["supportedVersions"].as_array().into_iter().flatten();
    Ok(supported.filter_map(|it| it.as_str().map(str::to_owned)).collect())
}

/// What a plugin of Weir's says of itself when it is run without a command: `weir 0.1.0: …`.
async fn release(path: &PathBuf, name: &str) -> Option<String> {
    if !["weir", "weir-ipam"].contains(&name) {
        return None;
    }
    let mut command = Command::new(path);
    command.env_remove("CNI_COMMAND");
    let (_, about) = within("its release", run(command, "")).await.ok()?;
    let release = about.strip_prefix(name)?.split_whitespace().next()?;
    Some(release.trim_end_matches(':').to_owned())
}

/// The version of nft, which is also looked for where a sparse PATH does not lead.
pub async fn nft() -> Fact<String> {
    let program = find_nft().ok_or("there is none in PATH, /usr/sbin and /sbin")?;
    let mut command = Command::new(program);
    command.arg("--version");
    let (version, _) = within("nft --version", run(command, "")).await?;
    Ok(version.trim().to_owned())
}

/// What a program writes to its outputs.
async fn run(mut command: Command, input: &str) -> Fact<(String, String)> {
    let output = run_program(&mut command, input).await.map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((text(&output.stdout), text(&output.stderr)))
}
