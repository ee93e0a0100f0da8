use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn link(name: &str, addresses: &[&str]) -> NodeInterface {
    NodeInterface::up(name, addresses)
}

fn down(link: NodeInterface) -> NodeInterface {
    NodeInterface { up: false, ..link }
}

fn address(method: &str, keeps_registered: bool) -> OwnAddress {
    let detection = Detection { method: method.parse().unwrap(), keeps_registered };
    OwnAddress::new(Family::V4, detection, true)
}

fn by_default() -> OwnAddress {
    address("first-found", true)
}

fn v6(method: &str) -> OwnAddress {
    OwnAddress { family: Family::V6, ..address(method, false) }
}

/// What is decided, in short.
fn decide(own: &mut OwnAddress, registered: &str, links: &[NodeInterface], now: u64) -> String {
    let registered = (!registered.is_empty()).then(|| net(registered));
    match own.decide(registered, links, None, seconds(now)) {
        Ok(AddressDecision::Keep(address)) => format!("stays {address}"),
        Ok(AddressDecision::Register(found)) => format!("register {}", found.address),
        Ok(AddressDecision::Contested { registered, own }) => {
            format!("{registered} instead of {own}")
        }
        Ok(AddressDecision::Unsteady(until)) => format!("unsteady {}", until.as_secs()),
        Ok(AddressDecision::Gone { next, until, .. }) => {
            format!("gone {} {}", next.address, until.as_secs())
        }
        Err(_) => "nothing".to_owned(),
    }
}

/// A node with two links; `second` is what `first-found` would find.
fn two() -> [NodeInterface; 2] {
    [link("eth0", &["172.16.1.1/24"]), link("eth1", &["192.168.7.1/24"])]
}

#[test]
fn a_lost_address_comes_back_and_another_one_is_left_alone() {
    for method in [by_default(), address("first-found", false), address("172.16.1.1/24", false)] {
        let mut own = method;
        assert_eq!(decide(&mut own, "172.16.1.1/24", &two(), 0), "stays 172.16.1.1/24");
        assert_eq!(decide(&mut own, "", &two(), 1), "register 172.16.1.1/24");
        for other in ["172.16.1.9/24", "127.0.0.1/8"] {
            let told = format!("{other} instead of 172.16.1.1/24");
            assert_eq!(decide(&mut own, other, &two(), 2), told);
            assert_eq!(decide(&mut own, other, &two(), 999), told);
        }
        assert_eq!(decide(&mut own, "172.16.1.1/24", &two(), 1000), "stays 172.16.1.1/24");
        // What a restored datastore says is older than what is known here.
        own.datastore_went_back();
        assert_eq!(decide(&mut own, "172.16.1.9/24", &two(), 1001), "register 172.16.1.1/24");
    }
}

#[test]
fn an_edit_to_another_address_of_the_node_stays_unless_one_was_given() {
    let mut own = by_default();
    decide(&mut own, "172.16.1.1/24", &two(), 0);
    assert_eq!(decide(&mut own, "192.168.7.1/20", &two(), 1), "stays 192.168.7.1/20");
    assert_eq!(decide(&mut own, "", &two(), 2), "register 192.168.7.1/20");
    for method in ["interface=eth0", "172.16.1.1"] {
        let mut own = address(method, false);
        decide(&mut own, "172.16.1.1/24", &two(), 0);
        let told = "192.168.7.1/24 instead of 172.16.1.1/24";
        assert_eq!(decide(&mut own, "192.168.7.1/24", &two(), 1), told);
        let mut own = address(method, false);
        assert_eq!(decide(&mut own, "192.168.7.1/24", &two(), 1), "register 172.16.1.1/24");
    }
}

#[test]
fn a_link_that_is_down_moves_no_node() {
    for method in ["first-found", "interface=eth", "cidr=172.16.0.0/12,192.168.0.0/16"] {
        for keeps in [true, false] {
            let mut own = address(method, keeps);
            let [first, second] = two();
            let links = [down(first), second];
            assert_eq!(decide(&mut own, "172.16.1.1/24", &links, 0), "stays 172.16.1.1/24");
            assert_eq!(decide(&mut own, "172.16.1.1/24", &links, 999), "stays 172.16.1.1/24");
        }
    }
}

#[test]
fn an_address_that_is_gone_has_a_minute_to_come_back() {
    for method in [by_default(), address("first-found", false)] {
        let mut own = method;
        decide(&mut own, "172.16.1.1/24", &two(), 0);
        let [_, second] = two();
        let links = [link("eth0", &[]), second];
        assert_eq!(decide(&mut own, "172.16.1.1/24", &links, 5), "gone 192.168.7.1/24 65");
        assert_eq!(decide(&mut own, "172.16.1.1/24", &links, 64), "gone 192.168.7.1/24 65");
        let mut back = own.clone();
        assert_eq!(decide(&mut back, "172.16.1.1/24", &two(), 64), "stays 172.16.1.1/24");
        assert_eq!(decide(&mut back, "172.16.1.1/24", &links, 70), "gone 192.168.7.1/24 130");
        assert_eq!(decide(&mut own, "172.16.1.1/24", &links, 65), "register 192.168.7.1/24");
    }
    let mut named = address("interface=eth0", false);
    decide(&mut named, "172.16.1.1/24", &two(), 0);
    let links = [link("eth0", &[]), link("eth1", &["192.168.7.1/24"])];
    assert_eq!(decide(&mut named, "172.16.1.1/24", &links, 999), "nothing");
}

/// The write of the second decision fails, or the datastore has not told of it yet.
#[test]
fn what_this_machine_wrote_itself_is_not_contested() {
    let mut own = by_default();
    decide(&mut own, "172.16.1.1/24", &two(), 0);
    let [first, second] = two();
    let only_second = [link("eth0", &[]), second];
    decide(&mut own, "172.16.1.1/24", &only_second, 5);
    let register = "register 192.168.7.1/24";
    assert_eq!(decide(&mut own, "172.16.1.1/24", &only_second, 65), register);
    let only_first = [first, link("eth1", &[])];
    for now in [66, 67] {
        let decided = decide(&mut own, "192.168.7.1/24", &only_first, now);
        assert_eq!(decided, "register 172.16.1.1/24");
    }
}

#[test]
fn an_address_that_follows_on_the_same_link_is_soon_taken() {
    let mut own = by_default();
    decide(&mut own, "172.16.1.1/24", &two(), 0);
    let links = [link("eth1", &["192.168.7.1/24"]), link("eth0", &["10.0.0.5/16"])];
    assert_eq!(decide(&mut own, "172.16.1.1/24", &links, 5), "unsteady 8");
    assert_eq!(decide(&mut own, "172.16.1.1/24", &links, 8), "register 10.0.0.5/16");
    // Of another link in the same subnet it does not follow.
    let links = [link("eth0", &[]), link("eth1", &["172.16.1.2/24"])];
    assert_eq!(decide(&mut own, "172.16.1.1/24", &links, 9), "gone 172.16.1.2/24 65");
}

/// The agent starts after a reboot, before the first link is up.
#[test]
fn at_the_start_the_same_subnet_tells_what_follows() {
    let links = [link("eth1", &["192.168.7.1/24"])];
    assert_eq!(decide(&mut by_default(), "172.16.1.1/24", &links, 7), "gone 192.168.7.1/24 67");
    let moved = [link("eth0", &["172.16.1.2/24"])];
    assert_eq!(decide(&mut by_default(), "172.16.1.1/24", &moved, 7), "register 172.16.1.2/24");
    assert_eq!(decide(&mut by_default(), "", &links, 7), "register 192.168.7.1/24");
    let mut once = OwnAddress { is_patient: false, ..by_default() };
    assert_eq!(decide(&mut once, "172.16.1.1/24", &links, 7), "register 192.168.7.1/24");
}

#[test]
fn addresses_of_services_take_no_nodes_place() {
    let with = |addresses: &[&str], deprecated: &[&str]| {
        let deprecated = deprecated.iter().map(|address| net(address)).collect();
        [NodeInterface { deprecated, ..link("eth0", addresses) }]
    };
    for method in ["first-found", "interface=eth0", "cidr=fd00::/16", "skip-interface=eth7"] {
        let mut own = v6(method);
        // The kernel lists the newest first.
        let links = with(&["fd00::100/64", "fd00::1/64"], &["fd00::200/128"]);
        assert_eq!(decide(&mut own, "fd00::1/64", &links, 0), "stays fd00::1/64");
        let links = with(&["fd00::300/128", "fd00::1/64"], &["fd00::200/64"]);
        assert_eq!(decide(&mut v6(method), "", &links, 0), "register fd00::1/64");
        // What is going away stays until there is something else.
        let links = with(&[], &["fd00::1/64"]);
        assert_eq!(decide(&mut own, "fd00::1/64", &links, 1), "stays fd00::1/64");
        assert_eq!(decide(&mut v6(method), "", &links, 1), "nothing");
        let links = with(&["fd00:1::1/64"], &["fd00::1/64"]);
        decide(&mut own, "fd00::1/64", &links, 2);
        if method != "cidr=fd00::/16" {
            assert_eq!(decide(&mut own, "fd00::1/64", &links, 5), "register fd00:1::1/64");
        }
    }
    let alone = with(&["fd00::9/128"], &[]);
    assert_eq!(decide(&mut v6("first-found"), "", &alone, 0), "register fd00::9/128");
}

#[test]
fn who_reaches_by_a_link_keeps_its_address_there() {
    let links = [link("eth0", &["fd00::100/64", "fd00::1/64"]), link("eth1", &["fd01::1/64"])];
    let mut own = v6("can-reach=fd00::9");
    let mut by = |source: Option<&str>| {
        let source = source.map(|source| source.parse().unwrap());
        own.decide(Some(net("fd00::1/64")), &links, source, seconds(0)).unwrap()
    };
    assert_eq!(by(Some("fd00::100")), AddressDecision::Keep(net("fd00::1/64")));
    assert_eq!(by(None), AddressDecision::Keep(net("fd00::1/64")));
    assert_eq!(by(Some("fd01::1")), AddressDecision::Unsteady(seconds(3)));
}

fn links() -> impl Strategy<Value = Vec<NodeInterface>> {
    let names = prop::sample::subsequence(vec!["eth0", "eth1", "docker0", "ens3"], 0..=4);
    names.prop_flat_map(|names| {
        let one = |name: &'static str| {
            (any::<bool>(), prop::collection::vec(0u8..6, 0..3)).prop_map(move |(up, hosts)| {
                let address = |host: u8| net(&format!("10.0.{}.{host}/24", host % 2));
                let addresses = hosts.into_iter().map(address).collect();
                NodeInterface { up, addresses, ..link(name, &[]) }
            })
        };
        names.into_iter().map(one).collect::<Vec<_>>()
    })
}

fn methods() -> impl Strategy<Value = OwnAddress> {
    let methods = vec!["first-found", "interface=eth", "cidr=10.0.0.0/24", "10.0.1.3/24"];
    (prop::sample::select(methods), any::<bool>())
        .prop_map(|(method, keeps)| address(method, keeps && method == "first-found"))
}

proptest! {
    /// Whatever the links do: an address of another link comes no sooner than a
    /// minute after the registered one was last seen, one that is there is never
    /// left by default, and in the end there is nothing left to do.
    #[test]
    fn a_node_moves_late_and_comes_to_rest(
        mut own in methods(),
        steps in prop::collection::vec((links(), 0u64..40), 1..12),
    ) {
        let (mut now, mut registered) = (Duration::ZERO, None);
        let mut last_seen = None;
        let by_default = own.detection.keeps_registered;
        for (links, pause) in &steps {
            now += seconds(*pause);
            let has = |it: IpNet| links.iter().any(|link| link.find(it.addr()).is_some());
            let is_there = registered.is_some_and(has);
            let decision = own.decide(registered, links, None, now);
            if let Ok(AddressDecision::Keep(_)) = decision {
                let link = own.own.as_ref().and_then(|own| own.interface.clone());
                last_seen = link.map(|link| (link, now));
            }
            if let Ok(AddressDecision::Register(found)) = decision {
                prop_assert!(!(by_default && is_there), "{found:?}");
                let to_other = last_seen.as_ref().filter(|(link, _)| {
                    !is_there && Some(link) != found.interface.as_ref()
                });
                let given = matches!(own.detection.method, AutodetectionMethod::Address(..));
                if let Some((_, seen)) = to_other.filter(|_| !given) {
                    prop_assert!(now >= *seen + GRACE_TIME, "{now:?} {seen:?} {found:?}");
                }
                registered = Some(found.address);
                last_seen = None;
            }
        }
        let (links, _) = steps.last().unwrap();
        for _ in 0..4 {
            now += GRACE_TIME;
            match own.decide(registered, links, None, now) {
                Ok(AddressDecision::Register(found)) => registered = Some(found.address),
                Ok(AddressDecision::Contested { .. }) => prop_assert!(false, "with itself"),
                _ => {}
            }
        }
        let last = own.decide(registered, links, None, now);
        prop_assert!(matches!(last, Ok(AddressDecision::Keep(_)) | Err(_)), "{last:?}");
    }
}
