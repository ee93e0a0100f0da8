use weir_common::cni;

use super::*;

fn settings(pairs: &[(&str, &str)]) -> Settings {
    Settings::from_pairs(pairs.iter().map(|(name, value)| (*name, (*value).to_owned())))
}

fn endpoints(location: &Location) -> Vec<String> {
    match &location.configuration {
        DatastoreConfiguration::Etcd(etcd) => etcd.endpoints.clone(),
        DatastoreConfiguration::Embedded { path } => vec![path.display().to_string()],
    }
}

fn all() -> Candidates {
    let conflist = |endpoint: &str| {
        format!(
            r#"{{"plugins": [{{"type": "other", "etcd_endpoints": "x"}}, {{"type": "weir", "etcd_endpoints": "{endpoint}", "datastore_type": "etcdv3"}}]}}"#
        )
    };
    Candidates {
        command_line: settings(&[("etcd_endpoints", "http://flag:1, http://flag:2")]),
        environment: settings(&[
            ("ETCD_ENDPOINTS", "http://env:1"),
            ("ETCD_USERNAME", "u"),
            ("ETCD_PASSWORD", "p"),
        ]),
        file: Some(("weirctl.yaml".into(), "etcd_endpoints: [http://file:1]".into())),
        network: vec![
            ("00-broken.conflist".into(), "{".into()),
            ("05-other.conflist".into(), r#"{"plugins": [{"type": "bridge"}]}"#.into()),
            ("10-weir.conflist".into(), conflist("http://net:1")),
            ("20-weir.conflist".into(), conflist("http://net:2")),
        ],
        ..Candidates::default()
    }
}

#[test]
fn the_first_source_that_says_where_counts() {
    let mut candidates = all();
    let location = choose(&candidates).unwrap();
    assert_eq!(location.source, Source::CommandLine);
    assert_eq!(endpoints(&location), ["http://flag:1", "http://flag:2"]);
    candidates.command_line = Settings::default();
    let location = choose(&candidates).unwrap();
    assert_eq!(
        (location.source.clone(), endpoints(&location)),
        (Source::Environment, vec!["http://env:1".into()])
    );
    candidates.environment = settings(&[("ETCD_ENDPOINTS", "")]);
    let location = choose(&candidates).unwrap();
    assert_eq!(location.source, Source::File("weirctl.yaml".into()));
    assert_eq!(endpoints(&location), ["http://file:1"]);
    candidates.file = Some(("weirctl.yaml".into(), "# nothing yet\n".into()));
    let location = choose(&candidates).unwrap();
    assert_eq!(location.source, Source::Network("10-weir.conflist".into()));
    assert_eq!(endpoints(&location), ["http://net:1"]);
    candidates.network.clear();
    let location = choose(&candidates).unwrap();
    assert_eq!(location.source, Source::Default);
    assert_eq!(endpoints(&location), ["/var/lib/weir/weir.db"]);
}

#[test]
fn a_network_that_is_named_says_where_unless_flags_do() {
    let named = |keys: &str| {
        let text = format!(r#"{{"name": "x", "ipam": {{"type": "weir-ipam"}}{keys}}}"#);
        Some(Network::read("named.conf".into(), &text).unwrap())
    };
    let mut candidates =
        Candidates { named: named(r#", "etcd_endpoints": "http://own:1""#), ..all() };
    assert_eq!(choose(&candidates).unwrap().source, Source::CommandLine);
    candidates.command_line = Settings::default();
    let location = choose(&candidates).unwrap();
    assert_eq!(location.source, Source::Network("named.conf".into()));
    assert_eq!(endpoints(&location), ["http://own:1"]);
    candidates.named = named("");
    assert_eq!(endpoints(&choose(&candidates).unwrap()), ["/var/lib/weir/weir.db"]);
    candidates.named = named(r#", "datastore_type": "cloud""#);
    let error = choose(&candidates).unwrap_err().to_string();
    assert_eq!(error, "named.conf does not say where the datastore is");
}

#[test]
fn flags_are_completed_from_the_environment() {
    let mut candidates = all();
    candidates.environment.password = Some("secret".into());
    let DatastoreConfiguration::Etcd(etcd) = choose(&candidates).unwrap().configuration else {
        panic!("not etcd");
    };
    assert_eq!(etcd.credentials, Some(("u".into(), "secret".into())));
    assert!(!format!("{candidates:?}").contains("secret"));
}

#[test]
fn calicoctls_own_file_is_understood() {
    let text = "
apiVersion: projectcalico.org/v3
kind: CalicoAPIConfig
metadata:
spec:
  datastoreType: etcdv3
  etcdEndpoints: https://a:2379,https://b:2379
  etcdCACertFile: ca.pem
  etcdCertFile: cert.pem
  etcdKeyFile: key.pem
";
    let candidates = Candidates { file: Some(("f".into(), text.into())), ..Candidates::default() };
    let DatastoreConfiguration::Etcd(etcd) = choose(&candidates).unwrap().configuration else {
        panic!("not etcd");
    };
    assert_eq!(etcd.endpoints, ["https://a:2379", "https://b:2379"]);
    let file = |name: &str| Pem::File(name.into());
    assert_eq!(etcd.authorities, Some(file("ca.pem")));
    assert_eq!(etcd.client_certificate, Some((file("cert.pem"), file("key.pem"))));
}

#[test]
fn certificates_in_calicoctls_own_file_are_understood() {
    let text = "
apiVersion: projectcalico.org/v3
kind: CalicoAPIConfig
spec:
  etcdEndpoints: https://a:2379
  etcdCACert: |
    one
    two
  etcdCert: the certificate
  etcdKey: the key
";
    let from_file = |text: &str| {
        let file = Some(("f".into(), text.to_owned()));
        choose(&Candidates { file, ..Candidates::default() })
    };
    let location = from_file(text).unwrap();
    assert_eq!(
        location.to_string(),
        "etcd, https://a:2379, with certificate (inline), trusting (inline) (named by f)"
    );
    assert!(!format!("{location:?}").contains("the key"));
    let DatastoreConfiguration::Etcd(etcd) = location.configuration else {
        panic!("not etcd");
    };
    let inline = |text: &str| Pem::Inline(text.to_owned());
    assert_eq!(etcd.authorities, Some(inline("one\ntwo\n")));
    assert_eq!(etcd.client_certificate, Some((inline("the certificate"), inline("the key"))));
    let error = from_file(&format!("{text}  etcdKeyFile: key.pem\n")).unwrap_err().to_string();
    assert!(error.contains("both inline (etcdCACert, etcdCert, etcdKey) and in files"), "{error}");
    let error = from_file("{etcdEndpoints: 'https://a:1', etcdKey: k}").unwrap_err();
    assert!(matches!(error, LocationError::HalfACertificate(_)), "{error}");
    // What calicoctl does not read from the environment either.
    let environment = [("ETCD_ENDPOINTS", "https://a:1"), ("ETCD_KEY", "the key")];
    let candidates = Candidates { environment: settings(&environment), ..Candidates::default() };
    assert_eq!(endpoints(&choose(&candidates).unwrap()), ["https://a:1"]);
}

#[test]
fn a_password_in_an_endpoint_is_refused_unread() {
    for url in ["http://root:pa55@h:2379", "root:pa55@h", "http://a:1,http://root:pa55,x@h:1"] {
        let settings = settings(&[("etcd_endpoints", url)]);
        let file = Some(("f".into(), format!("etcd_endpoints: {url:?}")));
        let candidates = [
            Candidates { command_line: settings.clone(), ..Candidates::default() },
            Candidates { environment: settings, ..Candidates::default() },
            Candidates { file, ..Candidates::default() },
        ];
        for candidates in candidates {
            let error = choose(&candidates).unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(told.contains("etcd_username") && told.contains("UserInEndpoint"), "{told}");
            assert!(!told.contains("pa55") && !told.contains("root"), "{told}");
            let seen = format!("{:?} {:?}", candidates.command_line, candidates.environment);
            assert!(!seen.contains("pa55"), "{seen}");
        }
    }
}

#[test]
fn a_single_plugin_and_an_embedded_path_are_understood() {
    let text = r#"{"type": "weir", "datastore_path": "/x/weir.db", "ipam": {"type": "weir-ipam"}}"#;
    let candidates =
        Candidates { network: vec![("10-weir.conf".into(), text.into())], ..Candidates::default() };
    assert_eq!(endpoints(&choose(&candidates).unwrap()), ["/x/weir.db"]);
    let text = r#"{"type": "weir", "ipam": {"type": "weir-ipam"}}"#;
    let candidates =
        Candidates { network: vec![("10-weir.conf".into(), text.into())], ..Candidates::default() };
    let location = choose(&candidates).unwrap();
    assert_eq!(endpoints(&location), ["/var/lib/weir/weir.db"]);
    // It does not say so, and none is made by that.
    assert_eq!(location.source, Source::Default);
    let error = location.require_asked_for().unwrap_err().to_string();
    assert!(error.contains("--datastore-type=embedded"), "{error}");
    let text = text
        .replace("\"type\": \"weir\",", "\"type\": \"weir\", \"datastore_type\": \"embedded\",");
    let candidates =
        Candidates { network: vec![("10-weir.conf".into(), text)], ..Candidates::default() };
    let location = choose(&candidates).unwrap();
    assert_eq!(location.source, Source::Network("10-weir.conf".into()));
    assert!(location.require_asked_for().is_ok());
}

#[test]
fn weirctl_and_the_plugins_read_a_network_alike() {
    let cases = [
        r#""etcd_authority": "h:2379", "etcd_scheme": "https""#,
        r#""etcd_endpoints": "http://a:1, http://b:2", "etcd_username": "u", "etcd_password": "p""#,
        r#""etcd_endpoints": "http://a:1", "etcd_username": "u""#,
        r#""etcd_endpoints": "http://a:1", "etcd_cert_file": "c""#,
        r#""etcd_endpoints": "a:1""#,
        r#""datastore_type": "etcd", "etcd_endpoints": "http://a:1""#,
        r#""datastore_type": "etcdv3""#,
        r#""datastore_type": "embedded", "etcd_endpoints": "http://a:1""#,
        r#""datastore_path": "/x/weir.db""#,
        r#""etcd_endpoints": 7"#,
        r#""etcd_endpoint": "http://a:1""#,
        r#""etcdEndpoints": "http://a:1""#,
    ];
    for case in cases {
        let plugin = format!(r#"{{"type": "weir", "ipam": {{"type": "weir-ipam"}}, {case}}}"#);
        let json = serde_json::from_str(&plugin).unwrap();
        let plugins =
            cni::NetworkConfiguration::for_removal("n".into(), cni::SpecVersion::V1_0_0, &json)
                .and_then(|configuration| configuration.datastore);
        let text = format!(r#"{{"name": "n", "cniVersion": "1.0.0", "plugins": [{plugin}]}}"#);
        let network = vec![("10-weir.conflist".into(), text)];
        match (choose(&Candidates { network, ..Candidates::default() }), plugins) {
            (Ok(found), Ok(plugins)) => assert_eq!(found.configuration, plugins, "{case}"),
            (Err(LocationError::Network { path, cause }), Err(plugins)) => {
                assert_eq!(path, PathBuf::from("10-weir.conflist"));
                assert_eq!(cause.message, plugins.message, "{case}");
            }
            (found, plugins) => panic!("{case}: {found:?}, {plugins:?}"),
        }
    }
}

#[test]
fn what_is_wrong_names_the_source() {
    let cases = [
        (
            vec![("DATASTORE_TYPE", "kubernetes")],
            "datastore_type \"kubernetes\" in the environment",
        ),
        (vec![("DATASTORE_TYPE", "etcdv3")], "set etcd_endpoints"),
        (vec![("ETCD_ENDPOINTS", "a"), ("ETCD_CERT_FILE", "c")], "name both"),
        (vec![("ETCD_ENDPOINTS", "a"), ("ETCD_USERNAME", "u")], "set ETCD_PASSWORD too"),
        (vec![("ETCD_ENDPOINTS", "a"), ("ETCD_PASSWORD", "p")], "name the user too"),
    ];
    for (pairs, message) in cases {
        let candidates = Candidates { environment: settings(&pairs), ..Candidates::default() };
        let error = choose(&candidates).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let candidates =
        Candidates { file: Some(("f.yaml".into(), "just text".into())), ..Candidates::default() };
    let error = choose(&candidates).unwrap_err();
    assert!(
        weir_common::error_chain(&error).contains("it is not YAML with one setting"),
        "{error}"
    );
}

#[test]
fn files_are_read_in_their_order() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["b.conf", "a.json", "z.conflist", "c.conflist", "notes.txt"] {
        std::fs::write(directory.path().join(name), name).unwrap();
    }
    let sources = Sources {
        config_file: directory.path().join("weirctl.yaml"),
        config_file_required: false,
        calicoctl_config_file: directory.path().join("calicoctl.cfg"),
        network_directory: directory.path().to_owned(),
    };
    let candidates = sources.gather(Settings::default(), &[]).unwrap();
    let names: Vec<_> = candidates.network.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(names, ["c.conflist", "z.conflist", "a.json", "b.conf"]);
    assert_eq!(candidates.file, None);
    let required = Sources { config_file_required: true, ..sources };
    let error = required.gather(Settings::default(), &[]).unwrap_err();
    assert!(matches!(error, LocationError::Unreadable { .. }));
}

#[test]
fn a_datastore_is_described_without_its_password() {
    let mut etcd = EtcdConfiguration::new(vec!["http://a:1".into(), "http://b:1".into()]);
    etcd.credentials = Some(("u".into(), "secret".into()));
    let shown = |configuration, source| Location { configuration, source }.to_string();
    assert_eq!(
        shown(DatastoreConfiguration::Etcd(etcd), Source::Environment),
        "etcd, http://a:1, http://b:1, as user u (named by the environment)"
    );
    let embedded = DatastoreConfiguration::Embedded { path: "/x/weir.db".into() };
    assert_eq!(
        shown(embedded, Source::CommandLine),
        "embedded, /x/weir.db (named by the command line)"
    );
}

fn from_file(text: &str) -> Result<Location, String> {
    let file = Some(("f.yaml".into(), text.to_owned()));
    choose(&Candidates { file, ..Candidates::default() })
        .map_err(|error| weir_common::error_chain(&error))
}

#[test]
fn what_a_file_says_is_read_or_refused() {
    let refused = [
        ("etcdEndpoint: http://a:1", "\"etcdEndpoint\" is unknown; did you mean etcd_endpoints?"),
        ("etcd_endpoint: http://a:1", "did you mean etcd_endpoints?"),
        ("spec: {etcdEndpoint: 'http://a:1'}", "did you mean etcd_endpoints?"),
        ("etcdCACrt: text", "did you mean etcdCACert?"),
        ("colour: blue", "\"colour\" is unknown; leave it out"),
        ("{etcd_endpoints: 'http://a:1', etcd_username: u, etcd_password: 55}", "not text"),
        ("etcd_discovery_srv: example.com", "list the servers in etcd_endpoints"),
        ("spec: {kubeconfig: /root/.kube/config}", "datastore_type \"kubernetes\" in f.yaml"),
        ("spec: yes", "\"spec\" is unknown"),
    ];
    for (text, message) in refused {
        let error = from_file(text).unwrap_err();
        assert!(error.contains("f.yaml") && error.contains(message), "{text}: {error}");
        assert!(!error.contains("55"), "{error}");
    }
    let read = [
        ("etcd_authority: a:1", "http://a:1"),
        ("{etcdAuthority: 'a:1', etcdScheme: https}", "https://a:1"),
        ("spec: {etcdEndpoints: 'http://a:1', kubeconfig: '', k8sCAFile: /x}", "http://a:1"),
    ];
    for (text, endpoint) in read {
        assert_eq!(endpoints(&from_file(text).unwrap()), [endpoint], "{text}");
    }
}

#[test]
fn a_file_that_is_named_counts_before_the_environment_and_has_to_name_a_datastore() {
    let named = |text: &str| {
        let file = Some(("f.yaml".into(), text.to_owned()));
        let command_line = Settings::default();
        choose(&Candidates { command_line, file, file_is_named: true, ..all() })
    };
    let location = named("etcd_endpoints: http://file:1").unwrap();
    assert_eq!(location.source, Source::File("f.yaml".into()));
    assert!(location.to_string().contains("as user u"), "{location}");
    for text in ["# nothing\n", "etcd_cert_file: /c"] {
        let error = named(text).unwrap_err();
        assert!(matches!(error, LocationError::SaysNothing(_)), "{error}");
    }
}

#[test]
fn calicoctls_variables_are_read_and_misspelt_ones_refused() {
    let directory = tempfile::tempdir().unwrap();
    let chosen = |pairs: &[(&str, &str)]| {
        let environment: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let nowhere = directory.path().join("absent");
        let sources = Sources {
            config_file: nowhere.join("weirctl.yaml"),
            config_file_required: false,
            calicoctl_config_file: nowhere.join("calicoctl.cfg"),
            network_directory: nowhere,
        };
        choose(&sources.gather(Settings::default(), &environment).unwrap())
    };
    let calicoctls = [("ETCD_ENDPOINTS", "http://a:1"), ("CALICO_ETCD_ENDPOINTS", "http://b:1")];
    assert_eq!(endpoints(&chosen(&calicoctls).unwrap()), ["http://b:1"]);
    assert_eq!(endpoints(&chosen(&[("ETCD_AUTHORITY", "a:1")]).unwrap()), ["http://a:1"]);
    let unknown = chosen(&[("CALICO_DATASTORE_TYPE", "kubernetes")]).unwrap_err();
    assert!(matches!(unknown, LocationError::UnknownType { .. }), "{unknown}");
    for (name, meant) in [
        ("ETCD_ENDPOINT", "ETCD_ENDPOINTS"),
        ("CALICO_ETCD_ENDPOINT", "ETCD_ENDPOINTS"),
        ("WEIR_ETCD_ENDPOINTS", "ETCD_ENDPOINTS"),
        ("WEIR_DATASTORE_TYPE", "DATASTORE_TYPE"),
        ("DATA_STORE_TYP", "DATASTORE_TYPE"),
    ] {
        let error = chosen(&[(name, "x")]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(&format!("write {meant},")), "{error}");
        assert!(chosen(&[(name, "")]).is_ok(), "{name} is empty");
    }
    // etcd's own, and Calico's about other things.
    for name in ["ETCD_NAME", "ETCD_PEER_KEY_FILE", "CALICO_ROUTER_ID"] {
        assert_eq!(chosen(&[(name, "x")]).unwrap().source, Source::Default, "{name}");
    }
    // They count for nothing, but keep from the default.
    for name in ["ETCDCTL_ENDPOINTS", "ETCD_URL", "WEIRCTL_ETCD_SERVERS", "FELIX_ETCDADDR"] {
        let error = chosen(&[(name, "x")]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("write ETCD_ENDPOINTS"), "{error}");
        assert!(chosen(&[(name, "x"), ("DATASTORE_TYPE", "embedded")]).is_ok(), "{name}");
    }
    for (name, value) in
        [("ETCD_ENDPOINTS", ","), ("ETCD_CA_CERT_FILE", "/x"), ("ETCD_USERNAME", "a")]
    {
        let error = chosen(&[(name, value)]).unwrap_err();
        assert!(matches!(error, LocationError::NoEndpoints(_)), "{name}: {error}");
    }
}

#[test]
fn the_default_is_not_taken_beside_a_file_that_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name);
    let sources = Sources {
        config_file: place("weirctl.yaml"),
        config_file_required: false,
        calicoctl_config_file: place("calico/calicoctl.cfg"),
        network_directory: place("net.d"),
    };
    std::fs::create_dir_all(place("calico")).unwrap();
    std::fs::create_dir_all(place("net.d")).unwrap();
    let chosen = || choose(&sources.gather(Settings::default(), &[]).unwrap());
    assert_eq!(chosen().unwrap().source, Source::Default);
    let no_network = "not a network with a plugin of type weir";
    let unread: [(&str, &[u8], &str); 8] = [
        ("weirctl.yml", b"", "is not read (the file is"),
        ("weirctl.json", b"", "another one: --config"),
        ("calico/calicoctl.cfg", b"", "another one: --config"),
        ("net.d/10-weir.conflist", br#"{"plugins": [{"type": "weir",]}"#, no_network),
        ("net.d/10-weir.conflist", br#"{"plugin": [{"type": "weir"}]}"#, no_network),
        ("net.d/10-weir.conflist", br#"{"plugins": [{"typ": "weir"}]}"#, no_network),
        (
            "net.d/10-calico.conf",
            br#"{"type": "calico", "etcd_endpoints": "http://a:1"}"#,
            no_network,
        ),
        ("net.d/10-x.conflist", &[0xff], "cannot be read"),
    ];
    for (name, content, message) in unread {
        std::fs::write(place(name), content).unwrap();
        let error = chosen().unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(message), "{error}");
        std::fs::remove_file(place(name)).unwrap();
    }
    // Other files beside it, and another program's network that is broken.
    for name in ["nodename", "etcd.pem", "net.d/05-other.conflist"] {
        std::fs::write(place(name), "{").unwrap();
    }
    assert_eq!(chosen().unwrap().source, Source::Default);
    std::fs::write(place("weirctl.yml"), "").unwrap();
    std::fs::write(place("weirctl.yaml"), "datastore_type: embedded").unwrap();
    assert_eq!(chosen().unwrap().source, Source::File(place("weirctl.yaml")));
}

#[test]
fn a_network_of_another_main_plugin_counts_where_there_is_none_of_weir() {
    let ptp = r#"{"name": "p", "plugins": [{"type": "ptp", "etcd_endpoints": "http://ptp:1",
                "ipam": {"type": "weir-ipam"}}]}"#;
    let weir = r#"{"name": "w", "plugins": [{"type": "weir", "etcd_endpoints": "http://w:1"}]}"#;
    let mut network = vec![(PathBuf::from("a.conflist"), ptp.to_owned())];
    let chosen = |network: &Vec<_>| {
        let network = network.clone();
        endpoints(&choose(&Candidates { network, ..Candidates::default() }).unwrap())
    };
    assert_eq!(chosen(&network), ["http://ptp:1"]);
    network.push(("b.conflist".into(), weir.to_owned()));
    assert_eq!(chosen(&network), ["http://w:1"]);
    // What stands beside the plugins reaches none of them.
    let text = weir.replace(r#""plugins""#, r#""etcdEndpoints": "http://l:1", "plugins""#);
    let network = vec![("c.conflist".into(), text)];
    let error = choose(&Candidates { network, ..Candidates::default() }).unwrap_err().to_string();
    assert!(error.starts_with("etcdEndpoints in c.conflist stands beside"), "{error}");
}
