//! What is printed for terminals of 80 and of 200 columns, compared with the
//! files in `ctl/tests/golden`. With `WEIR_WRITE_GOLDEN=1` in the environment
//! the files are written again; read the difference before committing it.

use clap::CommandFactory;
use serde_json::json;
use weir_common::datastore::keys;
use weir_common::ipam::Block;

use super::*;

pub(crate) const WIDTHS: [usize; 2] = [80, 200];

pub(crate) fn style(width: usize) -> Style {
    Style { colour: false, width: Some(width) }
}

/// Compares with the golden file, or writes it.
pub(crate) fn check(name: &str, width: usize, text: &str) {
    let path = path_in_tree(&format!("ctl/tests/golden/{name}.{width}.txt"));
    if std::env::var_os("WEIR_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} differs", path.display());
}

/// Runs the lines one after the other over a recorded store.
async fn transcript(case: &str, lines: &[(&str, &str)], width: usize) -> String {
    transcript_on(&recorded_store(case), lines, width).await
}

async fn transcript_on(memory: &Memory, lines: &[(&str, &str)], width: usize) -> String {
    let mut text = String::new();
    for (line, input) in lines {
        let arguments: Vec<_> = line.split(' ').collect();
        let answer = call_in_style(memory, &arguments, input, style(width)).await;
        text.push_str(&format!("$ weirctl {line}\n{}[{}]\n\n", answer.output, answer.exit));
    }
    text
}

async fn check_transcript(name: &str, case: &str, lines: &[(&str, &str)]) {
    for width in WIDTHS {
        check(name, width, &transcript(case, lines, width).await);
    }
}

#[tokio::test]
async fn resources_are_shown() {
    let mut lines = Vec::new();
    for kind in ["ippool", "ipreservation", "node", "ipamconfig"] {
        for format in ["ps", "wide", "yaml", "json", "name"] {
            lines.push(format!("get {kind} -o {format}"));
        }
    }
    lines.push("get ippool -o custom-columns=NAME,CIDR,NAT".into());
    lines.push("get ippool blue --export -o yaml".into());
    let lines: Vec<_> = lines.iter().map(|line| (line.as_str(), "")).collect();
    check_transcript("get", "busy", &lines).await;
}

#[tokio::test]
async fn the_use_of_addresses_is_shown() {
    let lines = [
        "ipam show",
        "ipam show --show-blocks",
        "ipam show --show-borrowed",
        "ipam show --show-configuration",
        "ipam show --ip=10.10.0.1",
        "ipam show --ip=10.99.0.1",
        "ipam show --show-addresses --pool=edge",
        "ipam show --show-addresses --pool=10.8.0.0/24 -o json",
        "ipam show --show-addresses --pool=nothing",
        "ipam show --show-borrowed -o json",
        "ipam show --show-configuration -o json",
        "ipam show --ip=10.10.0.1 -o json",
        "ipam show --ip=10.99.0.1 -o json",
    ];
    check_transcript("ipam-show", "busy", &lines.map(|line| (line, ""))).await;
}

/// Damage of several kinds, of which one cannot be mended.
fn damaged_store() -> Memory {
    let memory = recorded_store("busy");
    let put = |key: String, value: serde_json::Value| {
        memory.seed([(key, value.to_string().into_bytes())]);
    };
    put(keys::handle("pods.nothing"), json!({"block": {"10.7.0.0/30": 1}, "deleted": false}));
    let block = "10.99.0.0/26".parse().unwrap();
    memory.seed([(keys::block(block), Block::new(block, "n9", 1).to_json())]);
    put(keys::affinity("n1", "10.99.1.0/26".parse().unwrap()), json!({"state": "confirmed"}));
    put(keys::handle("pods.broken"), json!([]));
    memory
}

#[tokio::test]
async fn damage_and_its_repair_are_reported() {
    let lines = [
        "ipam check",
        "ipam check -o json",
        "ipam check --repair --dry-run",
        "ipam check --repair",
        "ipam check --repair -o json",
        "ipam check --gone-host n1",
        "ipam reclaim --dry-run",
        "ipam reclaim --gone-host n9",
        "ipam reclaim",
        "ipam release --ip=10.8.0.65",
        "ipam release --ip=10.8.0.65",
        "ipam release --ip=10.8",
    ];
    for width in WIDTHS {
        let text = transcript_on(&damaged_store(), &lines.map(|line| (line, "")), width).await;
        check("ipam-check", width, &text);
    }
}

/// The recorded nodes with a router for two of them, and a filter.
fn store_with_bgp() -> Memory {
    let memory = recorded_store("busy");
    let put = |kind: &str, name: &str, spec: serde_json::Value| {
        let value = json!({"metadata": {"name": name}, "spec": spec}).to_string();
        memory.seed([(format!("{}{kind}/{name}", keys::RESOURCES), value.into_bytes())]);
    };
    let secret = json!({"secretKeyRef": {"name": "bgp", "key": "tor"}});
    let router = json!({"nodeSelector": "all()", "peerIP": "172.16.1.254", "asNumber": 65000,
        "password": secret, "filters": ["only-blue"], "ttlSecurity": 1});
    put("bgppeers", "tor", router);
    let cidr = |action: &str| {
        json!({"action": action, "cidr": "10.7.0.0/27",
        "matchOperator": "In"})
    };
    let rules = [cidr("Accept"), json!({"action": "Reject"})];
    put("bgpfilters", "only-blue", json!({"exportV4": rules}));
    memory
}

#[tokio::test]
async fn bgp_is_explained() {
    let lines = [
        "bgp explain",
        "bgp explain 172.16.1.254",
        "bgp explain 172.16.1.254 -o json",
        "bgp explain n2",
        "bgp explain nobody",
        "bgp explain 10.7.0.8/30",
        "bgp explain 10.7.0.9",
        "bgp explain 10.7.0.4 -o json",
        "bgp explain 10.7.0.4 --node n2",
        "bgp explain 10.7.0.0/27",
        "bgp explain 10.8.0.64/28 --node n2",
        "bgp explain 10.99.0.0/26",
        "bgp explain --node n9",
    ];
    for width in WIDTHS {
        let text = transcript_on(&store_with_bgp(), &lines.map(|line| (line, "")), width).await;
        check("bgp-explain", width, &text);
    }
}

#[tokio::test]
async fn the_next_address_is_explained() {
    let lines = [
        "ipam explain --node n4",
        "ipam explain --node n5 --pool edge",
        "ipam explain --node n5 --pool 10.9.9.0/24",
        "ipam explain --node n1 --ipv4 --ipv6",
        "ipam explain --node nobody",
    ];
    check_transcript("ipam-explain", "busy", &lines.map(|line| (line, ""))).await;
}

#[tokio::test]
async fn changes_are_reported() {
    let good = pool("a", "cidr: 10.50.0.0/16");
    let two = format!("{good}---\n{}", pool("b", "cidr: 10.50.1.0/24"));
    let lines = [
        ("init", ""),
        ("validate -f -", two.as_str()),
        ("create --dry-run -f -", good.as_str()),
        ("create -f -", two.as_str()),
        ("create --skip-exists -f -", good.as_str()),
        ("apply -f -", good.as_str()),
        ("replace -f -", good.as_str()),
        ("patch ippool a -p spec:", ""),
        ("label node n1 rack=7", ""),
        ("label node n1 rack=8", ""),
        ("label node n1 rack=8 --overwrite", ""),
        ("label node n1 rack --remove", ""),
        ("delete ippool a nothing", ""),
        ("delete ippool blue", ""),
        ("delete ippool blue --force", ""),
        ("delete node n2", ""),
        ("delete ippool nothing --skip-not-exists", ""),
    ];
    check_transcript("changes", "busy", &lines).await;
}

#[tokio::test]
async fn errors_name_the_value_and_what_to_do() {
    let cases = [
        pool("p", "cidr: 10.50.0.1/16"),
        pool("p", "cidr: 10.7.0.0/24"),
        pool("p", "cidr: 10.50.0.0/27"),
        pool("p", "cidr: 10.0.0.0/8, blockSize: 19"),
        pool("p", "cidr: 10.50.0.0/16, ipipMode: always"),
        pool("p", "cidr: 10.50.0.0/16, natOutgoin: true"),
        pool("p", "cidr: 10.50.0.0/16, nodeSelector: \"zone = 'a'\""),
        pool("Pool_1", "cidr: 10.50.0.0/16"),
        "kind: [IPPool\n".to_owned(),
        "kind: IPPol\n".to_owned(),
        String::new(),
    ];
    let mut lines: Vec<_> = cases.iter().map(|text| ("create -f -", text.as_str())).collect();
    lines.extend([
        ("get ippoool", ""),
        ("get ippool nothing", ""),
        ("get ippool -o table", ""),
        ("get ippool -o custom-columns=COLOUR", ""),
        ("delete ippool nothing", ""),
        ("patch ippool blue -p []", ""),
        ("patch ippool blue -t json -p [{\"op\":\"remove\",\"path\":\"/spec/x\"}]", ""),
        ("label node n1 rack", ""),
        ("ipam show --ip=10.7", ""),
    ]);
    check_transcript("errors", "busy", &lines).await;
}

#[test]
fn help_fits() {
    fn collect(command: &clap::Command, width: usize, text: &mut String) {
        let mut shown = command.clone().term_width(width);
        let name = shown.get_bin_name().unwrap_or("weirctl").to_owned();
        text.push_str(&format!("$ {name} --help\n{}\n", shown.render_long_help()));
        command
            .get_subcommands()
            .filter(|it| !it.is_hide_set())
            .for_each(|command| collect(command, width, text));
    }
    for width in WIDTHS {
        let mut command = Cli::command().term_width(width).disable_help_subcommand(true);
        command.build();
        let mut text = String::new();
        collect(&command, width, &mut text);
        check("help", width, &text);
    }
}
