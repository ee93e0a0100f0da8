use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::secrets::{Form, REMOVED, Secrets};
use super::section::{LIMIT, MOST_KEPT, Section, SectionSource};
use super::*;

fn text(it: &str) -> String {
    Secrets::default().out_of(it)
}

#[test]
fn what_stands_behind_a_word_for_a_secret_is_removed() {
    for (written, clean) in [
        ("etcd_password: correct horse\nnext", "etcd_password: [removed]\nnext"),
        ("ETCD_PASSWORD=a b\n", "ETCD_PASSWORD=[removed]\n"),
        ("{\"etcd_password\":\"a\\\"b\",\"x\":1}", "{\"etcd_password\":[removed],\"x\":1}"),
        ("\"k8sAPIToken\": 'x', y", "\"k8sAPIToken\": [removed], y"),
        ("  password \"hush\";", "  password [removed];"),
        ("Authorization: Bearer abc", "Authorization: [removed]"),
        (
            r#""last": "{\"etcd_password\":\"x\",\"y\":1}""#,
            r#""last": "{\"etcd_password\":[removed]"#,
        ),
        (
            "https://u:p@[::1]:2379,http://a:b/c@h/",
            "https://[removed]@[::1]:2379,http://[removed]@h/",
        ),
    ] {
        assert_eq!(text(written), clean, "{written}");
    }
}

#[test]
fn what_names_where_a_secret_is_stays() {
    for written in [
        "etcd_key_file: /etc/weir/etcd/client.key",
        "\"password\": {\"secretKeyRef\": {\"name\": \"bgp\", \"key\": \"tor\"}}",
        "the password bgp/tor cannot be read from /etc/weir/secrets/bgp/tor: it is not there",
        "https://10.0.0.1:2379/x, a@b",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    ] {
        assert_eq!(text(written), written);
    }
    let document = r#"{"password": {"secretKeyRef": {"name": "bgp", "key": "tor"}}}"#;
    let clean = Secrets::default().out_of_document(document, Form::Json).unwrap();
    assert!(clean.contains("\"tor\"") && !clean.contains(REMOVED), "{clean}");
}

#[test]
fn in_documents_all_under_such_a_key_is_removed() {
    let document = "{\"passwords\": [\"one\", {\"a\": 2}], \"b\": 3}\n{\"token\": null}";
    let clean = Secrets::default().out_of_document(document, Form::Json).unwrap();
    assert!(!clean.contains("one") && !clean.contains('2') && clean.contains('3'), "{clean}");
    let yaml = "etcdKey: |\n  one\n  two\netcdCert: three\n";
    let clean = Secrets::default().out_of_document(yaml, Form::Yaml).unwrap();
    assert!(!clean.contains("one") && !clean.contains("two") && clean.contains("three"), "{clean}");
    let error = Secrets::default().out_of_document("{\"a\": hush}", Form::Json).unwrap_err();
    assert!(error.contains("not JSON (line 1)") && !error.contains("hush"), "{error}");
}

#[test]
fn private_keys_are_removed_also_in_part() {
    let key = |kind: &str, body: &str| format!("-----{kind} EC PRIVATE KEY-----{body}");
    let whole = format!("a {}{} b", key("BEGIN", "\\nhush\\n"), key("END", ""));
    assert_eq!(text(&whole), "a [removed] b");
    assert_eq!(text(&format!("a\n{}", key("BEGIN", "\nhush"))), "a\n[removed]");
    assert_eq!(text(&format!("hush\n{}\nb", key("END", ""))), "[removed]\nb");
    let two = format!("{whole} {whole}");
    assert_eq!(text(&two), "a [removed] b a [removed] b");
}

#[test]
fn a_known_secret_is_removed_wherever_it_stands() {
    let mut secrets = Secrets::default();
    secrets.add_those_of(r#"{"plugins": [{"etcd_password": "tr0ub4dor"}]}"#, Form::Json);
    secrets.add_those_of("ETCD_PASSWORD=battery staple\n", Form::Text);
    secrets.add("hush-hush\n");
    secrets.add("x");
    let said = "tr0ub4dor was refused; so were battery staple and hush-hush; x";
    assert_eq!(secrets.out_of(said), "[removed] was refused; so were [removed] and [removed]; x");
}

fn program(line: &[&str]) -> Section {
    let arguments = line[1..].iter().map(|it| (*it).to_owned()).collect();
    let source = SectionSource::Program(line[0].into(), arguments);
    Section { title: line.join(" "), source, form: Form::Text }
}

async fn read_within(time: Duration, sections: Vec<Section>) -> Vec<SectionText> {
    Reader::new(Secrets::default(), Instant::now() + time).read_all(sections).await
}

#[tokio::test]
async fn what_has_no_end_is_cut_and_the_others_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let fifo = Section {
        title: "fifo".into(),
        source: SectionSource::File { path: fifo, is_log: true },
        form: Form::Text,
    };
    // As many hang as are read at the same time.
    let mut sections = vec![program(&["yes", "0123456"]), fifo, program(&["no such program"])];
    sections.push(program(&["echo", "token: x"]));
    sections.push(program(&["ls", "/nowhere"]));
    sections.extend((0..5).map(|_| program(&["sleep", "1000"])));
    let texts = read_within(Duration::from_secs(3), sections).await;
    let trouble = |index: usize| texts[index].trouble.clone().unwrap_or_default();
    assert_eq!(texts[0].text.len(), MOST_KEPT);
    assert!(trouble(0).contains("cut"), "{}", trouble(0));
    assert!(trouble(1).contains("not a regular file"), "{}", trouble(1));
    assert!(trouble(2).contains("does not start"), "{}", trouble(2));
    assert_eq!((texts[3].text.as_str(), &texts[3].trouble), ("token: [removed]\n", &None));
    assert!(
        texts[4].text.contains("[standard error]") && trouble(4).contains('2'),
        "{:?}",
        texts[4]
    );
    assert!(trouble(5).contains("did not end in time"), "{}", trouble(5));
    assert!(trouble(9).contains("no time was left"), "{}", trouble(9));
}

#[tokio::test]
async fn what_a_terminal_obeys_is_escaped() {
    let texts = read_within(LIMIT, vec![program(&["printf", "\\033[2J\\ta\\n"])]).await;
    assert_eq!(texts[0].text, "\\u{1b}[2J    a\n");
}

#[test]
fn a_bundle_is_never_larger_than_it_says() {
    let long = SectionText {
        title: "long".into(),
        text: "ä".repeat(MOST_KEPT / 2),
        trouble: Some("cut".into()),
    };
    let text = layout("head\n", &vec![long; 40]);
    assert!(text.len() <= LARGEST && text.len() > LARGEST - MOST_KEPT, "{}", text.len());
    assert!(text.ends_with("[the bundle is full]\n"));
    assert!(text.contains(" 40. long (cut)\n"));
}

#[test]
fn the_file_is_new_and_its_owners_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let mode = create(&path("new")).unwrap().metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::os::unix::fs::symlink(path("elsewhere"), path("link")).unwrap();
    for name in ["new", "link"] {
        let error = create(&path(name)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{name}");
    }
    assert!(!path("elsewhere").exists());
}

#[test]
fn a_host_s_name_is_no_path() {
    let name = default_name("../n1.example", "2026-11-29T13:00:00Z".parse().unwrap());
    assert_eq!(name, Path::new("weir-support-___n1_example-20261129T130000Z.txt"));
}
