//! Configurations, good and bad.

use serde_json::json;

use super::super::{Arguments, Code, Error, SpecVersion};
use super::*;
use crate::datastore::Pem;
use crate::ipam::assign::Want;
use crate::ipam::{Family, PoolReference};
use crate::link::MacAddress;

fn validate(json: Value) -> Result<NetworkConfiguration, Error> {
    validate_with(json, &Arguments::default())
}

fn validate_with(json: Value, arguments: &Arguments) -> Result<NetworkConfiguration, Error> {
    let json = json.as_object().unwrap().clone();
    NetworkConfiguration::validate("pods".to_owned(), SpecVersion::V1_0_0, &json, arguments)
}

#[test]
fn defaults() {
    let configuration = validate(json!({"ipam": {"type": "weir-ipam"}})).unwrap();
    assert_eq!(configuration.datastore, Ok(datastore::DatastoreConfiguration::default()));
    let any = Want::Any { family: Family::V4, pools: vec![] };
    assert_eq!(configuration.ipam.unwrap().wants, [any]);
    assert_eq!(configuration.node_name, Ok(NodeName::Search(None)));
}

#[test]
fn calicos_etcd_conflist() {
    let configuration = validate(json!({
        "log_level": "info",
        "etcd_endpoints": "https://10.0.0.1:2379, https://10.0.0.2:2379",
        "etcd_key_file": "/k", "etcd_cert_file": "/c", "etcd_ca_cert_file": "/ca",
        "mtu": 1440,
        "nodename": "node-1.example",
        "policy": {"type": "k8s"},
        "kubernetes": {"kubeconfig": "/x"},
        "ipam": {"type": "weir-ipam", "assign_ipv4": "true", "assign_ipv6": "TRUE",
                 "ipv4_pools": ["10.0.0.0/16", "blue"]},
    }))
    .unwrap();
    let Ok(datastore::DatastoreConfiguration::Etcd(etcd)) = configuration.datastore else {
        panic!("not etcd")
    };
    assert_eq!(etcd.endpoints, ["https://10.0.0.1:2379", "https://10.0.0.2:2379"]);
    assert_eq!(etcd.client_certificate, Some((Pem::File("/c".into()), Pem::File("/k".into()))));
    assert_eq!(configuration.mtu, Some(1440));
    assert_eq!(configuration.without_meaning, ["policy", "kubernetes"]);
    let pools = vec![
        PoolReference::Cidr("10.0.0.0/16".parse().unwrap()),
        PoolReference::Name("blue".to_owned()),
    ];
    assert_eq!(
        configuration.ipam.unwrap().wants,
        [Want::Any { family: Family::V4, pools }, Want::Any { family: Family::V6, pools: vec![] }]
    );
}

#[test]
fn addresses_asked_for_replace_those_of_their_family() {
    let arguments = Arguments { ip: Some("10.0.0.9".to_owned()), ..Arguments::default() };
    let both = json!({"type": "weir-ipam", "assign_ipv6": true});
    let wants = |json| validate_with(json, &arguments).unwrap().ipam.unwrap().wants;
    let address = |text: &str| Want::Exactly(text.parse().unwrap());
    let six = Want::Any { family: Family::V6, pools: vec![] };
    assert_eq!(wants(json!({"ipam": both})), [address("10.0.0.9"), six.clone()]);
    let args = json!({"cni": {"ips": ["10.0.0.8/24"]}});
    assert_eq!(wants(json!({"ipam": both, "args": args})), [address("10.0.0.8"), six.clone()]);
    let runtime = json!({"ips": ["10.0.0.7", "10.0.0.7/24"]});
    assert_eq!(
        wants(json!({"ipam": both, "args": args, "runtimeConfig": runtime})),
        [address("10.0.0.7"), six]
    );
}

#[test]
fn hardware_addresses() {
    let mac = |text: &str| validate(json!({"runtimeConfig": {"mac": text}}));
    assert_eq!(mac("02:00:00:00:00:07").unwrap().mac, Some(MacAddress([2, 0, 0, 0, 0, 7])));
    for text in ["", "02:00", "01:00:00:00:00:01", "00:00:00:00:00:00", "2:0:0:0:0:7"] {
        assert_eq!(mac(text).unwrap_err().code, Code::InvalidConfiguration, "{text:?}");
    }
}

#[test]
fn a_mistake_does_not_stand_in_the_way_of_removal() {
    let json = json!({
        "mtu": "big", "log_level": "loud", "nodename": "a/b", "prevResult": 3,
        "datastore_type": "cloud", "runtimeConfig": {"ips": ["ten"]},
        "ipam": {"type": "weir-ipam", "assign_ipv4": "maybe", "subnet": "x"},
    });
    let json = json.as_object().unwrap();
    let removal = NetworkConfiguration::for_removal("pods".to_owned(), SpecVersion::V1_0_0, json);
    let configuration = removal.unwrap();
    assert_eq!(configuration.ipam.unwrap().plugin, "weir-ipam");
    assert_eq!(configuration.datastore.unwrap_err().code, Code::UnsupportedField);
    assert_eq!(configuration.node_name.unwrap_err().code, Code::InvalidConfiguration);
}

/// As Go reads it; every key that Weir reads may be so.
#[test]
fn what_is_null_is_not_there() {
    let ipam = json!({"type": "weir-ipam", "subnet": null, "assign_ipv4": null, "routes": null,
                      "assign_ipv6": null, "ipv4_pools": null, "ipv6_pools": null,
                      "gateways": null});
    let nothing = validate(json!({"ipam": {"type": "weir-ipam"}})).unwrap();
    let asked = json!({"ips": null, "mac": null});
    let nulls = json!({
        "type": null, "ipam": ipam, "args": {"cni": asked}, "runtimeConfig": asked, "mtu": null,
        "nodename": null, "hostname": null, "nodename_file": null, "nodename_file_optional": null,
        "ipam_lock_file": null, "datastore_type": null, "datastore_path": null,
        "etcd_endpoints": null, "etcd_authority": null, "etcd_scheme": null,
        "etcd_discovery_srv": null, "etcd_key_file": null, "etcd_cert_file": null,
        "etcd_ca_cert_file": null, "etcd_username": null, "etcd_password": null,
        "log_level": null, "log_file_path": null, "log_file_max_size": null, "device_type": null,
        "container_settings": {"allow_ip_forwarding": null}, "include_default_routes": null,
        "dns": null, "prevResult": null,
    });
    let read = validate(nulls).unwrap();
    assert_eq!(NetworkConfiguration { without_meaning: Vec::new(), ..read }, nothing);
    for key in ["args", "runtimeConfig", "container_settings"] {
        assert_eq!(validate(json!({"ipam": ipam, key: null})).unwrap(), nothing, "{key}");
    }
}

/// What is of the wrong type is met by whoever comes to need it.
#[test]
fn what_is_mistyped_does_not_stand_in_the_way_of_removal() {
    let both = |json: Value| {
        let map = json.as_object().unwrap();
        let removal =
            NetworkConfiguration::for_removal("pods".to_owned(), SpecVersion::V1_0_0, map);
        [removal.unwrap(), for_collection(json).unwrap()]
    };
    let ipam = json!({"type": "weir-ipam"});
    let etcd = |key: &str| json!({"ipam": ipam, key: 3, "etcd_endpoints": "http://h:1"});
    for json in [etcd("etcd_key_file"), etcd("datastore_path"), json!({"etcd_endpoints": ["h"]})] {
        for configuration in both(json.clone()) {
            let error = configuration.datastore.unwrap_err();
            assert_eq!(error.code, Code::Decode, "{json}");
            assert!(error.message.contains("etcd_") || error.message.contains("datastore_"));
        }
    }
    for configuration in both(json!({"etcd_discovery_srv": "x.org"})) {
        assert_eq!(configuration.datastore.unwrap_err().code, Code::UnsupportedField);
    }
    for key in NODE_NAME {
        let [removal, _] = both(json!({"ipam": ipam, key: [1]}));
        assert_eq!(removal.node_name.unwrap_err().code, Code::Decode, "{key}");
        assert_eq!(removal.ipam.unwrap().plugin, "weir-ipam");
    }
    for (wrong, code) in [
        (json!("weir-ipam"), Code::Decode),
        (json!({"type": 3}), Code::Decode),
        (json!({}), Code::InvalidConfiguration),
    ] {
        for configuration in both(json!({"ipam": wrong})) {
            let error = configuration.require_ipam().unwrap_err();
            assert!(error.code == code && error.message.contains("ipam"), "{error}");
        }
    }
    let relative = both(json!({"ipam": ipam, "ipam_lock_file": "here", "type": 3}));
    for configuration in
        both(json!({"ipam": ipam, "ipam_lock_file": 3, "type": 3})).into_iter().chain(relative)
    {
        assert_eq!(configuration.require_ipam().unwrap().lock_file, None);
        assert_eq!(configuration.main_plugin, "");
    }
}

#[test]
fn a_removal_knows_its_host() {
    let node_name = |json: Value| {
        let json = json.as_object().unwrap();
        let removal =
            NetworkConfiguration::for_removal("pods".to_owned(), SpecVersion::V1_0_0, json);
        removal.unwrap().node_name.unwrap()
    };
    let given = |name: &str| NodeName::Given(name.to_owned());
    assert_eq!(node_name(json!({"nodename": "n1", "hostname": "n2"})), given("n1"));
    assert_eq!(node_name(json!({"hostname": "n2"})), given("n2"));
    assert_eq!(node_name(json!({"nodename_file": "/n"})), NodeName::File("/n".into()));
    let optional = json!({"nodename_file": "/n", "nodename_file_optional": true});
    assert_eq!(node_name(optional), NodeName::Search(Some("/n".into())));
}

fn for_collection(json: Value) -> Result<NetworkConfiguration, Error> {
    let json = json.as_object().unwrap();
    NetworkConfiguration::for_collection("pods".to_owned(), SpecVersion::V1_1_0, json)
}

#[test]
fn a_collection_is_not_stopped_by_a_mistake_but_knows_its_host() {
    // The list means nothing to other commands.
    assert!(validate(json!({"cni.dev/valid-attachments": 3})).is_ok());
    let json = json!({
        "type": "weir", "mtu": "big", "log_level": "loud", "log_file_path": "here",
        "nodename": "n1", "ipam": {"type": "weir-ipam", "assign_ipv4": "maybe"},
    });
    let configuration = for_collection(json).unwrap();
    assert_eq!(configuration.node_name, Ok(NodeName::Given("n1".to_owned())));
    assert_eq!((configuration.main_plugin.as_str(), configuration.logging.file), ("weir", None));
    assert_eq!(configuration.valid_attachments, None);
    let node_name = for_collection(json!({"nodename": "a/b"})).unwrap().node_name;
    assert_eq!(node_name.unwrap_err().code, Code::InvalidConfiguration);
}

#[test]
fn log_files() {
    let log_file = |json| validate(json).unwrap().logging.file;
    let at =
        |path: &str, megabytes: u64| Some(LogFile { path: path.into(), max_size: megabytes << 20 });
    assert_eq!(
        log_file(json!({"log_file_path": "/var/log/weir.log"})),
        at("/var/log/weir.log", 100)
    );
    let json = json!({"log_file_path": "/l", "log_file_max_size": 3});
    assert_eq!(log_file(json), at("/l", 3));
    assert_eq!(log_file(json!({"log_file_path": ""})), None);
    // What removes keeps to the size too, unless it cannot be read.
    for (size, megabytes) in [(json!(3), 3), (json!("3"), 100), (json!(-1), 100)] {
        let json = json!({"log_file_path": "/l", "log_file_max_size": size});
        let removal = NetworkConfiguration::for_removal(
            "pods".to_owned(),
            SpecVersion::V1_0_0,
            json.as_object().unwrap(),
        );
        assert_eq!(removal.unwrap().logging.file, at("/l", megabytes));
        assert_eq!(for_collection(json).unwrap().logging.file, at("/l", megabytes));
    }
}

/// Neither by a plugin that attaches nor by one that removes.
#[test]
fn no_secret_is_ever_named() {
    let endpoints =
        ["root:pa55@h:2379", "ftp://root:pa55@h", "http://root:pa55@h", "http://root:pa55,x@h"];
    let endpoints = endpoints.iter().flat_map(|text| {
        [json!({"etcd_endpoints": text}), json!({"etcd_authority": text, "etcd_scheme": "x"})]
    });
    let passwords =
        [json!(1_355_001), json!(1355.5), json!(true), json!(["pa55"]), json!({"a": 1})];
    let passwords = passwords.into_iter().map(|it| json!({"etcd_password": it}));
    let service = json!({"etcd_discovery_srv": "http://root:pa55@h"});
    for json in endpoints.chain(passwords).chain([service]) {
        let object = json.as_object().unwrap();
        let removal =
            NetworkConfiguration::for_removal("pods".to_owned(), SpecVersion::V1_0_0, object);
        let removal = removal.and_then(|configuration| configuration.datastore.map(|_| ()));
        for outcome in [validate(json.clone()).map(|_| ()), removal] {
            let error = outcome.unwrap_err();
            let told = format!("{} {}", error.message, error.details);
            for secret in ["pa55", "root:", "355", "true"] {
                assert!(!told.contains(secret), "{json}: {told}");
            }
            assert!(told.contains("etcd_"), "the key is named: {told}");
        }
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (json, code, key, value) in [
        (json!({"mtu": 20}), Code::InvalidConfiguration, "mtu", "20"),
        (json!({"mtu": "big"}), Code::Decode, "mtu", "big"),
        (
            json!({"datastore_type": "kubernetes"}),
            Code::UnsupportedField,
            "datastore_type",
            "kubernetes",
        ),
        (json!({"datastore_type": "etcdv3"}), Code::InvalidConfiguration, "etcd_endpoints", ""),
        (
            json!({"etcd_endpoints": "host:1"}),
            Code::InvalidConfiguration,
            "etcd_endpoints",
            "host:1",
        ),
        (
            json!({"etcd_endpoints": "http://h:1", "etcd_username": "u", "etcd_password": ""}),
            Code::InvalidConfiguration,
            "etcd_password",
            "a user needs a password",
        ),
        (
            json!({"etcd_endpoints": "http://root:pw@host:2379"}),
            Code::InvalidConfiguration,
            "etcd_endpoints",
            "etcd_password",
        ),
        (json!({"log_file_path": "here"}), Code::InvalidConfiguration, "log_file_path", "here"),
        (json!({"datastore_path": "a.db"}), Code::InvalidConfiguration, "datastore_path", "a.db"),
        (
            json!({"ipam": {"type": "weir-ipam"}, "ipam_lock_file": "l"}),
            Code::InvalidConfiguration,
            "ipam_lock_file",
            "'/'",
        ),
        (json!({"nodename_file": "./n"}), Code::InvalidConfiguration, "nodename_file", "./n"),
        (json!({"etcd_ca_cert_file": "ca"}), Code::InvalidConfiguration, "etcd_ca_cert_file", "ca"),
        (json!({"etcd_cert_file": "c"}), Code::InvalidConfiguration, "etcd_cert_file", "c"),
        (json!({"etcd_key_file": "k"}), Code::InvalidConfiguration, "etcd_key_file", "k"),
        (
            json!({"etcd_discovery_srv": "x.org"}),
            Code::UnsupportedField,
            "etcd_discovery_srv",
            "x.org",
        ),
        (json!({"device_type": "netkit"}), Code::UnsupportedField, "device_type", "netkit"),
        (json!({"nodename": "a/b"}), Code::InvalidConfiguration, "nodename", "a/b"),
        (json!({"log_level": "loud"}), Code::InvalidConfiguration, "log_level", "loud"),
        (json!({"ipam": {"type": "../x"}}), Code::InvalidConfiguration, "ipam.type", "../x"),
        (
            json!({"ipam": {"type": "x", "assign_ipv4": "maybe"}}),
            Code::InvalidConfiguration,
            "ipam.assign_ipv4",
            "maybe",
        ),
        (
            json!({"ipam": {"type": "x", "assign_ipv4": "false"}}),
            Code::InvalidConfiguration,
            "ipam.assign_ipv4",
            "false",
        ),
        (
            json!({"ipam": {"type": "x", "subnet": "usePodCidr"}}),
            Code::InvalidConfiguration,
            "ipam.subnet",
            "usePodCidr",
        ),
        (
            json!({"ipam": {"type": "x", "gateways": ["10.7.0.1"]}}),
            Code::InvalidConfiguration,
            "ipam.gateways",
            "10.7.0.1",
        ),
        (
            json!({"ipam": {"type": "x"}, "runtimeConfig": {"ips": ["ten"]}}),
            Code::InvalidConfiguration,
            "runtimeConfig.ips",
            "ten",
        ),
    ] {
        let error = validate(json.clone()).unwrap_err();
        assert_eq!(error.code, code, "{json}: {error}");
        assert!(error.message.contains(key) && error.message.contains(value), "{error}");
    }
}

#[test]
fn prefixes_of_the_network_and_of_the_container_are_allowed_together() {
    let allowed = |check: &str, own: Value, asked: Value| {
        validate(json!({
            "source_check": check,
            "allowed_source_prefixes": own,
            "args": {"cni": {"allowed_source_prefixes": asked}},
        }))
    };
    let found = allowed("strict", json!(["10.9.0.0/24"]), json!(["fd00::7", "0.0.0.0/0"])).unwrap();
    let texts: Vec<String> = found.allowed_sources.iter().map(IpNet::to_string).collect();
    assert_eq!(texts, ["0.0.0.0/0", "10.9.0.0/24", "fd00::7/128"]);
    // Where any source may be given they say nothing more, but they are looked at.
    assert!(
        allowed("off", json!(["10.9.0.0/24"]), json!(null)).unwrap().allowed_sources.is_empty()
    );
    let many: Vec<String> = (0..65).map(|number| format!("10.9.0.{number}")).collect();
    let refused = [
        (
            json!(["10.9.0.0/33"]),
            json!([]),
            Code::InvalidConfiguration,
            "allowed_source_prefixes \"10.9.0.0/33\"",
        ),
        (
            json!([]),
            json!(["10.9.0.1/24"]),
            Code::InvalidConfiguration,
            "args.cni.allowed_source_prefixes \"10.9.0.1/24\" is invalid: write the range 10.9.0.0/24 or the address 10.9.0.1",
        ),
        (
            json!(many),
            json!([]),
            Code::InvalidConfiguration,
            "has 65 prefixes in all; write at most 64",
        ),
        (json!("10.9.0.0/24"), json!([]), Code::Decode, "allowed_source_prefixes"),
    ];
    for (own, asked, code, text) in refused {
        for check in ["strict", "off"] {
            let error = allowed(check, own.clone(), asked.clone()).unwrap_err();
            assert_eq!(error.code, code, "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}

fn of_plugin(main: &str, more: serde_json::Value) -> Map<String, Value> {
    let mut json = json!({"type": main, "ipam": {"type": "weir-ipam"}});
    let more = more.as_object().unwrap().clone();
    json.as_object_mut().unwrap().extend(more);
    json.as_object().unwrap().clone()
}

fn validated(json: &Map<String, Value>) -> Result<NetworkConfiguration, Error> {
    let arguments = Arguments::default();
    NetworkConfiguration::validate("pods".into(), SpecVersion::V1_0_0, json, &arguments)
}

#[test]
fn a_misspelt_key_is_refused_with_the_one_that_was_meant() {
    let url = "http://h:1";
    let misspelt = [
        (json!({"etcd_endpoint": url}), "etcd_endpoints"),
        (json!({"etcdEndpoints": url}), "etcd_endpoints"),
        (json!({"ETCD_ENDPOINTS": url}), "etcd_endpoints"),
        (json!({"etcdCaCertFile": "/ca"}), "etcd_ca_cert_file"),
        (json!({"etcd_passworx": "pa55"}), "etcd_password"),
        (json!({"datastoreType": "etcdv3"}), "datastore_type"),
        (json!({"ipam": {"type": "weir-ipam", "etcd_endpoints": url}}), "etcd_endpoints"),
    ];
    for (more, meant) in misspelt {
        for main in ["weir", "ptp"] {
            let json = of_plugin(main, more.clone());
            let error = validated(&json).unwrap_err();
            assert_eq!(error.code, Code::InvalidConfiguration, "{more}");
            assert!(error.message.contains(&format!("write \"{meant}\"")), "{error}");
            assert!(!error.message.contains("pa55"), "{error}");
            let removal = NetworkConfiguration::for_removal("n".into(), SpecVersion::V1_0_0, &json);
            assert_eq!(removal.unwrap().datastore.unwrap_err(), error);
        }
    }
    // Those of another main plugin are its own.
    let of_weir = [
        json!({"mtus": 1400}),
        json!({"nodeName": "n"}),
        json!({"sourceCheck": "off"}),
        json!({"container_settings": {"allowIPForwarding": true}}),
        json!({"ipam": {"type": "weir-ipam", "ipv4_pool": ["blue"]}}),
    ];
    for more in of_weir {
        assert!(validated(&of_plugin("weir", more.clone())).is_err(), "{more}");
        let removal = NetworkConfiguration::for_removal(
            "n".into(),
            SpecVersion::V1_0_0,
            &of_plugin("weir", more),
        );
        assert!(removal.unwrap().datastore.is_ok());
    }
    let json = of_plugin("sriov", json!({"logLevel": "debug", "vlan": 5, "mtus": 1}));
    assert_eq!(validated(&json).unwrap().without_meaning, [""; 0]);
}

/// Calico's `types.go`, libcni's and Multus's: none of them is ever taken for a slip.
#[test]
fn keys_of_others_are_known_and_foreign_ones_are_named() {
    let known = [
        "cniVersion",
        "name",
        "mode",
        "vxlan_mac_prefix",
        "vxlan_vni",
        "args",
        "num_queues",
        "nodename_file_optional",
        "etcd_discovery_srv",
        "log_file_max_age",
        "log_file_max_count",
        "policy",
        "kubernetes",
        "feature_control",
        "etcd_scheme",
        "dataplane_options",
        "qps",
        "burst",
        "windows_pod_deletion_timestamp_timeout",
        "windows_use_single_network",
        "windows_disable_default_deny_all_policy",
        "windows_loopback_DSR",
        "readiness_gates",
        "policy_setup_timeout_seconds",
        "endpoint_status_dir",
        "etcd_authority",
        "hostname",
        "require_mtu_file",
        "calico_api_group",
        "capabilities",
        "runtimeConfig",
        "RuntimeConfig",
        "prevResult",
        "dns",
        "disableCheck",
        "disableGC",
        "loadOnlyInlinedPlugins",
        "cniVersions",
        "cni.dev/valid-attachments",
        "cni.dev/attachments",
        "deviceID",
        "pciBusID",
        "resourceName",
        "logLevel",
        "logFile",
        "ifnameRequest",
        "ipRequest",
    ];
    for key in known {
        let json = of_plugin("weir", json!({key: null}));
        let refused = validated(&json).err().map(|it| it.message);
        assert!(refused.is_none_or(|message| !message.contains("unknown")), "{key}");
    }
    let ipam = json!({"type": "weir-ipam", "name": "x", "ip_pools_label_selector_keys": []});
    let json = of_plugin("weir", json!({"ipam": ipam, "colour": "blue", "policy": {}}));
    assert_eq!(validated(&json).unwrap().without_meaning, ["colour", "policy"]);
    let ipam = json!({"type": "weir-ipam", "ip_pools_label_selector_keys": ["zone"]});
    let refused = validated(&of_plugin("weir", json!({ "ipam": ipam }))).unwrap_err();
    assert_eq!(refused.code, Code::UnsupportedField);
    assert!(refused.message.contains("ip_pools_label_selector_keys"), "{}", refused.message);
}

/// GC of such a network would take the links and addresses of Docker's containers away.
#[test]
fn dockers_name_is_refused_but_for_removal() {
    let (version, name) = (SpecVersion::V1_1_0, "docker".to_owned());
    let json = Map::new();
    let arguments = Arguments::default();
    let refused = NetworkConfiguration::validate(name.clone(), version, &json, &arguments);
    let collection = NetworkConfiguration::for_collection(name.clone(), version, &json);
    for error in [refused.unwrap_err(), collection.unwrap_err()] {
        assert_eq!(error.code, Code::InvalidConfiguration);
        assert!(error.to_string().contains("give the network another one"), "{error}");
    }
    assert!(NetworkConfiguration::for_removal(name, version, &json).is_ok());
}
