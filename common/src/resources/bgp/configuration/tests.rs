use super::*;

fn object(name: &str, spec: &Value) -> Map<String, Value> {
    let value = json!({"metadata": {"name": name}, "spec": spec});
    value.as_object().unwrap().clone()
}

fn read(spec: &Value) -> Result<BgpConfiguration, Error> {
    BgpConfiguration::from_object(&object("default", spec))
}

#[test]
fn all_fields_are_read() {
    let value = json!({
        "metadata": {"name": "default", "annotations": {
            "weir/bfd": "300ms*3", "weir/re-export": "true"
        }},
        "spec": {
            "logSeverityScreen": "Warning", "nodeToNodeMeshEnabled": true, "asNumber": "1.10",
            "listenPort": 1790, "bindMode": "NodeIP",
            "nodeMeshPassword": {"secretKeyRef": {"name": "bgp", "key": "mesh"}},
            "nodeMeshMaxRestartTime": "2m0s", "ignoredInterfaces": ["docker0", "eth*.1"],
            "communities": [{"name": "wan", "value": "64512:120"}],
            "prefixAdvertisements": [
                {"cidr": "10.244.0.1/16", "communities": ["wan", "64512:1:2"]}
            ],
            "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}], "serviceExternalIPs": [],
            "serviceLoadBalancerAggregation": "Enabled", "localWorkloadPeeringIPV4": "",
            "ipv4NormalRoutePriority": 1024, "programClusterRoutes": "Disabled", "later": 1
        }
    });
    let expected = BgpConfiguration {
        log_severity: Some(LogSeverity::Warning),
        node_to_node_mesh: Some(true),
        as_number: Some(65546),
        listen_port: Some(1790),
        binds_to_node_address: Some(true),
        mesh_password: Some(SecretReference { name: "bgp".into(), key: "mesh".into() }),
        mesh_restart_time: Some(120),
        ignored_interfaces: vec!["docker0".into(), "eth*.1".into()],
        prefix_advertisements: vec![PrefixAdvertisement {
            cidr: "10.244.0.0/16".parse().unwrap(),
            communities: vec![Community::Standard(64512, 120), Community::Large(64512, 1, 2)],
        }],
        bfd: Some(Bfd { interval: 300, multiplier: 3 }),
        re_exports: true,
        leaves_cluster_routes: true,
        not_served: vec!["serviceClusterIPs".into()],
    };
    assert_eq!(BgpConfiguration::from_json(value.to_string().as_bytes()).unwrap(), expected);
    assert_eq!(read(&json!({"listenPort": 0})).unwrap(), BgpConfiguration::default());
}

#[test]
fn what_bird_cannot_do_is_reported() {
    for (word, is_reported) in
        [("Enabled", true), ("EnabledIPIPOnly", true), ("EnabledNoEncapOnly", false)]
    {
        let configuration = read(&json!({"programClusterRoutes": word})).unwrap();
        assert!(!configuration.leaves_cluster_routes);
        assert_eq!(configuration.not_served == ["programClusterRoutes"], is_reported, "{word}");
    }
}

/// Calico's client refuses it, its daemons pass over it.
#[test]
fn what_is_of_the_cluster_is_refused_of_a_node_and_passed_over_in_a_store() {
    let spec = json!({
        "asNumber": 1, "nodeToNodeMeshEnabled": false, "listenPort": 1790,
        "nodeMeshMaxRestartTime": "1s", "serviceClusterIPs": [{"cidr": "10.96.0.0/12"}],
        "serviceExternalIPs": []
    });
    let object = object("node.n1", &spec);
    let read = BgpConfiguration::from_object(&object).unwrap();
    let expected = BgpConfiguration { listen_port: Some(1790), ..BgpConfiguration::default() };
    assert_eq!(read, expected);
    let error = check_written(&object).unwrap_err().to_string();
    for field in
        ["ASNumber", "NodeToNodeMeshEnabled", "NodeMeshMaxRestartTime", "ServiceClusterIPs"]
    {
        let problem = format!("BGPConfiguration.Spec.{field} (is of the whole cluster");
        assert!(error.contains(&problem), "{field}: {error}");
    }
    assert_eq!(error.matches("whole cluster").count(), 4, "{error}");
}

#[test]
fn its_names_are_two() {
    for (name, is_good) in
        [("default", true), ("node.n1.example", true), ("node.", false), ("n1", false)]
    {
        let read = BgpConfiguration::from_object(&object(name, &json!({})));
        assert_eq!(read.is_ok(), is_good, "{name}: {read:?}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let reference = |name: &str, key: &str| json!({"nodeMeshPassword": {"secretKeyRef": {"name": name, "key": key}}});
    let named = |value: &str| {
        json!({"communities": [{"name": "a", "value": value}],
            "prefixAdvertisements": [{"cidr": "10.0.0.0/8", "communities": ["a"]}]})
    };
    let announced = |cidr: &str, community: &str| json!({"prefixAdvertisements": [{"cidr": cidr, "communities": [community]}]});
    let cases = [
        (json!({"logSeverityScreen": "info"}), "LogSeverityScreen"),
        (json!({"nodeToNodeMeshEnabled": "on"}), "NodeToNodeMeshEnabled"),
        (json!({"asNumber": 0}), "ASNumber"),
        (json!({"asNumber": "x"}), "ASNumber"),
        (json!({"listenPort": 65_536}), "ListenPort"),
        (json!({"bindMode": "Node"}), "BindMode"),
        (json!({"programClusterRoutes": "No"}), "ProgramClusterRoutes"),
        (
            json!({"nodeMeshPassword": {"secretKeyRef": {"name": "a"}}}),
            "NodeMeshPassword.SecretKeyRef.Key",
        ),
        (reference("..", "a"), "NodeMeshPassword.SecretKeyRef.Name"),
        (reference("a/b", "a"), "NodeMeshPassword.SecretKeyRef.Name"),
        (reference("a", "../b"), "NodeMeshPassword.SecretKeyRef.Key"),
        (reference("a", "."), "NodeMeshPassword.SecretKeyRef.Key"),
        (json!({"nodeMeshMaxRestartTime": "1m0.5s"}), "NodeMeshMaxRestartTime"),
        (json!({"nodeMeshMaxRestartTime": "120"}), "NodeMeshMaxRestartTime"),
        (json!({"nodeMeshMaxRestartTime": "2 minutes"}), "NodeMeshMaxRestartTime"),
        (json!({"nodeMeshMaxRestartTime": "PT2M"}), "NodeMeshMaxRestartTime"),
        (json!({"nodeMeshMaxRestartTime": "-2m"}), "NodeMeshMaxRestartTime"),
        (json!({"nodeMeshMaxRestartTime": "4096s"}), "NodeMeshMaxRestartTime"),
        (
            json!({"nodeToNodeMeshEnabled": false, "nodeMeshMaxRestartTime": "2m"}),
            "NodeMeshMaxRestartTime",
        ),
        (
            json!({"nodeToNodeMeshEnabled": false,
                "nodeMeshPassword": {"secretKeyRef": {"name": "a", "key": "b"}}}),
            "NodeMeshPassword",
        ),
        (json!({"ignoredInterfaces": ["eth0\""]}), "IgnoredInterfaces"),
        (json!({"ignoredInterfaces": [""]}), "IgnoredInterfaces"),
        (json!({"ignoredInterfaces": ["sixteen-letters-"]}), "IgnoredInterfaces"),
        (json!({"communities": [{"name": "a", "value": "1:2"}]}), "Communities"),
        (named("65536:1"), "Communities[0].Value"),
        (announced("10.0.0.0/33", "1:2"), "PrefixAdvertisements[0].CIDR"),
        (announced("", "1:2"), "PrefixAdvertisements[0].CIDR"),
        (announced("10.0.0.0/8", "wan"), "PrefixAdvertisements[0].Communities"),
        (announced("10.0.0.0/8", "1:2:3:4"), "PrefixAdvertisements[0].Communities"),
        (
            json!({"prefixAdvertisements": [{"cidr": "10.0.0.0/8"}]}),
            "PrefixAdvertisements[0].Communities",
        ),
        (json!({"serviceClusterIPs": [{"cidr": "10.96"}]}), "ServiceClusterIPs[0].CIDR"),
    ];
    for (spec, field) in cases {
        let error = read(&spec).expect_err(&spec.to_string()).to_string();
        let expected = format!("BGPConfiguration.Spec.{field} ");
        assert!(error.contains(&expected), "{spec}: {error}");
    }
    for (annotation, value) in
        [("weir/bfd", "300*3"), ("weir/bfd", "1ms*3"), ("weir/re-export", "yes")]
    {
        let value = json!({"metadata": {"name": "default", "annotations": {annotation: value}}});
        let error = BgpConfiguration::from_object(value.as_object().unwrap()).unwrap_err();
        let expected = format!("Metadata.Annotations.{annotation} = ");
        assert!(error.to_string().contains(&expected), "{error}");
    }
}
