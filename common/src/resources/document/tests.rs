use super::*;

const POOL: &str = "
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: p}
spec: {cidr: 10.1.0.0/16}
";

fn names(text: &str) -> Vec<String> {
    read(text).unwrap().iter().map(|resource| resource.name().to_owned()).collect()
}

fn error(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[test]
fn documents_lists_and_list_kinds_are_taken_apart() {
    assert_eq!(names(POOL), ["p"]);
    assert_eq!(names(&format!("---\n{POOL}---\n{POOL}---\n")), ["p", "p"]);
    let json = r#"[{"apiVersion":"projectcalico.org/v3","kind":"Node","metadata":{"name":"n"}}]"#;
    assert_eq!(names(json), ["n"]);
    assert_eq!(names(&json.replace(",", ",\n\t")), ["n"]);
    let list = "
apiVersion: projectcalico.org/v3
kind: IPPoolList
metadata: {resourceVersion: '7'}
items:
- metadata: {name: a}
  spec: {cidr: 10.1.0.0/16}
- kind: IPPool
  apiVersion: projectcalico.org/v3
  metadata: {name: b}
";
    assert_eq!(names(list), ["a", "b"]);
    assert_eq!(names("apiVersion: v1\nkind: List\nitems: []"), Vec::<String>::new());
    assert_eq!(names("# nothing\n---\n"), Vec::<String>::new());
    assert_eq!(names(""), Vec::<String>::new());
}

#[test]
fn the_v1_form_is_converted() {
    let text = "
- apiVersion: v1
  kind: ipPool
  metadata: {cidr: 10.254.0.0/24}
  spec: {ipip: {enabled: true, mode: cross-subnet}, nat-outgoing: true}
";
    let resources = read(text).unwrap();
    assert!(resources[0].is_from_v1);
    let pool = resources[0].pool().unwrap();
    assert_eq!(pool.name, "10-254-0-0-24");
    assert_eq!(pool.modes, [("ipipMode", crate::resources::EncapsulationMode::CrossSubnet)].into());
    assert!(pool.nat_outgoing && !pool.disabled);
    let text = "
kind: bgpPeer
apiVersion: v1
metadata: {scope: node, node: n1, peerIP: 10.0.0.1}
spec: {asNumber: 64513}
";
    let peer = read(text).unwrap().remove(0);
    assert!(peer.is_from_v1 && peer.check().is_ok());
    assert_eq!((peer.name(), peer.spec("asNumber")), ("n1-10-0-0-1", Some(&64513.into())));
}

#[test]
fn what_is_wrong_is_named() {
    let unknown = "field in document is not recognized or is in the wrong location";
    let cases = [
        (POOL.replace("cidr", "cird"), format!("{unknown}: cird; did you mean cidr?")),
        (POOL.replace("spec", "specs"), format!("{unknown}: specs; did you mean spec?")),
        (
            POOL.replace("IPPool", "IPPol"),
            "unknown resource type (IPPol) and/or version (projectcalico.org/v3)".into(),
        ),
        (
            POOL.replace("projectcalico.org/v3", "v1").replace("IPPool", "policy"),
            "unknown resource type (policy) and/or version (v1)".into(),
        ),
        (POOL.replace("name: p", "1: p"), format!("{unknown}: 1")),
        (POOL.replace("name: p", "[p]: p"), "the key - p is not text".into()),
        (r#"{"kind": "IPPool", "kind": "Node"}"#.into(), "the field kind is there twice".into()),
        (r#"[{"a": [{"b": 1, "b": 1}]}]"#.into(), "the field b is there twice".into()),
        (
            POOL.replace("projectcalico.org/v3", "v1"),
            format!("{unknown}: name; it belongs to the present form, for which write apiVersion"),
        ),
        ("just text".into(), "found text where a resource should be".into()),
        ("kind: [IPPool".into(), "error parsing document: did not find expected".into()),
        (POOL.replace("cidr:", "cidr: 10.2.0.0/16, cidr:"), "duplicate".into()),
    ];
    for (text, message) in cases {
        let error = error(&text);
        assert!(error.contains(&message), "{text}: {error}");
    }
}

/// 11 kB that ask for three million values, and a text of 10 kB ten thousand times.
#[test]
fn what_aliases_repeat_is_bounded() {
    let values = format!("a: &a [{}]\nb: [{}]\n", "x,".repeat(1000), "*a,".repeat(3000));
    let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(10_000), "*a,".repeat(10_000));
    let documents = format!("---\na: &a [{}]\nb: [{}]\n", "x,".repeat(90), "*a,".repeat(90));
    for heavy in [values, text, documents.repeat(200)] {
        assert!(error(&heavy).contains("aliases"), "{}", error(&heavy));
    }
    let shared = "
- &p
  apiVersion: projectcalico.org/v3
  kind: IPPool
  metadata: {name: p}
- *p
- *p
";
    assert_eq!(names(shared), ["p", "p", "p"]);
}

#[test]
fn marks_of_editors_and_merged_mappings_are_understood() {
    assert_eq!(names(&format!("\u{feff}{POOL}")), ["p"]);
    let merged = "
- &p
  apiVersion: projectcalico.org/v3
  kind: IPPool
  metadata: {name: p}
- <<: *p
  metadata: {name: q}
";
    assert_eq!(names(merged), ["p", "q"]);
}

/// Such a text kept the parser busy for minutes.
#[test]
fn deep_nesting_is_refused_before_it_is_parsed() {
    let error = read(&"{\"a\":".repeat(100_000)).unwrap_err();
    assert!(matches!(error, DocumentError::TooDeep), "{error}");
}
