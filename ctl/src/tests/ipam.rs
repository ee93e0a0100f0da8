//! The commands that look into the use of addresses and mend it.

use serde_json::json;
use weir_common::audit::{Attached, ThisNode};
use weir_common::datastore::keys;
use weir_common::ipam::assign::{Request, Want};
use weir_common::ipam::explain::newcomer;
use weir_common::ipam::{Assignee, Block, docker, engine};
use weir_common::network::AttachmentIdentity;

use super::*;

fn put(memory: &Memory, key: String, value: &Value) {
    memory.seed([(key, value.to_string().into_bytes())]);
}

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

fn cidr(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_recorded_store_has_no_problems() {
    for (case, numbers, unjudged, nodes) in [
        ("small", "1 pools, 2 blocks, 2 affinities, 3 handles and 3 addresses", "3", 2),
        ("seed", "4 pools, 12 blocks, 12 affinities, 23 handles and 23 addresses", "23", 4),
        ("busy", "5 pools, 20 blocks, 20 affinities, 40 handles and 49 addresses", "49", 6),
    ] {
        let answer = call(&recorded_store(case), "ipam check").await;
        let nodes: Vec<String> = (1..=nodes).map(|node| format!("n{node}")).collect();
        let expected = format!(
            "Looked at {numbers}; no containers on this machine to compare with\n\
             Not judged: {unjudged} addresses of other nodes ({}); run weirctl ipam check on each of \
             them\n\
             Check complete; found 0 problems. Not judged: {unjudged} of {unjudged} addresses.\n",
            nodes.join(", ")
        );
        assert_eq!(answer, Answer { exit: 0, output: expected });
    }
}

#[tokio::test]
async fn what_is_damaged_is_reported_and_repaired() {
    let memory = recorded_store("busy");
    put(&memory, keys::handle("pods.lost"), &json!({"block": {"10.7.0.0/30": 1}}));
    put(&memory, keys::affinity("n1", cidr("10.9.0.32/29")), &json!({"state": "pending"}));
    let answer = call(&memory, "ipam check").await;
    assert_eq!(
        answer.output,
        "Looked at 5 pools, 20 blocks, 21 affinities, 41 handles and 49 addresses; no containers \
         on this machine to compare with\n\
         Not judged: 49 addresses of other nodes (n1, n2, n3, n4, n5, n6); run weirctl ipam check \
         on each of them\n\
         [handle-without-address] handle pods.lost has no address\n\
         \x20 repair: delete the handle\n\
         [affinity-unsettled] host n1 has left the claim of block 10.9.0.32/29 halfway\n\
         \x20 repair: delete the affinity: the block is not the host's\n\
         Check complete; found 2 problems. Not judged: 49 of 49 addresses.\n\
         2 of them can be repaired: weirctl ipam check --repair\n"
    );
    assert_eq!(answer.exit, 1);
    let answer = call(&memory, "ipam check --repair").await;
    assert_eq!(
        answer.output.splitn(3, '\n').nth(2).unwrap(),
        "[affinity-unsettled] host n1 has left the claim of block 10.9.0.32/29 halfway\n\
         \x20 repaired: delete the affinity: the block is not the host's\n\
         [handle-without-address] handle pods.lost has no address\n\
         \x20 repaired: delete the handle\n\
         Check complete; found 0 problems. Not judged: 49 of 49 addresses.\n"
    );
    assert_eq!(answer.exit, 0);
    assert_eq!(memory.dump(), recorded_store("busy").dump());
}

#[tokio::test]
async fn a_report_in_json_is_read_back_to_release_what_leaked() {
    let memory = Memory::new();
    create(&memory, &pool("blue", "cidr: 10.1.0.0/24")).await;
    let request = Request {
        assignee: Assignee::interface("n1", "net", "gone", "eth0"),
        facts: Default::default(),
        wants: vec![Want::Exactly("10.1.0.7".parse().unwrap())],
        gateways: vec![],
        within: None,
    };
    let made = "2026-11-23T00:00:00Z".parse().unwrap();
    engine::assign(&memory, &request, &[], made).await.unwrap();
    let identity = AttachmentIdentity::new("net", "alive", "eth0").unwrap();
    let node = ThisNode {
        host: "n1".to_owned(),
        attachments: vec![Attached { identity, addresses: vec!["10.1.0.9".parse().unwrap()] }],
        networks: ["net".to_owned()].into(),
        ..ThisNode::default()
    };
    let arguments = ["ipam", "check", "-o", "json"];
    let answer = call_on_node(&memory, &arguments, "", Some(node.clone())).await;
    let (report, advice) = answer.output.rsplit_once("}\n").unwrap();
    assert_eq!(advice, "2 of them can be repaired: weirctl ipam check --repair\n");
    let report = format!("{report}}}\n");
    let value: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(value["findings"][0]["kind"], "address-without-attachment");
    assert_eq!(value["findings"][0]["addresses"][0]["address"], "10.1.0.7");
    assert!(value["findings"][0]["addresses"][0]["sequence"].is_string());
    let release = ["ipam", "release", "--from-report=report.json"];
    let answer = call_on_node(&memory, &release, &report, Some(node.clone())).await;
    assert_eq!(answer.output, "Successfully released IP address 10.1.0.7\n");
    let answer = call_on_node(&memory, &release, &report, Some(node.clone())).await;
    assert_eq!(answer.output, "IP address 10.1.0.7 is released already\n");
    let arguments = ["ipam", "check", "--repair", "-o", "json"];
    let answer = call_on_node(&memory, &arguments, "", Some(node)).await;
    let value: Value = serde_json::from_str(&answer.output).unwrap();
    assert_eq!((answer.exit, &value["repairs"][0]["done"]), (0, &json!("repaired")));
    let answer = call(&memory, "ipam show --ip=10.1.0.9").await;
    assert!(answer.output.contains("Handle ID: net.alive\n"), "{}", answer.output);
}

#[tokio::test]
async fn addresses_are_released_one_by_one() {
    let memory = recorded_store("busy");
    let answer = call(&memory, "ipam release --ip=10.7.0.8").await;
    let expected = "Successfully released IP address 10.7.0.8\n".to_owned();
    assert_eq!(answer, Answer { exit: 0, output: expected });
    let answer = call(&memory, "ipam release --ip=10.7.0.8").await;
    let expected = "IP address 10.7.0.8 is not assigned\n\
         list those that are with: weirctl ipam show --show-addresses\n"
        .to_owned();
    assert_eq!(answer, Answer { exit: 1, output: expected });
    let answer = call(&memory, "ipam release --ip=ten").await;
    assert!(answer.exit == 1 && answer.output.contains("'ten'"), "{}", answer.output);
    assert_eq!(call(&memory, "ipam check").await.exit, 0);
}

#[tokio::test]
async fn the_next_address_is_explained() {
    let answer = call(&recorded_store("busy"), "ipam explain --node n4").await;
    assert_eq!(answer.output, read_in_tree("ctl/src/tests/golden/explain-busy-n4.txt"));
    let answer = call(&recorded_store("busy"), "ipam explain --node n5 --ipv4 --ipv6").await;
    assert_eq!(answer.output, read_in_tree("ctl/src/tests/golden/explain-busy-n5.txt"));
    let answer = call(&Memory::new(), "ipam explain").await;
    assert_eq!(answer.exit, 1);
    assert!(answer.output.contains("weirctl create -f pool.yaml"), "{}", answer.output);
}

/// What Docker asks for is said in the words of `docker network create`, and refused as that is.
#[tokio::test]
async fn docker_s_next_address_is_explained() {
    let memory = Memory::new();
    create(&memory, &pool("blue", "cidr: 10.9.0.0/16")).await;
    create(&memory, &pool("six", "cidr: fd00:9::/64")).await;
    for (flags, parts) in [
        ("", &["Asked for by --docker: IPv4 from any pool\n", "Next: 10.9."][..]),
        ("--ipv6", &["Asked for by --docker: IPv6 from any pool\n", "Next: fd00:9:"]),
        ("--ipv4 --ipv6", &["IPv4 from any pool; IPv6 from any pool\n", "Next: 10", "Next: fd"]),
        (
            "--subnet 10.9.0.0/16 --ip-range 10.9.7.8/30",
            &[
                "by --docker --subnet 10.9.0.0/16 --ip-range 10.9.7.8/30: IPv4 from 10.9.0.0/16\n",
                "Passed over: 10.9.7.0 is outside of the network's --ip-range 10.9.7.8/30\n",
                "Next: 10.9.7.8 from block",
            ],
        ),
        ("--pool blue", &["IPv4 from 10.9.0.0/16\n"]),
    ] {
        let answer = call(&memory, format!("ipam explain --node n1 --docker {flags}").trim()).await;
        assert_eq!(answer.exit, 0, "{}", answer.output);
        for part in parts {
            assert!(answer.output.contains(part), "{part} in:\n{}", answer.output);
        }
    }
    for (flags, part) in [
        ("--subnet 10.9.4.0/24", "no pool has exactly 10.9.4.0/24"),
        ("--subnet 10.9.0.0/16 --ip-range 10.8.0.0/24", "does not lie in pool 10.9.0.0/16"),
        ("--pool red", "pool red does not exist"),
    ] {
        let answer = call(&memory, format!("ipam explain --node n1 --docker {flags}").trim()).await;
        assert!(answer.exit == 1 && answer.output.contains(part), "{flags}: {}", answer.output);
    }
}

#[tokio::test]
async fn docker_s_addresses_are_shown_with_endpoint_and_network() {
    let memory = Memory::new();
    create(&memory, &pool("blue", "cidr: 10.9.0.0/16")).await;
    let (endpoint, network) = ("0123456789abcdef".repeat(4), "fedcba9876543210".repeat(4));
    let facts = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let mac = "02:42:0a:09:00:02";
    for (assignee, facts, address) in [
        (docker::endpoint("n1", &endpoint), facts("docker_network", &network), "10.9.0.1"),
        (docker::waiting("n1", mac.parse().unwrap(), 1), facts("mac", mac), "10.9.0.2"),
        (docker::of_network("n1", ip("10.9.0.3")), Default::default(), "10.9.0.3"),
        (Assignee::interface("n1", "docker", "c", "eth0"), Default::default(), "10.9.0.4"),
    ] {
        let wants = vec![Want::Exactly(ip(address))];
        let request = Request { assignee, facts, ..newcomer("n1", wants) };
        let now = "2026-11-23T00:00:00Z".parse().unwrap();
        engine::assign(&memory, &request, &[], now).await.unwrap();
    }
    let all = call(&memory, "ipam show --show-addresses").await.output;
    let named = "endpoint 0123456789ab in network fedcba987654";
    for part in [named, &format!("MAC {mac}, without an endpoint"), "kept by a network"] {
        assert!(all.contains(&format!("| docker | {part} ")), "{part} in:\n{all}");
    }
    assert_eq!(all.matches("| docker |").count(), 3, "a CNI network may be called so:\n{all}");
    let one = call(&memory, "ipam show --ip=10.9.0.1").await.output;
    assert!(one.contains(&format!("Docker: {named}\n")), "{one}");
}

/// The answer to `ipam explain` with these flags about a network with this
/// `ipam` section and these other keys.
async fn explain_network(flags: &str, keys: Value) -> Answer {
    let mut plugin = json!({"type": "weir", "nodename": "n5", "ipam": {"type": "weir-ipam"}});
    for (key, value) in keys.as_object().unwrap() {
        match (key.as_str(), value) {
            ("ipam", Value::Object(ipam)) => {
                plugin["ipam"].as_object_mut().unwrap().extend(ipam.clone());
            }
            _ => plugin[key] = value.clone(),
        }
    }
    let list = json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]}).to_string();
    let line = format!("ipam explain --conflist f {flags}");
    let arguments: Vec<_> = line.split_whitespace().collect();
    call_with_input(&recorded_store("busy"), &arguments, &list).await
}

#[tokio::test]
async fn a_network_is_explained_as_it_asks() {
    let cases = [
        ("", json!({}), "f: IPv4 from any pool", "Next: 10.8.0.69 "),
        ("", json!({"ipam": {"ipv4_pools": ["hand"]}}), "f: IPv4 from hand", "Next: 10.9.0."),
        (
            "",
            json!({"ipam": {"subnet": "10.10.0.0/28", "assign_ipv6": "true"}}),
            "f: IPv4 from 10.10.0.0/28; IPv6 from any pool",
            "Next: 10.10.0.",
        ),
        (
            "",
            json!({"ipam": {"assign_ipv4": "false", "assign_ipv6": "true"}}),
            "f: IPv6 from any pool",
            "Next: fd00:7::fc01:3ef3:4b44:f905 ",
        ),
        (
            "",
            json!({"args": {"cni": {"ips": ["10.9.0.60"]}}}),
            "f: the address 10.9.0.60",
            "Next: 10.9.0.60 ",
        ),
        ("--node n4", json!({}), "f: IPv4 from any pool", "Next: 10.10.0.10 "),
        (
            "--ipv6",
            json!({"args": {"cni": {"ips": ["10.9.0.60"]}}, "ipam": {"ipv6_pools": ["six"]}}),
            "f, --ipv6: IPv6 from six",
            "Next: fd00:7::",
        ),
        (
            "--pool edge --pool six --ipv4 --ipv6",
            json!({"ipam": {"ipv4_pools": ["hand"], "subnet": "10.9.0.0/26"}}),
            "f, --ipv4, --ipv6, --pool: IPv4 from edge; IPv6 from six",
            "Next: 10.8.0.69 ",
        ),
        (
            "--pool 10.8.0.0/24",
            json!({"ipam": {"ipv6_pools": ["six"], "assign_ipv6": true}}),
            "f, --pool: IPv4 from 10.8.0.0/24; IPv6 from six",
            "Next: 10.8.0.69 ",
        ),
    ];
    for (flags, keys, asked, next) in cases {
        let answer = explain_network(flags, keys).await;
        assert_eq!(answer.exit, 0, "{answer:?}");
        let first = answer.output.lines().next();
        assert_eq!(first, Some(&*format!("Asked for by {asked}")), "{}", answer.output);
        assert!(answer.output.contains(next), "{next}: {}", answer.output);
    }
}

#[tokio::test]
async fn a_network_that_gets_nothing_is_told_what_its_add_is_told() {
    let cases = [
        (
            "",
            json!({"ipam": {"assign_ipv4": "maybe"}}),
            "ipam.assign_ipv4 \"maybe\" is invalid: write \"true\" or \"false\" (asked for by f)",
        ),
        ("", json!({"mtu": 3}), "mtu \"3\" is invalid"),
        (
            "",
            json!({"ipam": {"ipv4_pools": ["six"]}}),
            "six was asked for but is not of family IPv4",
        ),
        ("", json!({"ipam": {"subnet": "10.8.0.0/25"}}), "pool 10.8.0.0/25 does not exist"),
        ("--pool six", json!({}), "six was asked for but is not of family IPv4"),
        ("--pool fd00:7::/64", json!({}), "six was asked for but is not of family IPv4"),
        ("--pool nothing", json!({}), "pool nothing does not exist"),
        ("--pool hand --ipv6", json!({}), "hand was asked for but is not of family IPv6"),
    ];
    for (flags, keys, told) in cases {
        let answer = explain_network(flags, keys).await;
        assert_eq!(answer.exit, 1, "{answer:?}");
        let last = answer.output.lines().last().unwrap();
        assert!(last.starts_with("the next container gets no address: "), "{last}");
        assert!(last.contains(told), "{told}: {last}");
    }
}

#[tokio::test]
async fn settings_that_do_not_go_together_are_refused() {
    let memory = Memory::new();
    let answer = call(&memory, "ipam configure --max-blocks-per-host=3").await;
    assert_eq!(answer.exit, 1);
    assert!(answer.output.contains("MaxBlocksPerHost"), "{}", answer.output);
    let answer =
        call(&memory, "ipam configure --strictaffinity=true --max-blocks-per-host=3").await;
    assert_eq!(
        answer.output,
        "Successfully set StrictAffinity to: true\nSuccessfully set MaxBlocksPerHost to: 3\n"
    );
    let stored = memory.dump().remove(keys::IPAM_CONFIG).unwrap();
    let stored: Value = serde_json::from_slice(&stored).unwrap();
    assert_eq!(stored["maxBlocksPerHost"], 3);
}

#[tokio::test]
async fn empty_blocks_are_taken_back() {
    let memory = recorded_store("busy");
    let planned = call(&memory, "ipam reclaim --dry-run").await.output;
    assert_eq!(
        planned,
        "block 10.9.0.16/29 of host n2 is empty: take it back\n\
         Dry run: nothing was changed\n"
    );
    assert_eq!(memory.dump(), recorded_store("busy").dump());
    let answer = call(&memory, "ipam reclaim").await;
    assert_eq!(answer.output, "block 10.9.0.16/29 of host n2 is empty: take it back\n");
    assert_eq!(call(&memory, "ipam reclaim").await.output, "Nothing to reclaim\n");
    assert_eq!(call(&memory, "ipam check").await.exit, 0);
}

#[tokio::test]
async fn pools_are_drawn() {
    let answer = call(&recorded_store("busy"), "ipam show --map").await;
    assert_eq!(answer.output, read_in_tree("common/tests/golden/map-busy-80.txt"));
}

#[tokio::test]
async fn a_map_fits_the_terminal_and_takes_its_colours() {
    let draw = async |colour| {
        let style = Style { colour, width: Some(40) };
        call_in_style(&recorded_store("busy"), &["ipam", "show", "--map"], "", style).await.output
    };
    let (plain, coloured) = (draw(false).await, draw(true).await);
    assert!(plain.lines().filter(|line| line.contains("..")).all(|line| line.len() <= 40));
    assert_ne!(plain, coloured);
    let mut stripped = coloured.replace("\u{1b}[0m", "");
    for colour in 31..=36 {
        stripped = stripped.replace(&format!("\u{1b}[{colour}m"), "");
    }
    assert_eq!(stripped, plain, "nothing depends on the colours");
}

#[tokio::test]
async fn the_use_of_addresses_is_told_to_scripts() {
    let answer = call(&recorded_store("busy"), "ipam show --show-blocks -o json").await;
    let value: Value = serde_json::from_str(&answer.output).unwrap();
    let pools = value["pools"].as_array().unwrap();
    let blue = pools.iter().find(|pool| pool["name"] == "blue").unwrap();
    assert_eq!((&blue["total"], &blue["inUse"]), (&json!("32"), &json!("25")));
    assert_eq!((&blue["cidr"], &blue["free"]), (&json!("10.7.0.0/27"), &json!("7")));
    assert!(blue["blocks"].as_array().unwrap().iter().all(|block| block["total"] == "4"));
    let answer = call(&recorded_store("busy"), "ipam show --map -o json").await;
    assert_eq!(answer.exit, 1);
}

#[tokio::test]
async fn blocks_in_no_pool_are_told_to_scripts() {
    let memory = Memory::new();
    let cidr = "10.9.0.0/26".parse().unwrap();
    memory.seed([(keys::block(cidr), Block::new(cidr, "n1", 1).to_json())]);
    let answer = call(&memory, "ipam show --show-blocks -o json").await;
    let value: Value = serde_json::from_str(&answer.output).unwrap();
    let block = json!({"cidr": "10.9.0.0/26", "total": "64", "inUse": "0", "free": "64"});
    assert_eq!(value, json!({"pools": [], "blocksInNoPool": [block]}));
}

/// Each address in use is listed once, with its pool.
#[tokio::test]
async fn all_addresses_in_use_are_listed() {
    let memory = recorded_store("busy");
    let answer = call(&memory, "ipam show --show-addresses -o json").await;
    let value: Value = serde_json::from_str(&answer.output).unwrap();
    let addresses = value["addresses"].as_array().unwrap();
    let of_blue = addresses.iter().filter(|address| address["pool"] == "blue").count();
    assert_eq!(of_blue, 25);
    for address in addresses {
        let line = format!("ipam show --ip={} -o json", address["address"].as_str().unwrap());
        let one: Value = serde_json::from_str(&call(&memory, &line).await.output).unwrap();
        assert_eq!((&one["inUse"], &one["handle"]), (&json!(true), &address["handle"]));
        assert_eq!(one["attributes"], address["attributes"]);
    }
}

/// What newer versions of Calico write survives every command that writes the same values.
#[tokio::test]
async fn newer_fields_survive_every_command() {
    let memory = Memory::new();
    let block = json!({
        "cidr": "10.0.0.0/30", "affinity": "host:n1", "affinity_claim_time": "2026-11-23T03:00:00Z",
        "allocations": [0, 1, null, null], "unallocated": [2, 3],
        "attributes": [
            {"handle_id": "net.c", "secondary": {"node": "n1", "interface": "eth0"},
                "alternateOwnerAttrs": {"pod": "next"}},
            {"handle_id": null, "secondary": {"node": "n1"}, "releasedAt": "2026-11-23T03:36:01Z"},
        ],
        "sequenceNumber": 5, "sequenceNumberForAllocation": {"0": 3, "1": 4}, "deleted": false,
    });
    let node = json!({
        "kind": "Node", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "n1"}, "spec": {},
    });
    put(&memory, keys::block(cidr("10.0.0.0/30")), &block);
    put(&memory, keys::node("n1"), &node);
    put(&memory, keys::affinity("n1", cidr("10.0.0.0/30")), &json!({"state": "confirmed"}));
    put(&memory, keys::handle("net.c"), &json!({"block": {"10.0.0.0/30": 1}, "deleted": false}));
    let config = json!({"auto_allocate_blocks": true, "ipCooldownSeconds": 60});
    put(&memory, keys::IPAM_CONFIG.to_owned(), &config);
    let pool = json!({
        "kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": "four"},
        "spec": {"cidr": "10.0.0.0/28", "blockSize": 30},
    });
    put(&memory, keys::pool("four"), &pool);
    let shown = call(&memory, "ipam show --ip=10.0.0.1").await.output;
    assert!(shown.starts_with("IP 10.0.0.1 is cooling down: it was released at 2026-"), "{shown}");
    let listed = call(&memory, "ipam show --show-addresses").await.output;
    assert_eq!(listed.matches("cooling down").count(), 1, "{listed}");
    let checked = call(&memory, "ipam check").await.output;
    assert!(checked.contains("Cooling down: 1 addresses"), "{checked}");
    assert_eq!(call(&memory, "ipam release --ip=10.0.0.1").await.exit, 1);
    let document = "kind: IPAMConfiguration\napiVersion: projectcalico.org/v3\nmetadata:\n  name: \
                    default\nspec:\n  strictAffinity: true\n";
    for (command, input) in [
        ("node adopt n1", ""),
        ("node rename n1 n2", ""),
        ("ipam configure --strictaffinity=true", ""),
        ("apply -f -", document),
        ("ipam check --repair --gone-host n7", ""),
        ("ipam reclaim", ""),
        ("delete node n2", ""),
        ("ipam check --repair --gone-host n2", ""),
    ] {
        let arguments: Vec<&str> = command.split(' ').collect();
        let answer = call_with_input(&memory, &arguments, input).await;
        let read = |key: String| -> Value { serde_json::from_slice(&memory.dump()[&key]).unwrap() };
        let after = read(keys::block(cidr("10.0.0.0/30")));
        assert_eq!(after["affinity_claim_time"], block["affinity_claim_time"], "{answer:?}");
        let attributes = after["attributes"].as_array().unwrap();
        let cold = attributes.last().unwrap();
        assert_eq!(cold["releasedAt"], block["attributes"][1]["releasedAt"], "{command}");
        if attributes.len() == 2 {
            let alternate = &attributes[0]["alternateOwnerAttrs"];
            assert_eq!(*alternate, block["attributes"][0]["alternateOwnerAttrs"], "{command}");
        }
        assert_eq!(read(keys::IPAM_CONFIG.to_owned())["ipCooldownSeconds"], 60, "{command}");
    }
}
