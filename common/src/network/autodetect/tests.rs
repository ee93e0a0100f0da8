use proptest::prelude::*;

use super::*;

fn interface(name: &str, addresses: &[&str]) -> NodeInterface {
    NodeInterface::up(name, addresses)
}

fn down(interface: NodeInterface) -> NodeInterface {
    NodeInterface { up: false, ..interface }
}

/// A node with two uplinks and what usually is beside them.
fn node() -> Vec<NodeInterface> {
    vec![
        interface("lo", &["127.0.0.1/8", "::1/128"]),
        interface("eth0", &["172.16.1.11/24", "fe80::1/64", "2001:db8::1/64"]),
        interface("eth1", &["169.254.7.7/16", "10.9.0.11/16", "10.9.0.12/16"]),
        down(interface("eth2", &["10.10.0.11/16"])),
        interface("docker0", &["172.17.0.1/16"]),
        interface("tunl0", &["10.253.0.1/32"]),
        interface("weir84bd87e317f", &[]),
    ]
}

fn method(text: &str) -> AutodetectionMethod {
    text.parse().unwrap_or_else(|error: InvalidMethod| panic!("{error}"))
}

fn found(text: &str, family: Family) -> String {
    let source = text.starts_with("can-reach").then(|| "10.9.0.12".parse().unwrap());
    match method(text).detect(family, &node(), source) {
        Ok(found) => format!("{} {}", found.address, found.interface.unwrap_or_default()),
        Err(error) => error.to_string(),
    }
}

/// What comes after the uplink is not the node's for that: the default route's link is, whatever
/// else there is.
#[test]
fn the_link_of_the_default_route_comes_first() {
    let uplink = interface("ens3", &["172.16.1.11/24"]);
    let interfaces = [uplink.clone(), interface("ens4", &["10.9.0.12/24"])];
    let found = |text: &str, source: Option<&str>| {
        let source = source.map(|source| source.parse().unwrap());
        method(text).detect(Family::V4, &interfaces, source).unwrap().address.to_string()
    };
    assert_eq!(found("first-found", Some("172.16.1.11")), "172.16.1.11/24");
    assert_eq!(found("first-found", None), "10.9.0.12/24");
    assert_eq!(found("skip-interface=eth.*", Some("172.16.1.11")), "172.16.1.11/24");
    assert_eq!(found("interface=ens4", Some("172.16.1.11")), "10.9.0.12/24");
}

/// Whatever their names: tailscale0, nebula1, zt7nnig26, vnet0, nerdctl0, incusbr0, kube-bridge.
#[test]
fn tunnels_and_bridges_of_containers_are_not_the_nodes() {
    let uplink = interface("ens3", &["172.16.1.11/24"]);
    let tunnel = NodeInterface { is_virtual: true, ..interface("tailscale0", &["100.64.0.7/32"]) };
    let interfaces = [uplink, tunnel.clone()];
    // Not even where the default route leads there.
    let source = Some("100.64.0.7".parse().unwrap());
    let found = method("first-found").detect(Family::V4, &interfaces, source).unwrap();
    assert_eq!(found.address.to_string(), "172.16.1.11/24");
    let named = method("interface=tailscale0").detect(Family::V4, &interfaces, None).unwrap();
    assert_eq!(named.address.to_string(), "100.64.0.7/32");
    let none =
        method("first-found").detect(Family::V4, std::slice::from_ref(&tunnel), None).unwrap_err();
    assert!(none.to_string().contains("tailscale0 (a tunnel, or a bridge"), "{none}");
    // A node that is registered with it stays so.
    let kept = method("first-found").keep("100.64.0.7".parse().unwrap(), &[tunnel], None);
    assert!(kept.is_some());
}

/// Programs make these whenever they like, after the uplink.
#[test]
fn interfaces_of_containers_and_tunnels_are_none_to_be_found_first() {
    for name in [
        "br-0123456789ab",
        "podman1",
        "wg0",
        "docker0",
        "cbr0",
        "dummy0",
        "virbr0",
        "lxcbr0",
        "veth1a2b",
        "cali1",
        "flannel.1",
        "kube-ipvs0",
        "cni0",
        "vxlan.calico",
    ] {
        let uplink = interface("eth0", &["172.16.1.11/24"]);
        let interfaces = [uplink.clone(), interface(name, &["172.18.0.1/16"])];
        let found = method("first-found").detect(Family::V4, &interfaces, None);
        assert_eq!(found.unwrap().interface.as_deref(), Some("eth0"), "{name}");
    }
    // A bridge that somebody made for the uplink.
    let bridge = [interface("br-uplink", &["172.16.1.11/24"])];
    assert!(method("first-found").detect(Family::V4, &bridge, None).is_ok());
}

#[test]
fn each_method_finds_its_address() {
    let cases = [
        // As Calico, from the last interface to the first.
        ("first-found", "10.9.0.11/16 eth1"),
        ("skip-interface=eth1", "172.16.1.11/24 eth0"),
        ("skip-interface=^en, th1$", "172.16.1.11/24 eth0"),
        ("interface=eth0,eth1", "10.9.0.11/16 eth1"),
        ("interface=^eth0$", "172.16.1.11/24 eth0"),
        ("interface=docker.*", "172.17.0.1/16 docker0"),
        ("interface=\\w+0", "10.253.0.1/32 tunl0"),
        ("cidr=172.16.0.0/13", "172.17.0.1/16 docker0"),
        ("cidr=10.9.0.12/32,192.0.2.0/24", "10.9.0.12/16 eth1"),
        ("can-reach=192.0.2.1", "10.9.0.12/16 eth1"),
        ("172.16.1.11", "172.16.1.11/24 eth0"),
        ("172.16.1.11/20", "172.16.1.11/20 eth0"),
        ("10.10.0.11", "10.10.0.11/16 eth2"),
        ("192.0.2.7", "192.0.2.7/32 "),
        ("192.0.2.7/24", "192.0.2.7/24 "),
    ];
    for (text, expected) in cases {
        assert_eq!(found(text, Family::V4), expected, "{text}");
    }
    assert_eq!(found("first-found", Family::V6), "2001:db8::1/64 eth0");
    assert_eq!(found("interface=eth", Family::V6), "2001:db8::1/64 eth0");
}

#[test]
fn what_is_not_found_says_what_was_looked_at() {
    assert_eq!(
        found("skip-interface=eth", Family::V4),
        "skip-interface=eth finds no IPv4 address for this node; looked at: weir84bd87e317f \
         (excluded by its name), tunl0 (excluded by its name), docker0 (excluded by its name), \
         eth2 (down), eth1 (excluded by its name), eth0 (excluded by its name), lo (excluded by \
         its name); choose by interface=NAME, cidr=CIDR or can-reach=ADDRESS, or give the address \
         itself"
    );
    let looked_at = found("interface=eth1", Family::V6);
    assert!(looked_at.contains("eth1 (169.254.7.7/16, 10.9.0.11/16, 10.9.0.12/16)"), "{looked_at}");
    assert!(looked_at.contains("eth0 (not asked for)"), "{looked_at}");
    let other_family = found("172.16.1.11", Family::V6);
    assert!(other_family.contains("172.16.1.11 finds no IPv6 address"), "{other_family}");
    let nothing = method("first-found").detect(Family::V4, &[], None).unwrap_err().to_string();
    assert!(nothing.contains("looked at: no interface;"), "{nothing}");
    let no_way = method("can-reach=192.0.2.1").detect(Family::V4, &node(), None);
    assert!(no_way.is_err(), "{no_way:?}");
}

#[test]
fn an_address_without_a_subnet_is_warned_about() {
    let warning = |text: &str| method(text).detect(Family::V4, &node(), None).unwrap().warning();
    assert_eq!(warning("first-found"), None);
    let alone = warning("interface=tunl0").unwrap();
    assert!(alone.contains("10.253.0.1 on tunl0 has the prefix length 32"), "{alone}");
    assert!(alone.contains("cross-subnet pools tunnel to all of them"), "{alone}");
    let foreign = warning("192.0.2.7").unwrap();
    assert!(foreign.contains("192.0.2.7 is on no interface of this node"), "{foreign}");
    let six = method("2001:db8::9").detect(Family::V6, &node(), None).unwrap();
    assert_eq!((six.address.prefix_len(), six.warning()), (128, None));
}

#[test]
fn what_is_no_method_says_what_to_write() {
    let cases = [
        ("", "write first-found, can-reach=ADDRESS"),
        ("eth0", "write first-found"),
        ("autodetect=yes", "there is no method autodetect"),
        ("can-reach=www.example.org", "names are not looked up, write can-reach=192.0.2.1"),
        ("interface=", "a name is missing"),
        ("skip-interface=eth0,", "a name is missing"),
        ("interface=eth(", "\"eth(\" is not a regular expression"),
        ("cidr=172.16.0.0", "write cidr=172.16.0.0/16"),
        ("kubernetes-internal-ip", "Weir does not ask Kubernetes"),
        ("127.0.0.1/8", "other nodes cannot reach 127.0.0.1"),
        ("fe80::1", "other nodes cannot reach fe80::1"),
        ("172.16.1.11/33", "write first-found"),
    ];
    for (text, reason) in cases {
        let error = text.parse::<AutodetectionMethod>().unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains(&format!("{text:?}")), "{error}");
    }
}

fn any_address() -> impl Strategy<Value = IpNet> {
    prop_oneof![
        (any::<u32>(), 0u8..=32)
            .prop_map(|(bits, length)| { IpNet::new(IpAddr::V4(bits.into()), length).unwrap() }),
        (any::<u128>(), 0u8..=128)
            .prop_map(|(bits, length)| { IpNet::new(IpAddr::V6(bits.into()), length).unwrap() }),
        Just("127.0.0.1/8".parse().unwrap()),
        Just("fe80::7/64".parse().unwrap()),
        Just("172.16.1.11/24".parse().unwrap()),
    ]
}

fn any_interface() -> impl Strategy<Value = NodeInterface> {
    let name = prop_oneof![
        Just("lo"),
        Just("eth0"),
        Just("eth1"),
        Just("docker0"),
        Just("tunl0"),
        Just("weir1"),
    ];
    let addresses = || prop::collection::vec(any_address(), 0..4);
    (name, any::<bool>(), addresses(), addresses()).prop_map(|(name, up, addresses, deprecated)| {
        NodeInterface { name: name.to_owned(), up, is_virtual: false, addresses, deprecated }
    })
}

fn any_method() -> impl Strategy<Value = String> {
    let given = any_address().prop_filter("refused", |it| is_global_unicast(it.addr()));
    prop_oneof![
        Just("first-found".to_owned()),
        prop::sample::select(vec!["interface=eth0", "interface=^w,lo", "skip-interface=eth[01]"])
            .prop_map(str::to_owned),
        any_address().prop_map(|range| format!("cidr={range}")),
        any_address().prop_map(|address| format!("can-reach={}", address.addr())),
        given.prop_map(|address| address.to_string()),
    ]
}

proptest! {
    #[test]
    fn methods_are_read_as_written(text in any_method()) {
        prop_assert_eq!(method(&text).to_string(), text);
    }

    #[test]
    fn only_a_usable_address_is_found(
        text in any_method(),
        interfaces in prop::collection::vec(any_interface(), 0..5),
        ipv4 in any::<bool>(),
    ) {
        let family = if ipv4 { Family::V4 } else { Family::V6 };
        let method = method(&text);
        let source = interfaces.iter().flat_map(|it| &it.addresses).map(IpNet::addr).next();
        let usable = |interface: &NodeInterface, address: &IpNet| {
            interface.up && Family::of(address.addr()) == family
                && is_global_unicast(address.addr())
        };
        match method.detect(family, &interfaces, source) {
            Ok(found) => {
                prop_assert_eq!(Family::of(found.address.addr()), family);
                prop_assert!(is_global_unicast(found.address.addr()));
                if !matches!(method, AutodetectionMethod::Address(..)) {
                    let holds = |interface: &NodeInterface| {
                        Some(&interface.name) == found.interface.as_ref()
                            && interface.addresses.contains(&found.address)
                            && usable(interface, &found.address)
                    };
                    prop_assert!(interfaces.iter().any(holds));
                }
            }
            Err(error) => {
                prop_assert_eq!(error.looked_at.len(), interfaces.len());
                if let AutodetectionMethod::FirstFound = method {
                    let missed = interfaces.iter().any(|interface| {
                        interface.name.starts_with("eth")
                            && interface.addresses.iter().any(|it| usable(interface, it))
                    });
                    prop_assert!(!missed, "{}", error);
                }
            }
        }
    }
}
