//! BGP's resources, and the settings of the cluster's BGP.

use super::golden::{WIDTHS, check, style};
use super::*;

/// One of each kind, with names to tell them apart.
pub(super) const RESOURCES: &str = r#"
- apiVersion: projectcalico.org/v3
  kind: BGPConfiguration
  metadata: {name: default, annotations: {weir/bfd: 300ms*3}}
  spec:
    logSeverityScreen: Info
    nodeToNodeMeshEnabled: false
    asNumber: "1.10"
    communities: [{name: wan, value: "64512:120"}]
    prefixAdvertisements: [{cidr: 10.7.0.0/16, communities: [wan]}]
- apiVersion: projectcalico.org/v3
  kind: BGPConfiguration
  metadata: {name: node.n1}
  spec: {listenPort: 1790}
- apiVersion: projectcalico.org/v3
  kind: BGPPeer
  metadata: {name: tor}
  spec: {nodeSelector: "rack == 'r1'", peerIP: "10.0.1.1:1790", asNumber: 65000, filters: [pools]}
- apiVersion: projectcalico.org/v3
  kind: BGPPeer
  metadata: {name: reflectors}
  spec: {peerSelector: has(reflector)}
- apiVersion: projectcalico.org/v3
  kind: BGPPeer
  metadata: {name: of-n1}
  spec: {node: n1, peerIP: "fd00::1", asNumber: 64513}
- apiVersion: projectcalico.org/v3
  kind: BGPFilter
  metadata: {name: pools}
  spec:
    exportV4:
    - {action: Accept, cidr: 10.7.0.0/16, matchOperator: In, prefixLength: {max: 32}}
    - {action: Reject}
    importV6: [{action: Reject}]
- apiVersion: projectcalico.org/v3
  kind: CalicoNodeStatus
  metadata: {name: n1}
  spec: {node: n1, classes: [Agent, BGP], updatePeriodSeconds: 10}
"#;

const DEFAULT: &str = "/calico/resources/v3/projectcalico.org/bgpconfigurations/default";

fn stored(memory: &Memory, key: &str) -> Value {
    serde_json::from_slice(&memory.dump()[key]).unwrap()
}

#[tokio::test]
async fn each_kind_has_calicos_tables_and_documents() {
    for width in WIDTHS {
        let memory = Memory::new();
        let mut text = String::new();
        let mut lines = vec!["create -f -".to_owned()];
        for kind in ["bgpconfig", "bgppeer", "bgpfilter", "caliconodestatus"] {
            lines.extend(["ps", "wide", "yaml", "name"].map(|it| format!("get {kind} -o {it}")));
        }
        lines.push("get bps tor -o json".into());
        lines.push("get bf pools nothing".into());
        lines.push("delete nodestatus n1".into());
        for line in &lines {
            let arguments: Vec<_> = line.split(' ').collect();
            let answer = call_in_style(&memory, &arguments, RESOURCES, style(width)).await;
            text.push_str(&format!("$ weirctl {line}\n{}[{}]\n\n", answer.output, answer.exit));
        }
        check("get-bgp", width, &text);
    }
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_with_what_to_do() {
    let memory = Memory::new();
    let document = |kind: &str, name: &str, spec: &str| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: {kind}, metadata: {{name: {name}}}, \
             spec: {{{spec}}}}}"
        )
    };
    for (text, problem) in [
        (document("BGPConfiguration", "n1", ""), "write default or node.n1"),
        (
            document("BGPConfiguration", "node.n1", "asNumber: 5"),
            "BGPConfiguration.Spec.ASNumber (is of the whole cluster, not of one node); set it in",
        ),
        (
            document("BGPPeer", "a", "peerIP: 10.0.0.1, peerSelector: all()"),
            "BGPPeer.Spec.PeerIP = '10.0.0.1' (must be empty when peerSelector is specified)",
        ),
        (document("BGPPeer", "a", "peerIp: 10.0.0.1"), "did you mean peerIP?"),
        (
            document("BGPFilter", "a", "exportV4: [{action: Accept, asPathPrefix: [a]}]"),
            "BGPFilter.Spec.ExportV4[0].ASPathPrefix = 'a'",
        ),
        (
            document("CalicoNodeStatus", "a", "node: n1, updatePeriodSeconds: 1"),
            "CalicoNodeStatus.Spec.Classes (must have one of Agent, BGP, Routes)",
        ),
    ] {
        for command in ["create", "apply", "validate"] {
            let arguments = [command, "-f", "-"];
            let answer = match command {
                "validate" => {
                    let environment = Prepared::new(&text, None);
                    let command = parse(&arguments).unwrap().command;
                    let result = commands::run_offline(&command, &environment).await.unwrap();
                    result.unwrap_err().message
                }
                _ => call_with_input(&memory, &arguments, &text).await.output,
            };
            assert!(answer.contains(problem), "{command} {text}: {answer}");
        }
    }
    assert!(memory.dump().is_empty());
}

#[tokio::test]
async fn a_peer_is_patched_labelled_and_replaced() {
    let memory = Memory::new();
    assert_eq!(create(&memory, RESOURCES).await.exit, 0);
    for line in [
        r#"patch bgppeer tor -p {"spec":{"asNumber":"65001","keepaliveTime":"10s"}}"#,
        "label bgpp tor rack=r1",
        "label caliconodestatus n1 rack=r1",
    ] {
        let answer = call(&memory, line).await;
        assert_eq!(answer.exit, 0, "{line}: {}", answer.output);
    }
    let peer = stored(&memory, "/calico/resources/v3/projectcalico.org/bgppeers/tor");
    assert_eq!(peer["spec"]["asNumber"], 65001);
    assert_eq!(peer["metadata"]["labels"]["rack"], "r1");
    let status = "/calico/resources/v3/projectcalico.org/caliconodestatuses/n1";
    let mut reported = stored(&memory, status);
    reported["status"] = serde_json::json!({"lastUpdated": "2026-11-28T02:30:00Z", "later": 1});
    memory.seed([(status.to_owned(), reported.to_string().into_bytes())]);
    assert_eq!(call_with_input(&memory, &["apply", "-f", "-"], RESOURCES).await.exit, 0);
    let status = stored(&memory, status)["status"].clone();
    assert_eq!(
        (&status["lastUpdated"], &status["later"]),
        (&"2026-11-28T02:30:00Z".into(), &1.into())
    );
    let answer = call(&memory, r#"patch bgpconfig node.n1 -p {"spec":{"asNumber":1}}"#).await;
    assert!(answer.output.contains("not of one node"), "{}", answer.output);
}

#[tokio::test]
async fn a_v1_peer_is_the_peering_of_its_node_and_address() {
    let v1 = |metadata: &str, number: u32| {
        format!(
            "{{apiVersion: v1, kind: bgpPeer, metadata: {{{metadata}}}, \
             spec: {{asNumber: {number}}}}}"
        )
    };
    let global = v1("scope: global, peerIP: 10.0.0.9", 64513);
    let of_n1 = v1("scope: node, node: n1, peerIP: 'fd00::1'", 64514);
    let memory = Memory::new();
    assert_eq!(create(&memory, RESOURCES).await.exit, 0);
    let converted = call_with_input(&memory, &["convert", "-f", "-"], &global).await;
    assert_eq!(
        converted.output,
        "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata:\n  name: \
         peer-global-10-0-0-9\nspec:\n  asNumber: 64513\n  peerIP: 10.0.0.9\n"
    );
    assert_eq!(call_with_input(&memory, &["apply", "-f", "-"], &global).await.exit, 0);
    let list = call(&memory, "get bgppeer -o name").await.output;
    assert!(list.contains("bgppeer/peer-global-10-0-0-9\n"), "{list}");

    let patch = r#"patch bgppeer of-n1 -p {"spec":{"filters":["pools"]}}"#;
    assert_eq!(call(&memory, patch).await.exit, 0);
    let answer = call_with_input(&memory, &["apply", "-f", "-"], &of_n1).await;
    assert_eq!(answer.exit, 0, "{}", answer.output);
    let peer = stored(&memory, "/calico/resources/v3/projectcalico.org/bgppeers/of-n1");
    assert_eq!(
        (&peer["spec"]["asNumber"], &peer["spec"]["filters"][0]),
        (&64514.into(), &"pools".into())
    );
    assert_eq!(call(&memory, "get bgppeer -o name").await.output, list, "no peer is added");

    for text in [&global, &of_n1] {
        let answer = call_with_input(&memory, &["delete", "-f", "-"], text).await;
        assert_eq!(answer.output, "Successfully deleted 1 'BGPPeer' resource(s)\n");
    }
    let left = call(&memory, "get bgppeer -o name").await.output;
    assert_eq!(left, "bgppeer/reflectors\nbgppeer/tor\n");
}

#[tokio::test]
async fn settings_are_kept_in_the_clusters_configuration() {
    let memory = Memory::new();
    for (line, output) in [
        ("config get nodeToNodeMesh", "on\n"),
        ("config get asNumber", "64512\n"),
        ("config unset asNumber", ""),
        ("config set asNumber 1.10 --dry-run", "Dry run: nothing was changed\n"),
    ] {
        assert_eq!(call(&memory, line).await, Answer { exit: 0, output: output.into() }, "{line}");
    }
    assert!(memory.dump().is_empty(), "nothing was to be changed");
    for (line, output) in [
        ("config set nodeToNodeMesh off", ""),
        ("config set asnumber 1.10", ""),
        ("config get nodetonodemesh", "off\n"),
        ("config get asNumber", "65546\n"),
        ("config set nodeToNodeMesh on", ""),
        ("config get nodeToNodeMesh", "on\n"),
        ("config unset nodeToNodeMesh", ""),
    ] {
        assert_eq!(call(&memory, line).await, Answer { exit: 0, output: output.into() }, "{line}");
    }
    let configuration = stored(&memory, DEFAULT);
    assert_eq!(configuration["spec"], serde_json::json!({"asNumber": 65546}));
    assert_eq!(configuration["metadata"]["uid"], "uid-0");
    let before = memory.dump();
    for (line, problem) in [
        ("config set nodeToNodeMesh yes", "invalid value 'yes'; write on or off"),
        ("config set asNumber 4294967296", "the supplied AS number '4294967296' is not valid"),
        ("config set asNumber 0", "BGPConfiguration.Spec.ASNumber = '0'"),
        (
            "config get colour",
            "unrecognised config name 'colour'; write nodeToNodeMesh or asNumber",
        ),
        ("config set logLevel info", "weirctl patch bgpconfig default"),
        ("config get ipip", "weirctl patch ippool NAME"),
    ] {
        let answer = call(&memory, line).await;
        assert_eq!(answer.exit, 1, "{line}");
        assert!(answer.output.contains(problem), "{line}: {}", answer.output);
    }
    assert_eq!(memory.dump(), before);
}

#[tokio::test]
async fn nodes_show_the_clusters_as_number() {
    let memory = recorded_store("busy");
    let wide = ["get", "node", "-o", "wide"];
    let before = call_with_input(&memory, &wide, "").await.output;
    assert!(before.contains("(64512)"), "{before}");
    memory.seed([(
        DEFAULT.to_owned(),
        br#"{"metadata":{"name":"default"},"spec":{"asNumber":"1.10"}}"#.to_vec(),
    )]);
    let after = call_with_input(&memory, &wide, "").await.output;
    assert_eq!(after, before.replace("(64512)", "(65546)"));

    memory.seed([(
        DEFAULT.to_owned(),
        br#"{"metadata":{"name":"default"},"spec":{"listenPort":-1}}"#.to_vec(),
    )]);
    let environment = Prepared::new("", None);
    let answer = call_in(&memory, &wide, &environment, Style::default()).await;
    assert_eq!(answer.output, before);
    let warnings = environment.warnings.lock().unwrap();
    assert!(
        warnings[0].starts_with("warning: BGPConfiguration(default) cannot be used: error with"),
        "{warnings:?}"
    );
}
