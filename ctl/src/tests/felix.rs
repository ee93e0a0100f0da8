//! FelixConfiguration: Calico's settings of tunnels.

use super::golden::{WIDTHS, check, style};
use super::*;

/// The cluster's and a node's, with settings that Weir only keeps.
const RESOURCES: &str = r#"
- apiVersion: projectcalico.org/v3
  kind: FelixConfiguration
  metadata: {name: default}
  spec:
    vxlanVNI: 5000
    vxlanEnabled: yes
    externalNodesList: [10.0.0.5, 10.1.0.0/16]
    bpfLogLevel: ""
    floatingIPs: Disabled
    istioAmbientMode: Enabled
- apiVersion: projectcalico.org/v3
  kind: FelixConfiguration
  metadata: {name: node.n1}
  spec: {vxlanMTU: 0, externalNodesList: []}
"#;

const DEFAULT: &str = "/calico/resources/v3/projectcalico.org/felixconfigurations/default";

fn document(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, \
         metadata: {{name: {name}}}, spec: {{{spec}}}}}"
    )
}

#[tokio::test]
async fn it_has_calicos_table_and_documents() {
    for width in WIDTHS {
        let memory = Memory::new();
        let mut text = String::new();
        let mut lines = vec!["create -f -".to_owned()];
        lines.extend(["ps", "wide", "yaml", "name"].map(|it| format!("get felixconfig -o {it}")));
        lines.push("get FelixConfigurations default -o json".into());
        lines.push("get felixconfigs node.n1 nothing".into());
        lines.push("delete felixconfiguration node.n1".into());
        for line in &lines {
            let arguments: Vec<_> = line.split(' ').collect();
            let answer = call_in_style(&memory, &arguments, RESOURCES, style(width)).await;
            text.push_str(&format!("$ weirctl {line}\n{}[{}]\n\n", answer.output, answer.exit));
        }
        check("get-felix", width, &text);
    }
}

#[tokio::test]
async fn what_no_tunnel_can_have_is_refused_with_what_to_do() {
    let memory = Memory::new();
    for (text, problem) in [
        (document("n1", ""), "write default or node.n1"),
        (document("default", "vxlanVNI: 0"), "FelixConfiguration.Spec.VXLANVNI = '0'"),
        (document("default", "vxlanMTUV6: 1000"), "write 0 to leave it to the node"),
        (document("default", "vxlanVni: 7"), "did you mean vxlanVNI?"),
        (
            document("default", "externalNodesList: [router]"),
            "FelixConfiguration.Spec.ExternalNodesList[0] = 'router' (must be an IP address or a \
             CIDR); write for example 10.1.0.5 or 10.1.0.0/16",
        ),
        // Weir does not use it, and Calico could not read it.
        (
            document("default", "bpfEnabled: 5"),
            "FelixConfiguration.Spec.BPFEnabled = '5' (must be true or false, not a number)",
        ),
    ] {
        for command in ["create", "apply"] {
            let answer = call_with_input(&memory, &[command, "-f", "-"], &text).await;
            assert_eq!(answer.exit, 1, "{command} {text}");
            assert!(answer.output.contains(problem), "{command} {text}: {}", answer.output);
        }
    }
    assert!(memory.dump().is_empty());
}

#[tokio::test]
async fn settings_that_are_not_known_here_are_kept() {
    let memory = Memory::new();
    assert_eq!(create(&memory, RESOURCES).await.exit, 0);
    let read = || serde_json::from_slice::<Value>(&memory.dump()[DEFAULT]).unwrap();
    // Another version of Calico has written what looks like a typing error here.
    let mut stored = read();
    stored["spec"]["vxlanVNIs"] = serde_json::json!([1]);
    memory.seed([(DEFAULT.to_owned(), stored.to_string().into_bytes())]);
    for line in [
        r#"patch felixconfig default -p {"spec":{"vxlanPort":8472}}"#,
        "label felixconfig default a=b",
    ] {
        assert_eq!(call(&memory, line).await.exit, 0, "{line}");
    }
    let mut expected = stored.clone();
    expected["spec"]["vxlanPort"] = 8472.into();
    expected["metadata"]["labels"] = serde_json::json!({"a": "b"});
    assert_eq!(read(), expected);

    // A document says all of the settings, and so takes out what it leaves out.
    let line = r#"patch felixconfig default -p {"spec":{"vxlanVNIs":null}}"#;
    assert_eq!(call(&memory, line).await.exit, 0, "{line}");
    assert_eq!(read()["spec"]["vxlanVNIs"], Value::Null);
    let replacement = document("default", "vxlanPort: 8472, later: {a: 0}");
    assert_eq!(call_with_input(&memory, &["replace", "-f", "-"], &replacement).await.exit, 0);
    assert_eq!(read()["spec"], serde_json::json!({"vxlanPort": 8472, "later": {"a": 0}}));
}
