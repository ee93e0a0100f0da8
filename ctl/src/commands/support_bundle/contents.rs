//! What is in a bundle.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;
use weir_bird::PASSWORD_FOLDER;
use weir_common::resources::Kind;
use weir_kernel::find_nft;

use super::SupportBundleArgs;
use super::secrets::{Form, Secrets};
use super::section::{Section, SectionSource};
use crate::location::Sources;
use crate::network::plugins;

/// This program, also after another release took its place.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// The most files of a directory that are read or listed.
const MOST_FILES: usize = 200;

/// The agent's environment (conf/systemd/weir-node.service).
const AGENT_ENVIRONMENT: &str = "/etc/default/weir-node";

/// That of the driver for Docker (conf/systemd/weir-docker.service).
const DRIVER_ENVIRONMENT: &str = "/etc/default/weir-docker";

/// What the agent and the machine write about themselves.
const FILES: [(&str, Form); 11] = [
    (AGENT_ENVIRONMENT, Form::Text),
    (DRIVER_ENVIRONMENT, Form::Text),
    ("/run/weir/state.json", Form::Json),
    ("/run/weir/ipam.json", Form::Json),
    ("/run/weir/bird/bird.conf", Form::Text),
    ("/var/lib/weir/nodename", Form::Text),
    ("/proc/version", Form::Text),
    ("/etc/os-release", Form::Text),
    ("/proc/uptime", Form::Text),
    ("/proc/loadavg", Form::Text),
    ("/proc/meminfo", Form::Text),
];

/// Directories of which names, sizes and modes are listed.
const DIRECTORIES: [&str; 7] = [
    "/opt/cni/bin",
    "/etc/weir",
    "/var/lib/weir",
    "/var/lib/weir/docker",
    "/run/weir",
    "/run/weir/bird",
    "/run/docker/plugins",
];

/// weirctl's commands that need no datastore, or say what is wrong with it.
const COMMANDS: [&[&str]; 4] =
    [&["doctor"], &["node", "checksystem"], &["bgp", "peers"], &["bgp", "routes"]];

/// Those that read the datastore. None changes anything.
const COMMANDS_OF_DATASTORE: [&[&str]; 7] = [
    &["node", "status"],
    &["ipam", "check"],
    &["ipam", "show", "--show-blocks"],
    &["ipam", "show", "--show-borrowed"],
    &["ipam", "show", "--show-configuration"],
    &["bgp", "explain"],
    &["get", "node", "-o", "wide"],
];

/// Other programs, and their arguments.
const PROGRAMS: [&[&str]; 11] = [
    &["ip", "-details", "-statistics", "address"],
    &["ip", "-4", "-details", "route", "show", "table", "all"],
    &["ip", "-6", "-details", "route", "show", "table", "all"],
    &["ip", "-4", "rule"],
    &["ip", "-6", "rule"],
    &["ip", "neighbour"],
    &["bridge", "fdb"],
    &["bird", "--version"],
    &["iptables-save", "--table=filter"],
    &["ip6tables-save", "--table=filter"],
    &[
        "journalctl",
        "--unit=weir-node",
        "--unit=weir-docker",
        "--lines=5000",
        "--reverse",
        "--no-pager",
        "--output=short-iso",
    ],
];

/// What nft is asked for.
const NFT: [&[&str]; 5] = [
    &["--version"],
    &["list", "table", "inet", "weir"],
    &["list", "table", "inet", "weir-ports"],
    &["list", "table", "inet", "weir-sources"],
    &["list", "table", "inet", "weir-tunnel"],
];

/// Kernel parameters on which containers' packets depend.
const PARAMETERS: [&str; 27] = [
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-call-iptables",
    "net.ipv4.conf.all.accept_local",
    "net.ipv4.conf.all.arp_announce",
    "net.ipv4.conf.all.arp_ignore",
    "net.ipv4.conf.all.forwarding",
    "net.ipv4.conf.all.proxy_arp",
    "net.ipv4.conf.all.route_localnet",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.default.forwarding",
    "net.ipv4.conf.default.rp_filter",
    "net.ipv4.ip_forward",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.neigh.default.gc_thresh1",
    "net.ipv4.neigh.default.gc_thresh2",
    "net.ipv4.neigh.default.gc_thresh3",
    "net.ipv6.conf.all.accept_ra",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.default.accept_ra",
    "net.ipv6.conf.default.disable_ipv6",
    "net.ipv6.neigh.default.gc_thresh3",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
];

/// The sections of a bundle.
pub struct BundleContents {
    pub secrets: Secrets,
    /// Tells whether the datastore answers.
    pub probe: Section,
    pub sections: Vec<Section>,
    /// What is read only if it does.
    pub of_datastore: Vec<Section>,
}

impl BundleContents {
    /// What is to be read of this node.
    pub fn of_node(arguments: &SupportBundleArgs, flags: &[String], sources: Sources) -> Self {
        let weirctl = |line: &[&str], form| {
            let own = line.iter().map(|it| (*it).to_owned());
            let all = flags.iter().cloned().chain(own).collect();
            let title = format!("weirctl {}", line.join(" "));
            Section { title, source: SectionSource::Program(OWN_PROGRAM.into(), all), form }
        };
        let networks = files_in(&sources.network_directory);
        let files = networks.iter().map(|it| (it.clone(), Form::Json));
        let files = files.chain([(sources.config_file, Form::Yaml)]);
        let files = files.chain(FILES.map(|(path, form)| (path.into(), form)));
        let files: Vec<(PathBuf, Form)> = files.collect();

        let address = &arguments.metrics_address;
        let mut sections: Vec<_> =
            COMMANDS.iter().map(|line| weirctl(&with_address(line, address), Form::Text)).collect();
        sections.extend(["/health", "/metrics"].map(|path| Section {
            title: format!("http://{address}{path}"),
            source: SectionSource::Agent(address.clone(), path),
            form: Form::Text,
        }));
        sections.extend(files.iter().map(|(path, form)| of_file(path, *form, false)));
        sections.push(known("kernel parameters".to_owned(), parameters()));
        let directories = DIRECTORIES.iter().map(Path::new);
        let directories = directories.chain([sources.network_directory.as_path()]);
        sections
            .extend(directories.map(|it| known(format!("files in {}", it.display()), listing(it))));
        sections.extend(PROGRAMS.iter().map(|line| program(line[0].into(), line)));
        let nft = find_nft().map_or_else(|| "nft".into(), PathBuf::into_os_string);
        sections.extend(NFT.map(|line| program(nft.clone(), &[&["nft"], line].concat())));
        let logs = networks.iter().flat_map(|it| logs_of(it));
        sections.extend(logs.map(|it| of_file(&it, Form::Text, true)));

        let mut of_datastore: Vec<_> = COMMANDS_OF_DATASTORE
            .iter()
            .map(|line| weirctl(&with_address(line, address), Form::Text))
            .collect();
        let kinds = Kind::ALL.map(|it| weirctl(&["get", it.alias(), "-o", "json"], Form::Json));
        of_datastore.extend(kinds);
        let probe = weirctl(&["version"], Form::Text);
        Self { secrets: known_secrets(&files), probe, sections, of_datastore }
    }
}

/// A command line that asks the agent where it is.
fn with_address<'a>(line: &[&'a str], address: &'a str) -> Vec<&'a str> {
    let asks = [["doctor", ""], ["bgp", "peers"], ["node", "status"]];
    let start = [line[0], line.get(1).copied().unwrap_or_default()];
    let flag = asks.contains(&start).then_some(["--metrics-address", address]);
    line.iter().copied().chain(flag.into_iter().flatten()).collect()
}

fn of_file(path: &Path, form: Form, is_log: bool) -> Section {
    let source = SectionSource::File { path: path.to_owned(), is_log };
    Section { title: path.display().to_string(), source, form }
}

fn program(program: OsString, line: &[&str]) -> Section {
    let arguments = line[1..].iter().map(|it| (*it).to_owned()).collect();
    Section {
        title: line.join(" "),
        source: SectionSource::Program(program, arguments),
        form: Form::Text,
    }
}

fn known(title: String, text: String) -> Section {
    Section { title, source: SectionSource::Text(text), form: Form::Text }
}

/// The entries of a directory in the order of their names; none where it cannot be read.
fn files_in(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|it| it.path()).take(MOST_FILES).collect();
    paths.sort();
    paths
}

fn listing(directory: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let line = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().display().to_string();
        match path.symlink_metadata() {
            Ok(it) => {
                format!("{:06o} {}:{} {:>10} {name}\n", it.mode(), it.uid(), it.gid(), it.len())
            }
            Err(error) => format!("{name}: {error}\n"),
        }
    };
    files_in(directory).into_iter().map(line).collect()
}

fn parameters() -> String {
    let line = |name: &&str| {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        let value = std::fs::read_to_string(path).unwrap_or_else(|error| error.to_string());
        format!("{name} = {}\n", value.trim())
    };
    PARAMETERS.iter().map(line).collect()
}

/// The files that Weir's plugins of a network write their log to.
fn logs_of(network: &Path) -> Vec<PathBuf> {
    let is_weirs = |it: &Value| it.as_str().is_some_and(|name| name.starts_with("weir"));
    let text = read_file(network).unwrap_or_default();
    let plugins = plugins(&text).unwrap_or_default().into_iter().map(Value::Object);
    let own = plugins.filter(|it| is_weirs(&it["type"]) || is_weirs(&it["ipam"]["type"]));
    own.filter_map(|it| it["log_file_path"].as_str().map(PathBuf::from)).collect()
}

/// A regular file of at most a mebibyte: whoever opens a fifo waits for its other end.
fn read_file(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    let is_read = metadata.is_file() && metadata.len() <= 1 << 20;
    is_read.then(|| std::fs::read_to_string(path).ok())?
}

/// The secrets in these files, in the files of BGP's passwords, and in the environment.
fn known_secrets(files: &[(PathBuf, Form)]) -> Secrets {
    let mut secrets = Secrets::default();
    for (path, form) in files {
        secrets.add_those_of(&read_file(path).unwrap_or_default(), *form);
    }
    for path in files_in(Path::new(PASSWORD_FOLDER)).iter().flat_map(|it| files_in(it)) {
        secrets.add(&read_file(&path).unwrap_or_default());
    }
    for (name, value) in std::env::vars_os() {
        let (name, value) = (name.display().to_string(), value.display().to_string());
        secrets.add_those_of(&format!("{name}={value}"), Form::Text);
    }
    secrets
}
