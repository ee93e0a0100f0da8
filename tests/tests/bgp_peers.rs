//! The agent's BGP against other speakers: what they are told and what is taken from them, by
//! every field of the resources, and sessions that must or must not come up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};
use weir_tests::{
    Fleet, Host, Neighbour, Place, Speaker, SpeakerOptions, SpeakerProgram, Subnet, until_reporting,
};

/// The address of the node n1, whose agent is tested.
const NODE: &str = "172.31.1.11";
const NODE_AS: u32 = 64512;

fn node() -> IpAddr {
    address(NODE)
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn range(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

/// The cluster of n1 alone, in both families, with its agent.
fn one_node() -> Fleet {
    let mut fleet = Fleet::dual(&[Subnet::First]);
    fleet.agent_arguments =
        vec!["--log-level", "info", "--ip6-autodetection-method", "first-found"];
    fleet.start_agents();
    fleet
}

/// Creates resources of BGP, or changes them.
fn apply(fleet: &Fleet, resources: &[Value]) {
    let of = |resource: &Value| {
        let mut whole = json!({"apiVersion": "projectcalico.org/v3"});
        weir_tests::merge(&mut whole, resource.clone());
        whole.to_string()
    };
    let text: Vec<String> = resources.iter().map(of).collect();
    fleet.members[0].node().write("/run/bgp.yaml", &text.join("\n---\n"));
    let answer = fleet.weirctl(0, &["apply", "-f", "/run/bgp.yaml"]);
    assert!(answer.succeeded, "{answer:?}");
}

fn resource(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// A BGPPeer of n1.
fn peering(name: &str, spec: Value) -> Value {
    let mut whole = json!({"node": "n1"});
    weir_tests::merge(&mut whole, spec);
    resource("BGPPeer", name, &whole)
}

/// A speaker at the first of these addresses, which speaks to n1.
fn options(host: &Host, as_number: u32, password: Option<&str>) -> SpeakerOptions {
    SpeakerOptions {
        as_number,
        router_id: host.address,
        neighbours: vec![Neighbour {
            address: node().into(),
            as_number: NODE_AS,
            password: password.map(str::to_owned),
        }],
        announced: Vec::new(),
        communities: Vec::new(),
    }
}

/// The AS path and communities of each prefix.
type Told = BTreeMap<IpNet, (Vec<u32>, BTreeSet<String>)>;

fn told(
    prefix: &str,
    as_path: &[u32],
    communities: &[&str],
) -> (IpNet, (Vec<u32>, BTreeSet<String>)) {
    let communities = communities.iter().map(|&it| it.to_owned()).collect();
    (range(prefix), (as_path.to_vec(), communities))
}

/// Waits until n1 has told a speaker exactly this.
fn until_told(fleet: &Fleet, speaker: &Speaker, wanted: &Told) {
    let seen = || -> Told {
        let routes = speaker.received(node()).into_iter();
        routes.map(|(range, route)| (range, (route.as_path, route.communities))).collect()
    };
    until_reporting(
        || seen() == *wanted,
        || {
            let (seen, log) = (seen(), fleet.members[0].agent().log());
            let extra: Vec<_> = seen.iter().filter(|(it, of)| wanted.get(it) != Some(of)).collect();
            let lacks: Vec<_> = wanted.iter().filter(|(it, of)| seen.get(it) != Some(of)).collect();
            let peers = fleet.weirctl(0, &["bgp", "peers"]);
            format!("told {extra:?} instead of {lacks:?}: {speaker}\n{peers:?}\n{log}")
        },
    );
}

/// Waits until a speaker's session with n1 is up.
fn until_up(fleet: &Fleet, what: &str, speaker: &Speaker, neighbour: IpAddr) {
    until_reporting(
        || speaker.is_established(neighbour),
        || {
            let (peers, log) =
                (fleet.weirctl(0, &["bgp", "peers"]), fleet.members[0].agent().log());
            format!("{what}: the session is up: {speaker}\n{}\n{log}", peers.stdout)
        },
    );
}

/// What the agent answers at `/bgp`.
fn status(fleet: &Fleet) -> Value {
    let answer = fleet.members[0].agent().answer("/bgp").unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).unwrap_or_default()
}

#[test]
fn pools_are_announced_with_their_communities_or_not_at_all() {
    let fleet = one_node();
    let judge = fleet.underlay.node(Subnet::First, 21);
    let judge_options = options(&judge, 65000, None);
    let judge = Speaker::start(SpeakerProgram::GoBgp, &judge.node, &judge_options);
    for (name, cidr, is_hidden) in [
        ("told", "10.1.0.0/26", false),
        ("plain", "10.3.0.0/26", false),
        ("kept", "10.2.0.0/26", true),
    ] {
        fleet.apply_pool(
            name,
            json!({"cidr": cidr, "ipipMode": "Never", "disableBGPExport": is_hidden}),
        );
    }
    let communities =
        json!([{"name": "wan", "value": "64512:120"}, {"name": "big", "value": "64512:1:2"}]);
    let advertised = json!([
        {"cidr": "10.1.0.0/16", "communities": ["wan", "big", "64512:7"]},
        {"cidr": "10.2.0.0/16", "communities": ["wan"]},
    ]);
    let configuration = json!({"communities": communities, "prefixAdvertisements": advertised});
    apply(
        &fleet,
        &[
            resource("BGPConfiguration", "default", &configuration),
            peering("judge", json!({"peerIP": "172.31.1.31", "asNumber": 65000})),
        ],
    );
    let _pods = ["told", "plain", "kept"].map(|pool| fleet.pod(0, pool));
    let [tagged, plain] = [
        told("10.1.0.0/26", &[NODE_AS], &["64512:120", "64512:1:2", "64512:7"]),
        told("10.3.0.0/26", &[NODE_AS], &[]),
    ];
    until_told(&fleet, &judge, &[tagged.clone(), plain].into());
    // What is hidden is there to be told.
    assert_eq!(fleet.members[0].announced().len(), 2, "{}", judge.version());
    // A filter that does not exist lets nothing pass, until it does.
    let named = |filter: &str| {
        peering("judge", json!({"peerIP": "172.31.1.31", "asNumber": 65000, "filters": [filter]}))
    };
    apply(&fleet, &[named("missing")]);
    until_told(&fleet, &judge, &Told::new());
    let problem = "names the filter missing, which does not exist";
    fleet.until(problem, || status(&fleet)["problems"].to_string().contains(problem));
    let rule = json!({"cidr": "10.3.0.0/16", "matchOperator": "In", "action": "Reject"});
    apply(&fleet, &[resource("BGPFilter", "missing", &json!({"exportV4": [rule]}))]);
    until_told(&fleet, &judge, &[tagged].into());
}

/// A rule of a BGPFilter, and prefixes that others tell n1. Both have a community of the case's
/// own, so that the rules of other cases do not see them.
struct FilterCase {
    number: u32,
    rule: Value,
    /// The prefixes that the rule means.
    hits: &'static [&'static str],
    /// Those that it does not.
    misses: &'static [&'static str],
    /// Whether the outcome is the same for what is taken from peers.
    is_of_import: bool,
}

/// The AS path of case 10's hit; those of all others are of one AS.
const LONG_PATH: [u32; 3] = [65001, 65009, 65010];

fn filter_cases() -> Vec<FilterCase> {
    let mut cases = Vec::new();
    let mut case = |rule: Value, hits: &'static [_], misses: &'static [_], is_of_import| {
        let number = u32::try_from(cases.len()).expect("few cases") + 1;
        cases.push(FilterCase { number, rule, hits, misses, is_of_import });
    };
    let prefix = |cidr: &str, operator: &str| json!({"cidr": cidr, "matchOperator": operator});
    let both = true;
    case(prefix("10.11.0.0/16", "In"), &["10.11.0.0/16", "10.11.1.0/24"], &["10.12.1.0/24"], both);
    case(prefix("10.21.0.0/16", "NotIn"), &["10.22.1.0/24"], &["10.21.1.0/24"], both);
    case(prefix("10.31.0.0/16", "Equal"), &["10.31.0.0/16"], &["10.31.1.0/24"], both);
    case(prefix("10.41.0.0/16", "NotEqual"), &["10.41.1.0/24"], &["10.41.0.0/16"], both);
    let mut lengths = prefix("10.51.0.0/16", "In");
    lengths["prefixLength"] = json!({"min": 24, "max": 26});
    let around = &["10.51.0.0/16", "10.51.9.0/27"];
    case(lengths, &["10.51.1.0/24", "10.51.2.0/26"], around, both);
    case(json!({"source": "RemotePeers"}), &["10.61.0.0/24"], &[], both);
    // By which interface a route goes is not known yet when it is taken.
    case(json!({"interface": "eth*"}), &["10.71.0.0/24"], &[], false);
    case(json!({"interface": "veth*"}), &[], &["10.72.0.0/24"], false);
    case(json!({"peerType": "eBGP"}), &["10.81.0.0/24"], &[], both);
    case(json!({"asPathPrefix": [65001, 65009]}), &["10.91.0.0/24"], &["10.92.0.0/24"], both);
    case(json!({"peerType": "iBGP"}), &[], &["10.82.0.0/24"], both);
    // Calico counts priorities down from here; a local preference is 100 if nobody sets it.
    case(json!({"priority": 2_147_483_547_u32}), &["10.101.0.0/24"], &[], both);
    case(json!({"priority": 512}), &[], &["10.102.0.0/24"], both);
    cases
}

/// The rule of a case as it stands in a filter, which leaves this mark.
fn marking(case: &FilterCase, mark: &str) -> Value {
    let mut rule = case.rule.clone();
    rule["communities"] = json!({"values": [format!("65001:{}", case.number)]});
    rule["action"] = json!("Accept");
    rule["operations"] = json!([{"addCommunity": {"value": format!("{mark}:{}", case.number)}}]);
    rule
}

/// A BIRD that tells n1 the prefixes of the cases, and those of the operations' case.
fn source(host: &Host, cases: &[FilterCase]) -> Speaker {
    let of_case = |case: &FilterCase| {
        let number = case.number;
        let route = |(index, prefix): (usize, &&str)| {
            let longer = if number == 10 && index == 0 {
                "bgp_path.prepend(65010); bgp_path.prepend(65009); "
            } else {
                ""
            };
            format!(
                "route {prefix} blackhole {{ bgp_community.add((65001,{number})); {longer}}};\n"
            )
        };
        case.hits.iter().chain(case.misses).enumerate().map(route).collect::<String>()
    };
    let routes: String = cases.iter().map(of_case).collect();
    let configuration = format!(
        "router id {0};\nlog stderr all;\nprotocol device {{}}\nprotocol direct {{ ipv4; }}\n\
         protocol static {{ ipv4;\n{routes}\
         route 10.111.0.0/24 blackhole {{ bgp_large_community.add((65001, 7, 9)); }};\n\
         route 10.112.0.0/24 blackhole {{ bgp_community.add((65001,112)); }};\n\
         route 10.113.0.0/24 blackhole;\nroute 10.114.0.0/24 blackhole; }}\n\
         protocol bgp {{ local as 65001; neighbor {NODE} as {NODE_AS}; connect delay time 1; \
         ipv4 {{ import none; export where source = RTS_STATIC; }}; }}\n",
        host.address
    );
    Speaker::bird(&host.node, &configuration)
}

#[test]
fn filters_mean_what_each_of_their_fields_says() {
    let fleet = one_node();
    let host = |number| fleet.underlay.node(Subnet::First, number);
    let (giver, gobgp, frr) = (host(20), host(21), host(22));
    let cases = filter_cases();
    let giver = source(&giver, &cases);
    let [judge, import_judge] =
        [(SpeakerProgram::GoBgp, &gobgp, 65000), (SpeakerProgram::Frr, &frr, 65002)].map(
            |(program, host, number)| {
                Speaker::start(program, &host.node, &options(host, number, None))
            },
        );
    fleet.apply_pool("own", json!({"cidr": "10.1.0.0/26", "ipipMode": "Never"}));
    let _pod = fleet.pod(0, "own");
    let of_export = cases.iter().map(|case| marking(case, "65100"));
    let operations = json!([
        {"addCommunity": {"value": "65100:100"}},
        {"addCommunity": {"value": "65100:100:1"}},
        {"prependASPath": {"prefix": [65101, 65102]}},
    ]);
    let large = json!({"communities": {"values": ["65001:7:9"]}, "action": "Accept", "operations": operations});
    // Set when it was taken, seen when it is told, and worth more than what is not set.
    let tagged = |community: &str| json!([{"addCommunity": {"value": community}}]);
    let set = json!({"priority": 512, "cidr": "10.113.0.0/24", "matchOperator": "Equal", "action": "Accept", "operations": tagged("65100:113")});
    let own = json!({"cidr": "10.1.0.0/26", "matchOperator": "Equal", "action": "Accept"});
    let not_own = json!({"cidr": "10.1.0.0/26", "matchOperator": "Equal", "source": "RemotePeers", "action": "Reject"});
    let reject = json!({"action": "Reject"});
    let export: Vec<Value> = of_export.chain([large, set, not_own, own, reject]).collect();
    let of_import = cases.iter().filter(|case| case.is_of_import).map(|it| marking(it, "65200"));
    let refused = json!({"cidr": "10.112.0.0/24", "matchOperator": "Equal", "action": "Reject"});
    let prioritised = json!({"cidr": "10.113.0.0/24", "matchOperator": "Equal", "action": "Accept", "operations": [{"setPriority": {"value": 512}}]});
    let prepended = json!({"cidr": "10.114.0.0/24", "matchOperator": "Equal", "action": "Accept", "operations": [{"prependASPath": {"prefix": [65201]}}]});
    let import: Vec<Value> = of_import.chain([refused, prioritised, prepended]).collect();
    let others = json!([{"source": "RemotePeers", "action": "Accept"}, {"action": "Reject"}]);
    apply(
        &fleet,
        &[
            resource("BGPFilter", "told", &json!({"exportV4": export})),
            resource("BGPFilter", "taken", &json!({"importV4": import})),
            resource("BGPFilter", "others", &json!({"exportV4": others})),
            peering(
                "source",
                json!({"peerIP": "172.31.1.30", "asNumber": 65001, "filters": ["taken"]}),
            ),
            peering(
                "judge",
                json!({"peerIP": "172.31.1.31", "asNumber": 65000, "filters": ["told"]}),
            ),
            peering(
                "others",
                json!({"peerIP": "172.31.1.32", "asNumber": 65002, "filters": ["others"]}),
            ),
        ],
    );
    // What each case leaves, after the filter of what is taken alone and after both.
    let (mut taken, mut both) = (Told::new(), Told::new());
    for case in &cases {
        let FilterCase { number, hits, misses, .. } = case;
        for (index, prefix) in hits.iter().chain(*misses).enumerate() {
            let is_hit = index < hits.len();
            let path: &[u32] = if *number == 10 && is_hit { &LONG_PATH } else { &LONG_PATH[..1] };
            let path = [&[NODE_AS], path].concat();
            let marks =
                [format!("65001:{number}"), format!("65200:{number}"), format!("65100:{number}")];
            let marks = marks.each_ref().map(String::as_str);
            let after_import = if is_hit && case.is_of_import { &marks[..2] } else { &marks[..1] };
            taken.extend([told(prefix, &path, after_import)]);
            if is_hit {
                both.extend([told(prefix, &path, &[after_import, &marks[2..]].concat())]);
            }
        }
    }
    taken.extend([
        told("10.111.0.0/24", &[NODE_AS, 65001], &["65001:7:9"]),
        told("10.113.0.0/24", &[NODE_AS, 65001], &[]),
        told("10.114.0.0/24", &[NODE_AS, 65201, 65001], &[]),
    ]);
    let all = ["65001:7:9", "65100:100", "65100:100:1"];
    both.extend([
        told("10.1.0.0/26", &[NODE_AS], &[]),
        told("10.111.0.0/24", &[NODE_AS, 65101, 65102, 65001], &all),
        told("10.113.0.0/24", &[NODE_AS, 65001], &["65100:113"]),
    ]);
    until_told(&fleet, &import_judge, &taken);
    until_told(&fleet, &judge, &both);
    drop(giver);
}

/// The file of a password on n1.
fn secret(name: &str) -> String {
    format!("/etc/weir/secrets/bgp/{name}")
}

/// Writes a password to its file as the documentation says.
fn keep_secret(fleet: &Fleet, name: &str, password: &str) {
    let (node, path) = (fleet.members[0].node(), secret(name));
    node.run(&["mkdir", "-p", "-m", "0700", "/etc/weir/secrets/bgp"]);
    let script = format!("umask 077; cat >{path}.new && mv {path}.new {path}");
    node.run_with(&["sh", "-c", &script], password);
}

#[test]
fn passwords_are_of_both_sides_and_of_nobody_else() {
    let fleet = one_node();
    let programs = [
        (SpeakerProgram::Bird, "bird", 20),
        (SpeakerProgram::Frr, "frr", 21),
        (SpeakerProgram::GoBgp, "gobgp", 22),
    ];
    let hosts = programs.map(|(_, _, number)| fleet.underlay.node(Subnet::First, number));
    let start = |index: usize, password: &str| {
        let options = options(&hosts[index], 65000, Some(password));
        Speaker::start(programs[index].0, &hosts[index].node, &options)
    };
    let word = |index: usize| format!("s3cret-of-{}", programs[index].1);
    let mut speakers: Vec<Speaker> = (0..3).map(|index| start(index, &word(index))).collect();
    let peerings = programs.map(|(_, name, number)| {
        let password = json!({"secretKeyRef": {"name": "bgp", "key": name}});
        let address = format!("172.31.1.{}", 10 + number);
        peering(name, json!({"peerIP": address, "asNumber": 65000, "password": password}))
    });
    for (index, (_, name, _)) in programs.iter().enumerate() {
        keep_secret(&fleet, name, &format!("{}\n", word(index)));
    }
    apply(&fleet, &peerings);
    for (speaker, (_, name, _)) in speakers.iter().zip(programs) {
        until_up(&fleet, name, speaker, node());
    }
    // Another one on this side alone: the session is down, and the reason is told.
    let peers = || fleet.weirctl(0, &["bgp", "peers"]).stdout;
    let told = |words: &[&str]| {
        let what = words.join(", ");
        let is_told = || {
            let (said, status) = (peers(), status(&fleet).to_string());
            words.iter().all(|&it| said.contains(it) || status.contains(it))
        };
        until_reporting(is_told, || format!("{what}: {}\n{}", peers(), status(&fleet)));
    };
    for (index, (_, name, number)) in programs.iter().enumerate() {
        keep_secret(&fleet, name, "s3cret-rotated");
        let address = format!("172.31.1.{}", 10 + number);
        let line =
            |text: &str| text.lines().any(|it| it.contains(&address) && it.contains("password"));
        until_reporting(
            || !speakers[index].is_established(node()) && line(&peers()),
            || format!("{name} is down for its password:\n{}\n{}", peers(), speakers[index]),
        );
    }
    // Rotated there, too.
    for index in 0..3 {
        drop(speakers.remove(0));
        speakers.push(start(index, "s3cret-rotated"));
    }
    for (speaker, (_, name, _)) in speakers.iter().zip(programs) {
        until_up(&fleet, name, speaker, node());
    }
    // The only file that has them is BIRD's, which is root's.
    let folders = "/run /var/lib/weir /var/lib/cni /etc/cni";
    let find =
        format!("grep -rlZ s3cret {folders} --exclude-dir=netns | xargs -0r stat -c '%n %a'");
    let found = fleet.members[0].node().run(&["sh", "-c", &find]);
    assert_eq!(found, "/run/weir/bird/bird.conf 600\n");
    // Files that are not to be used.
    let quoted = "s3cret\";attack";
    keep_secret(&fleet, "bird", quoted);
    fleet.members[0].node().run(&["chmod", "0644", &secret("frr")]);
    fleet.members[0].node().run(&["rm", &secret("gobgp")]);
    told(&[
        "BGPPeer bird",
        "bgp/bird",
        &secret("frr"),
        "BGPPeer frr",
        "BGPPeer gobgp",
        "bgp/gobgp",
    ]);
    for (speaker, (_, name, _)) in speakers.iter().zip(programs) {
        let is_down = || !speaker.is_established(node());
        until_reporting(is_down, || format!("{name} is left out:\n{}\n{speaker}", peers()));
    }
    // Nobody is told.
    let agent = fleet.members[0].agent();
    let answers =
        ["/bgp", "/health", "/metrics"].map(|path| agent.answer(path).unwrap_or_default());
    for (what, text) in answers.iter().map(|it| ("an answer", it.clone())).chain([
        ("weirctl bgp peers", peers()),
        ("weirctl bgp explain", fleet.weirctl(0, &["bgp", "explain"]).stdout),
        ("the log", agent.log()),
        ("the datastore", fleet.weirctl(0, &["get", "bgppeer", "-o", "yaml"]).stdout),
    ]) {
        assert!(!text.contains("s3cret"), "{what}: {text}");
    }
}

/// A node of Calico's, with BIRD as Calico sets it up: the side whose peer's address is the greater
/// text waits.
fn calico_node(host: &Host, block: &str) -> Speaker {
    let (own, peer) = (host.address, NODE);
    let waits = peer > own.to_string().as_str();
    let passive = if waits { "passive on;" } else { "" };
    let configuration = format!(
        "router id {own};\nlog stderr all;\n\
         protocol static {{ ipv4; route {block} blackhole; }}\n\
         protocol kernel {{ ipv4 {{ import all; export where source = RTS_BGP; }}; learn; persist; \
         scan time 2; graceful restart; }}\n\
         protocol device {{ scan time 2; }}\n\
         protocol direct {{ ipv4; interface -\"cali*\", \"*\"; }}\n\
         template bgp bgp_template {{ local as {NODE_AS}; multihop; error wait time 5, 30; \
         connect delay time 2; connect retry time 5; graceful restart; source address {own}; \
         ipv4 {{ import all; export where source ~ [RTS_STATIC]; add paths on; gateway recursive; }}; }}\n\
         protocol bgp Mesh_172_31_1_11 from bgp_template {{ neighbor {peer} as {NODE_AS}; {passive} }}\n"
    );
    Speaker::bird(&host.node, &configuration)
}

#[test]
fn a_mesh_with_nodes_of_calico_comes_up_whichever_side_waits() {
    let fleet = one_node();
    // As a number .100 is greater than .11, as a text it is not; .21 is greater as both.
    let hosts = [90, 11].map(|number| fleet.underlay.node(Subnet::First, number));
    let blocks = ["10.244.7.0/26", "10.244.8.0/26"];
    let speakers: Vec<Speaker> =
        hosts.iter().zip(blocks).map(|(host, block)| calico_node(host, block)).collect();
    fleet.apply_pool("direct", json!({"cidr": "10.244.0.0/26", "ipipMode": "Never"}));
    let _pod = fleet.pod(0, "direct");
    let nodes = hosts.iter().enumerate().map(|(index, host)| {
        let bgp = json!({"ipv4Address": format!("{}/24", host.address)});
        resource("Node", &format!("calico{index}"), &json!({"bgp": bgp}))
    });
    let mesh = json!({"nodeToNodeMeshEnabled": true});
    let mesh = resource("BGPConfiguration", "default", &mesh);
    apply(&fleet, &nodes.chain([mesh]).collect::<Vec<_>>());
    for (speaker, host) in speakers.iter().zip(&hosts) {
        until_up(&fleet, "the mesh", speaker, node());
        until_told(&fleet, speaker, &[told("10.244.0.0/26", &[], &[])].into());
        let way = || host.node.run(&["ip", "route", "show", "10.244.0.0/26"]);
        let leads_here = || way().contains(&format!("via {NODE} "));
        until_reporting(leads_here, || format!("it is in the kernel: {}{speaker}", way()));
    }
    let learned = || fleet.members[0].node().run(&["ip", "route", "show", "proto", "bird"]);
    let report = || format!("n1 has both blocks:\n{}\n{}", learned(), speakers[0]);
    until_reporting(|| blocks.iter().all(|it| learned().contains(it)), report);
    let configuration = fleet.members[0].node().read("/run/weir/bird/bird.conf");
    let waits = |peer: &str| {
        let (_, session) =
            configuration.split_once(&format!("protocol bgp Mesh_{peer} ")).expect(peer);
        session.split("\n}").next().unwrap_or_default().contains("passive on")
    };
    assert!(!waits("172_31_1_100") && waits("172_31_1_21"), "{}", speakers[0].version());
}

/// A BIRD on `host` with one session with n1, as these words of its configuration say.
fn bird_peer(host: &Host, own_as: u32, session: &str, routes: &str) -> Speaker {
    let configuration = format!(
        "router id {};\nlog stderr all;\nprotocol device {{}}\n\
         protocol direct {{ ipv4; ipv6; }}\nprotocol static {{ ipv4; {routes} }}\n\
         protocol bgp {{ local as {own_as}; connect delay time 1; connect retry time 1; error wait time 1,2; {session} }}\n",
        host.address
    );
    Speaker::bird(&host.node, &configuration)
}

/// What n1 has from others.
fn learned(fleet: &Fleet) -> String {
    let node = fleet.members[0].node();
    ["-4", "-6"].map(|family| node.run(&["ip", family, "route", "show", "proto", "bird"])).concat()
}

/// n1's part and the peer's of a session that would not come up, or not say what it should,
/// without the option that it is about.
#[test]
fn each_option_of_a_session_is_kept_on_the_wire() {
    let fleet = one_node();
    let hosts: Vec<Host> =
        (20..30).map(|number| fleet.underlay.node(Subnet::First, number)).collect();
    let at = |index: usize| hosts[index].address;
    let channel = "ipv4 { import all; export where source = RTS_STATIC; };";
    let plain = format!("neighbor {NODE} port 1179 as {NODE_AS}; multihop; {channel}");
    let reached = "192.0.2.9";
    hosts[6].node.run(&["ip", "address", "add", &format!("{reached}/32"), "dev", "lo"]);
    let v6 = hosts[7].address_v6.expect("an underlay of both families");
    let speaker = |index: usize, own_as: u32, session: String, routes: &str| {
        bird_peer(&hosts[index], own_as, &session, routes)
    };
    let speakers = [
        // Packets that have been forwarded are not listened to.
        speaker(
            0,
            65000,
            format!("neighbor {NODE} port 1179 as {NODE_AS}; ttl security on; {channel}"),
            "",
        ),
        // Another AS number than the node's is expected.
        speaker(1, 65001, plain.replace(&format!("as {NODE_AS}"), "as 64600"), ""),
        // What has come round by n1's own AS is told.
        speaker(
            2,
            65002,
            plain.clone(),
            "route 198.51.2.0/24 blackhole { bgp_path.prepend(64512); };",
        ),
        speaker(
            3,
            65003,
            plain.clone(),
            "route 198.51.3.0/24 blackhole { bgp_path.prepend(64512); };",
        ),
        // It waits, at another port.
        speaker(4, 65004, format!("local port 1790; passive on; {plain}"), ""),
        // It connects to another port, and does not wait at the one where it would be sought.
        speaker(5, 65005, format!("local port 1791; {plain}"), ""),
        speaker(6, 65006, format!("local {reached}; {plain}"), "route 198.51.6.0/24 blackhole;"),
        speaker(
            7,
            65007,
            format!(
                "local {v6}; neighbor fd31:1::b port 1179 as {NODE_AS}; multihop; ipv6 {{ import all; export where net = fd77::/64; }};"
            ),
            "",
        ),
        speaker(8, 65008, plain.clone(), ""),
        speaker(9, NODE_AS, plain.clone(), ""),
    ];
    hosts[7].node.run(&["ip", "-6", "address", "add", "fd77::1/64", "dev", "lo", "nodad"]);
    let peer = |index: usize, as_number: u32, more: Value| {
        let mut spec = json!({"peerIP": at(index), "asNumber": as_number});
        weir_tests::merge(&mut spec, more);
        peering(&format!("peer-{index}"), spec)
    };
    let others = json!({"filters": ["others"]});
    let with = |more: Value| {
        let mut spec = others.clone();
        weir_tests::merge(&mut spec, more);
        spec
    };
    let rule = json!({"source": "RemotePeers", "cidr": "198.51.6.0/24", "matchOperator": "Equal", "action": "Accept", "operations": [{"setPriority": {"value": 512}}]});
    apply(
        &fleet,
        &[
            resource("BGPConfiguration", "default", &json!({"listenPort": 1179})),
            resource("BGPFilter", "others", &json!({"exportV4": [rule]})),
            peer(0, 65000, json!({"ttlSecurity": 1})),
            peer(1, 65001, with(json!({"localASNumber": 64600}))),
            peer(2, 65002, json!({"numAllowedLocalASNumbers": 1})),
            peer(3, 65003, json!({})),
            peer(4, 65004, json!({"peerIP": format!("{}:1790", at(4))})),
            peer(5, 65005, json!({})),
            peer(6, 65006, json!({"peerIP": reached, "reachableBy": at(6)})),
            peer(7, 65007, json!({"peerIP": v6})),
            peer(8, 65008, with(json!({"nextHopMode": "Keep"}))),
            peer(9, NODE_AS, with(json!({"nextHopMode": "Self"}))),
        ],
    );
    for (index, speaker) in speakers.iter().enumerate() {
        let neighbour = if index == 7 { address("fd31:1::b") } else { node() };
        until_up(&fleet, &format!("peer-{index}"), speaker, neighbour);
    }
    let told = |index: usize, next_hop: IpAddr, as_path: &[u32]| {
        let route = || speakers[index].received(node()).remove(&range("198.51.6.0/24"));
        let is_told = || route().is_some_and(|it| it.next_hop == next_hop && it.as_path == as_path);
        until_reporting(is_told, || {
            format!(
                "peer-{index} is told {next_hop}, {as_path:?}: {:?}\n{}",
                route(),
                speakers[index]
            )
        });
    };
    told(1, node(), &[64600, 65006]);
    told(8, address(reached), &[NODE_AS, 65006]);
    told(9, node(), &[65006]);
    let route = hosts[9].node.run(&[
        "birdc",
        "-s",
        "/run/router.ctl",
        "show",
        "route",
        "all",
        "198.51.6.0/24",
    ]);
    assert!(route.contains("BGP.local_pref: 2147483135"), "{route}");
    let has = |prefix: &str| learned(&fleet).contains(prefix);
    let report = || format!("n1 has what it should:\n{}", learned(&fleet));
    until_reporting(|| has("198.51.2.0/24") && has("198.51.6.0/24") && has("fd77::/64"), report);
    assert!(!has("198.51.3.0/24"), "{}", report());
}

#[test]
fn a_program_that_is_gone_is_told_with_its_package_and_its_routes_can_be_taken_down() {
    let mut fleet = one_node();
    let host = fleet.underlay.node(Subnet::First, 20);
    let session = format!(
        "neighbor {NODE} as {NODE_AS}; multihop; graceful restart on; ipv4 {{ import all; export where source = RTS_STATIC; }};"
    );
    let router = bird_peer(&host, 65000, &session, "route 198.51.100.0/24 blackhole;");
    fleet.apply_pool("direct", json!({"cidr": "10.1.0.0/26", "ipipMode": "Never"}));
    let _pod = fleet.pod(0, "direct");
    apply(&fleet, &[peering("router", json!({"peerIP": "172.31.1.30", "asNumber": 65000}))]);
    until_told(&fleet, &router, &[told("10.1.0.0/26", &[NODE_AS], &[])].into());
    let node = fleet.members[0].node().clone();
    let is_there = |fleet: &Fleet| learned(fleet).contains("198.51.100.0/24");
    fleet.until("n1 has the router's route", || is_there(&fleet));
    // As if the package had been removed, on this node alone.
    let script = "set -e; folder=$(dirname $(readlink -f $(command -v bird)))
        mkdir /run/all /run/rest; mount --bind $folder /run/all
        ln -s /run/all/* /run/rest; rm /run/rest/bird
        mount --bind /run/rest $folder; echo $folder";
    let folder = node.run(&["sh", "-c", script]).trim().to_owned();
    let bird = node.read("/run/weir/bird/bird.pid").trim().to_owned();
    node.run(&["kill", "-9", &bird]);
    let version = router.version();
    let problem = |fleet: &Fleet| status(fleet)["problems"].to_string();
    fleet.until("the program is missed", || problem(&fleet).contains("package bird2"));
    assert!(is_there(&fleet), "{version}: {}", learned(&fleet));
    assert!(fleet.members[0].agent().is_well(), "{version}: {}", problem(&fleet));
    let peers = fleet.weirctl(0, &["bgp", "peers"]);
    assert!(
        peers.stdout.contains("package bird2") || peers.stderr.contains("package bird2"),
        "{peers:?}"
    );
    // Off: without the program, what its routes are is told; with it, nothing is left.
    fleet.stop_agent(0);
    fleet.agent_arguments.extend(["--bgp", "off"]);
    node.run(&["umount", &folder]);
    fleet.start_agents();
    fleet.until("no route of BIRD's is left", || learned(&fleet).is_empty());
    fleet.until("no file of BIRD's is left", || {
        !node.succeeds(&["test", "-e", "/run/weir/bird/bird.conf"])
    });
    fleet.until("nothing is announced", || fleet.members[0].announced().is_empty());
    fleet.until("the agent is well", || fleet.members[0].agent().is_well());
}
