//! The files of the CNI configuration: their order, names, types and values.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use weir_common::cni::{Arguments, skeleton};
use weir_common::shell_word;

use super::facts::{ExaminedNode, NetworkFacts};
use super::judgement::{Grade, Judgement};
use crate::network::{asks_weir_ipam, plugins};

const SUBJECT: &str = "networks";

/// The plugins of Weir.
const TYPES: [&str; 2] = ["weir", "weir-ipam"];

pub fn judge(facts: &ExaminedNode) -> Vec<Judgement> {
    let networks = &facts.networks;
    let mut judgements: Vec<Judgement> = networks
        .unreadable
        .iter()
        .map(|path| {
            Judgement::trouble(
                SUBJECT,
                path.display(),
                "a file of the CNI configuration cannot be read",
            )
            .advise("correct its permissions, or the link that it is; or move it away")
        })
        .collect();
    judgements.extend(networks.files.iter().flat_map(|(path, text)| of_file(path, text)));
    judgements.extend(order(networks));
    judgements.extend(shared_names(networks));
    if networks.has_docker {
        let what = "dockerd finds Weir's driver for networks and addresses";
        judgements.push(Judgement::good(SUBJECT, "docker", what));
    } else if !networks.files.iter().any(|(_, text)| is_weirs(text)) {
        let advice = format!(
            "install a network, for example conf/net.d/10-weir.conflist, in {}; a list of \
             Calico's works with its types changed to weir and weir-ipam",
            networks.directory.display()
        );
        let what = "no network has a plugin of Weir's";
        judgements
            .push(Judgement::trouble(SUBJECT, networks.directory.display(), what).advise(advice));
    }
    judgements
}

/// Whether a plugin of the network in this text is Weir's.
pub fn is_weirs(text: &str) -> bool {
    plugins(text).is_ok_and(|plugins| plugins.iter().any(concerns_weir))
}

fn concerns_weir(plugin: &Map<String, Value>) -> bool {
    plugin.get("type").is_some_and(|it| it == "weir") || asks_weir_ipam(plugin)
}

/// What there is to say of a network's file; nothing where it is another program's.
pub fn of_file(path: &Path, text: &str) -> Vec<Judgement> {
    let file = path.display();
    let network: Map<String, Value> = match serde_json::from_str(text) {
        Ok(network) => network,
        Err(error) => {
            let what = format!("the file is not a network configuration: {error}");
            // Another program's concern, unless it was to be Weir's.
            let is_ours = TYPES.iter().any(|it| text.contains(it));
            let advice = "correct it, or move it away: runtimes refuse it";
            return vec![match is_ours {
                true => Judgement::trouble(SUBJECT, file, what).advise(advice),
                false => Judgement::note(SUBJECT, file, what).advise(advice),
            }];
        }
    };
    let Ok(plugins) = plugins(text) else {
        let what = "the key plugins is not a list of plugins";
        return vec![
            Judgement::trouble(SUBJECT, file, what).advise("write \"plugins\": [{\"type\": …}]"),
        ];
    };
    if !plugins.iter().any(concerns_weir) {
        return Vec::new();
    }
    let mut judgements = Vec::new();
    let is_list = path.extension().is_some_and(|it| it == "conflist");
    if is_list != network.contains_key("plugins") {
        let right = path.with_extension(if is_list { "conf" } else { "conflist" });
        let what = match is_list {
            true => "a .conflist has a list of plugins, and this file has none",
            false => "only a .conflist has a list of plugins: runtimes refuse this file",
        };
        let advice = format!("mv -n {} {}", word(path), word(&right));
        judgements.push(Judgement::trouble(SUBJECT, file.to_string(), what).advise(advice));
    }
    if network.get("cniVersion").and_then(Value::as_str).is_none_or(str::is_empty) {
        let what = "cniVersion is missing, which means 0.1.0: no CHECK, no GC and no STATUS";
        let judgement = Judgement::note(SUBJECT, file.to_string(), what);
        judgements
            .push(judgement.advise("write \"cniVersion\": \"1.1.0\", or 1.0.0 for older plugins"));
    }
    let is_nameless =
        |it: &Map<String, Value>| it.get("type").and_then(Value::as_str).is_none_or(str::is_empty);
    if plugins.iter().any(is_nameless) {
        let what = "a plugin has no type, so that no runtime can run the network";
        let advice = format!("write \"type\" in {file}");
        judgements.push(Judgement::trouble(SUBJECT, file.to_string(), what).advise(advice));
    }
    let refused = plugins.iter().filter(|it| concerns_weir(it)).filter_map(|plugin| {
        let checked = skeleton::check_add(plugin, &Arguments::default());
        let error = checked.and_then(|it| it.require_ipam().map(drop)).err()?;
        let message = format!("the plugin refuses it: {}", crate::session::chain(&error));
        let judgement = Judgement::told(SUBJECT, Grade::Trouble, file.to_string(), message);
        Some(judgement.or_advise(format!("correct that in {file}")))
    });
    judgements.extend(refused);
    if judgements.is_empty() {
        let types: Vec<&str> = plugins.iter().filter_map(|it| it.get("type")?.as_str()).collect();
        let text = |key| network.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let what = format!(
            "network {} of {}, cniVersion {}",
            text("name"),
            types.join(", "),
            text("cniVersion")
        );
        judgements.push(Judgement::good(SUBJECT, file, what));
    }
    judgements
}

/// A path as a shell reads it.
fn word(path: &Path) -> String {
    shell_word(&path.display().to_string()).into_owned()
}

/// Runtimes take the first file in the order of names (containerd and CRI-O, which sort lists
/// and single plugins together), so one before Weir's is used instead.
fn order(networks: &NetworkFacts) -> Option<Judgement> {
    let mut files: Vec<&(PathBuf, String)> = networks.files.iter().collect();
    files.sort();
    let weirs = files.iter().position(|(_, text)| is_weirs(text))?;
    // Multus and the like call the networks after them; nobody waits for the loopback's.
    let is_apart = |plugin: &Map<String, Value>| {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        kind.starts_with("multus")
            || kind == "loopback"
            || ["delegates", "clusterNetwork"].iter().any(|key| plugin.contains_key(*key))
    };
    let calls_others = |text: &str| plugins(text).is_ok_and(|it| it.iter().any(is_apart));
    let (first, text) = files.first().filter(|_| weirs > 0)?;
    if calls_others(text) {
        return None;
    }
    let weirs = files[weirs].0.display();
    let what = format!("the file comes before {weirs}, and runtimes use the first one");
    let away = first.with_added_extension("off");
    let advice = format!("if containers should be Weir's: mv -n {} {}", word(first), word(&away));
    Some(Judgement::trouble(SUBJECT, first.display(), what).advise(advice))
}

/// By its name a network is found, and its containers' addresses are.
fn shared_names(networks: &NetworkFacts) -> Vec<Judgement> {
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, text) in &networks.files {
        let network = serde_json::from_str::<Value>(text).unwrap_or_default();
        if let Some(name) = network["name"].as_str() {
            files.entry(name.to_owned()).or_default().push(path.display().to_string());
        }
    }
    let shared = files.into_iter().filter(|(_, files)| files.len() > 1);
    let judgement = |(name, files): (String, Vec<String>)| {
        Judgement::trouble(SUBJECT, files.join(", "), format!("two networks are called {name}"))
            .advise("give each network a name of its own, or move one file away")
    };
    shared.map(judgement).collect()
}
