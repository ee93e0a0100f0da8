//! Plans against a model of the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::link::{MacAddress, SourceCheck};
use crate::network::nat::{NatPool, NatTable};
use crate::network::route::Route;

/// As much of a kernel as plans touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    /// Links with their alias.
    links: BTreeMap<(Side, String), Option<String>>,
    /// What hangs on a link: its side and name, and a text.
    hanging: BTreeSet<(Side, String, String)>,
    sysctls: BTreeMap<(Side, String), String>,
    nat: Option<NatTable>,
}

impl Model {
    fn carry_out(&mut self, step: &Step) -> Before {
        match step {
            Step::CreateVeth(veth) => {
                for link in ends(&veth.identity) {
                    assert_eq!(self.links.insert(link, None), None);
                }
            }
            Step::SetAlias { link, alias } => {
                *self.links.get_mut(&(Side::Host, link.clone())).unwrap() = Some(alias.clone());
            }
            Step::AddNames { link, names } => {
                names.iter().for_each(|name| self.hang(Side::Host, link, name));
            }
            Step::SetSysctl(sysctl) => {
                let key = (sysctl.side, sysctl.key.clone());
                return match self.sysctls.insert(key, sysctl.value.clone()) {
                    Some(value) if value == sysctl.value => Before::Same,
                    Some(value) => Before::Was(value),
                    None => Before::Absent,
                };
            }
            Step::SetMac { link, mac } => self.hang(Side::Host, link, mac),
            Step::SetLinkUp { side, link } => self.hang(*side, link, "up"),
            Step::AddAddress { side, link, address, .. } => self.hang(*side, link, address),
            Step::AddNeighbour { side, link, address, .. } => {
                self.hang(*side, link, format!("neighbour {address}"));
            }
            Step::AddRoute { side, link, route } => {
                let reachable = route.gateway.is_none_or(|gateway| self.is_near(*side, gateway));
                assert!(reachable, "the kernel refuses {route}: its next hop is not on the link");
                self.hang(*side, link, route);
            }
            Step::EnsureNat(table) => {
                let before = std::mem::replace(&mut self.nat, table.clone());
                return match before {
                    before if before == *table => Before::Same,
                    None => Before::Absent,
                    Some(_) => Before::Was("old".to_owned()),
                };
            }
        }
        Before::Absent
    }

    fn hang(&mut self, side: Side, link: &str, what: impl ToString) {
        assert!(self.links.contains_key(&(side, link.to_owned())), "{link} is not there");
        assert!(self.hanging.insert((side, link.to_owned(), what.to_string())), "twice");
    }

    fn is_near(&self, side: Side, gateway: IpAddr) -> bool {
        let wanted = Route::on_link(gateway.into()).to_string();
        let link_local = matches!(gateway, IpAddr::V6(address) if address.is_unicast_link_local());
        link_local || self.hanging.iter().any(|(at, _, what)| *at == side && *what == wanted)
    }

    fn take_back(&mut self, undo: Undo, identity: &AttachmentIdentity, old: &Option<NatTable>) {
        match undo {
            Undo::DeleteLink { link } => {
                assert_eq!(link, identity.host_interface());
                for (side, name) in ends(identity) {
                    self.links.remove(&(side, name.clone()));
                    self.hanging.retain(|(at, on, _)| (*at, on) != (side, &name));
                    self.sysctls.retain(|(at, key), _| {
                        *at != side || !key.split('/').any(|part| part == name)
                    });
                }
            }
            Undo::RestoreSysctl { side, key, value } => {
                self.sysctls.insert((side, key), value);
            }
            Undo::RestoreNat { listing } => self.nat = listing.and_then(|_| old.clone()),
        }
    }
}

fn ends(identity: &AttachmentIdentity) -> [(Side, String); 2] {
    [(Side::Host, identity.host_interface()), (Side::Container, identity.interface().to_owned())]
}

fn identity() -> AttachmentIdentity {
    AttachmentIdentity::new("net", "container", "eth0").unwrap()
}

fn request(addresses: &[&str]) -> AttachmentRequest {
    AttachmentRequest {
        identity: identity(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        mtu: Mtu::configured(1500),
        mac: None,
        allow_ip_forwarding: Some(false),
        source_check: SourceCheck::Strict,
        allowed_sources: Default::default(),
        routes: Vec::new(),
        default_routes: true,
        gateways: Vec::new(),
    }
}

fn requested(destination: &str) -> RequestedRoute {
    RequestedRoute {
        destination: destination.parse().unwrap(),
        mtu: None,
        advmss: None,
        priority: None,
        table: None,
        scope: None,
        has_next_hop: false,
    }
}

fn texts(routes: &[Route]) -> Vec<String> {
    routes.iter().map(ToString::to_string).collect()
}

/// A node and a container with every parameter that outlives a veth.
fn kernel(flags: &[bool; 4]) -> Model {
    let keys = [
        (Side::Host, "net/ipv4/ip_forward"),
        (Side::Host, "net/ipv6/conf/all/forwarding"),
        (Side::Container, "net/ipv4/ip_forward"),
        (Side::Container, "net/ipv6/conf/all/forwarding"),
    ];
    let value = |&flag: &bool| if flag { "1" } else { "0" }.to_owned();
    let values = keys.map(|(side, key)| (side, key.to_owned())).into_iter();
    let mut sysctls: BTreeMap<_, _> = values.zip(flags.iter().map(value)).collect();
    sysctls.insert((Side::Host, "net/ipv6/conf/uplink/accept_ra".to_owned()), "1".to_owned());
    Model { sysctls, ..Model::default() }
}

fn addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    let v4 = (1..250u8).prop_map(|last| IpAddr::from([10, 0, 0, last]));
    let v6 = (1..250u16).prop_map(|last| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]));
    prop::collection::btree_set(prop_oneof![v4, v6], 1..5).prop_map(|set| set.into_iter().collect())
}

proptest! {
    #[test]
    fn the_undo_of_any_part_of_a_plan_brings_the_kernel_back(
        addresses in addresses(),
        allow_ip_forwarding: Option<bool>,
        default_routes: bool,
        flags: [bool; 4],
        nat: [bool; 2],
        cut in any::<prop::sample::Index>(),
    ) {
        let attachment = Attachment::new(AttachmentRequest {
            addresses,
            allow_ip_forwarding,
            source_check: SourceCheck::Strict,
            allowed_sources: Default::default(),
            default_routes,
            routes: vec![requested("192.0.2.0/24"), requested("fd00:2::/64")],
            ..request(&[])
        })
        .unwrap();
        let table = |cidr: &str, wanted: bool| {
            let pool = NatPool { cidr: cidr.parse().unwrap(), nat_outgoing: wanted };
            NatTable::from_pools(&[pool], None)
        };
        let old = table("10.9.0.0/16", nat[0]);
        let before = Model { nat: old.clone(), ..kernel(&flags) };
        let needs = NodeNeeds {
            ipv4: attachment.has_v4(),
            ipv6: attachment.has_v6(),
            nat: Nat::Exactly(table("10.0.0.0/16", nat[1])),
        };
        let state = NodeState {
            ipv4_forwarding: flags[0],
            ipv6_forwarding: flags[1],
            taking_advertisements: vec!["uplink".to_owned()],
        };
        let mut steps = plan_attachment(&attachment);
        steps.extend(plan_node(&needs, &state));
        let mut after = before.clone();
        let done = &steps[..=cut.index(steps.len())];
        let undos: Vec<_> =
            done.iter().filter_map(|step| step.undo(after.carry_out(step))).collect();
        prop_assert_ne!(&after, &before);
        for undo in undos.into_iter().rev() {
            after.take_back(undo, attachment.identity(), &old);
        }
        prop_assert_eq!(after, before);
    }
}

#[test]
fn the_container_sees_the_world_behind_one_next_hop() {
    let attachment = Attachment::new(request(&["10.0.0.1", "10.0.0.2", "fd00::1"])).unwrap();
    assert_eq!(
        texts(&attachment.container_routes()),
        [
            "169.254.1.1/32 scope link",
            "default via 169.254.1.1",
            "default via fe80::ecee:eeff:feee:eeee"
        ]
    );
    assert_eq!(
        texts(&attachment.host_routes()),
        ["10.0.0.1/32 scope global", "10.0.0.2/32 scope global", "fd00::1/128"]
    );
}

#[test]
fn a_requested_default_route_takes_the_place_of_the_own() {
    let own = RequestedRoute { mtu: Some(1400), ..requested("0.0.0.0/0") };
    let policy = RequestedRoute { table: Some(100), ..requested("::/0") };
    let routes = vec![own, policy, requested("192.0.2.9/24")];
    let with = |addresses: &[&str], default_routes| {
        let request =
            AttachmentRequest { routes: routes.clone(), default_routes, ..request(addresses) };
        texts(&Attachment::new(request).unwrap().container_routes())
    };
    let v4 = [
        "169.254.1.1/32 scope link",
        "default via 169.254.1.1 mtu 1400",
        "192.0.2.0/24 via 169.254.1.1",
    ];
    assert_eq!(with(&["10.0.0.1"], true), v4, "no route of a family without address");
    let v6 = "default via fe80::ecee:eeff:feee:eeee";
    assert_eq!(with(&["fd00::1"], true), [format!("{v6} table 100"), v6.to_owned()]);
    assert_eq!(with(&["fd00::1"], false), [format!("{v6} table 100")]);
}

#[test]
fn only_the_families_in_use_are_touched() {
    let about = |addresses: &[&str]| -> Vec<String> {
        let attachment = Attachment::new(request(addresses)).unwrap();
        plan_attachment(&attachment).iter().map(ToString::to_string).collect()
    };
    let v4 = about(&["10.0.0.1"]);
    let of_v6: Vec<_> = v4.iter().filter(|step| step.contains("ipv6")).collect();
    assert_eq!(of_v6.len(), 1, "{of_v6:?}");
    assert!(of_v6[0].contains("accept_ra=0"), "{of_v6:?}");
    assert!(
        !about(&["fd00::1"]).iter().any(|step| step.contains("ipv4") || step.contains("169.254"))
    );
}

#[test]
fn a_route_has_the_scope_that_it_asks_for() {
    let route = |destination: &str, scope| RequestedRoute { scope, ..requested(destination) };
    let with = |routes| Attachment::new(AttachmentRequest { routes, ..request(&["10.0.0.1"]) });
    let on_link = |address: &str| route(address, Some(253));
    let attachment = with(vec![
        route("192.0.2.0/24", Some(0)),
        route("192.0.3.0/24", Some(200)),
        on_link("192.0.4.0/24"),
        on_link("192.0.4.7/32"),
        route("192.0.5.0/24", Some(254)),
    ])
    .unwrap();
    assert_eq!(
        texts(&attachment.container_routes())[1..6],
        [
            "192.0.2.0/24 via 169.254.1.1",
            "192.0.3.0/24 via 169.254.1.1 scope 200",
            "192.0.4.0/24 scope link",
            "192.0.4.7/32 scope link",
            "192.0.5.0/24 scope host",
        ]
    );
    let neighbours = plan_attachment(&attachment).into_iter().filter_map(|step| match step {
        Step::AddNeighbour { address, .. } => Some(address.to_string()),
        _ => None,
    });
    assert_eq!(neighbours.collect::<Vec<_>>(), ["169.254.1.1", "192.0.4.7"]);
    let via = RequestedRoute { has_next_hop: true, ..on_link("192.0.2.0/24") };
    for impossible in [via, route("192.0.2.0/24", Some(255)), route("fd00:5::/64", Some(253))] {
        let routes = vec![impossible.clone()];
        assert!(impossible.destination.addr().is_ipv4() || with(routes.clone()).is_ok());
        let both = AttachmentRequest { routes, ..request(&["10.0.0.1", "fd00::1"]) };
        let error = Attachment::new(both).unwrap_err();
        let InvalidAttachment::Scope { destination, scope, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((destination, Some(scope)), (impossible.destination, impossible.scope));
    }
}

/// The node's own forwarding is not a container's to decide.
#[test]
fn forwarding_can_be_left_alone() {
    let all = Families { ipv4: true, ipv6: true };
    for (allowed, written) in [(None, 0), (Some(false), 2), (Some(true), 2)] {
        let is_forwarding = |step: &Step| {
            matches!(step, Step::SetSysctl(sysctl) if !sysctl.of_veth
                && ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"]
                    .contains(&sysctl.key.as_str()))
        };
        let steps = plan_parameters(&identity(), all, allowed, SourceCheck::Strict);
        assert_eq!(steps.iter().filter(|step| is_forwarding(step)).count(), written);
    }
}

/// Docker's containers get their own side from dockerd.
#[test]
fn the_hosts_side_alone_is_that_of_an_add() {
    for addresses in [&["10.0.0.1"][..], &["fd00::1"], &["10.0.0.1", "fd00::1"]] {
        let attachment = Attachment::new(request(addresses)).unwrap();
        let (text, in_container) = (|step: &Step| step.to_string(), " in the container");
        let own = plan_host_side(&attachment, "temp0123456789a");
        let own: Vec<String> = own.iter().map(text).collect();
        let of_add = plan_attachment(&attachment);
        let is_of_host = |text: &String| !text.ends_with(in_container);
        let of_add: Vec<String> = of_add[1..].iter().map(text).filter(is_of_host).collect();
        assert_eq!(own[1..], of_add);
        let veth = text(&plan_attachment(&attachment)[0]);
        let veth = veth.replace("name eth0 ", "name temp0123456789a ");
        assert_eq!(own[0], veth.replace(in_container, " on the node"));
    }
}

/// STATUS takes a carrier without routes for a fault.
#[test]
fn a_carrier_comes_after_the_nodes_routes() {
    for addresses in [&["10.0.0.1"][..], &["fd00::1"], &["10.0.0.1", "10.0.0.2", "fd00::1"]] {
        let attachment = Attachment::new(request(addresses)).unwrap();
        let steps = plan_attachment(&attachment);
        let carrier = Step::SetLinkUp { side: Side::Container, link: "eth0".to_owned() };
        let carrier = steps.iter().position(|step| *step == carrier).unwrap();
        let is_host_route = |step: &Step| matches!(step, Step::AddRoute { side: Side::Host, .. });
        let before = steps[..carrier].iter().filter(|step| is_host_route(step)).count();
        assert_eq!(before, addresses.len());
    }
}

#[test]
fn impossible_requests_are_refused() {
    let refused = |request| Attachment::new(request).unwrap_err();
    assert_eq!(refused(request(&[])), InvalidAttachment::NoAddress);
    for address in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "169.254.1.1", "::1", "fe80::1", "ff02::1"]
    {
        let error = refused(request(&["10.0.0.1", address]));
        assert!(error.to_string().contains(address), "{error}");
    }
    let twice = refused(request(&["10.0.0.1", "10.0.0.1"]));
    assert!(matches!(twice, InvalidAttachment::Address { .. }));
    for (address, mtu) in [("10.0.0.1", 67), ("fd00::1", 1279), ("10.0.0.1", 65536)] {
        let error = refused(AttachmentRequest { mtu: Mtu::configured(mtu), ..request(&[address]) });
        assert!(error.to_string().contains(&mtu.to_string()), "{error}");
    }
    let mac = Some(MacAddress([1, 0, 0, 0, 0, 0]));
    let error = refused(AttachmentRequest { mac, ..request(&["10.0.0.1"]) });
    assert!(matches!(error, InvalidAttachment::Mac { .. }));
}

#[test]
fn the_ipv6_next_hop_follows_from_the_hosts_mac() {
    let [a, b, c, d, e, f] = HOST_MAC.0;
    let octets = GATEWAY_V6.octets();
    assert_eq!(octets[..2], [0xfe, 0x80]);
    assert_eq!(octets[8..], [a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
}

#[test]
fn what_others_added_is_no_difference() {
    let attachment = Attachment::new(request(&["10.0.0.1"])).unwrap();
    let link = |name: String, mac, routes: Vec<Route>| FoundLink {
        name,
        index: 2,
        peer_index: Some(2),
        kind: Some("veth".to_owned()),
        alias: None,
        mac: Some(mac),
        mtu: 1500,
        up: true,
        source_check: SourceCheck::Strict,
        allowed_sources: Default::default(),
        addresses: vec!["192.0.2.9".parse().unwrap(), "10.0.0.1".parse().unwrap()],
        routes: routes.into_iter().map(|route| Route { table: Some(254), ..route }).collect(),
        neighbours: attachment.neighbours(),
    };
    let parameters = attachment.host_parameters().into_iter();
    let identity = attachment.identity();
    let host = link(identity.host_interface(), HOST_MAC, attachment.host_routes());
    let found = Found {
        host: Some(FoundLink { alias: Some(identity.alias()), ..host }),
        container: Some(link(
            identity.interface().to_owned(),
            attachment.container_mac(),
            [attachment.container_routes(), attachment.host_routes()].concat(),
        )),
        host_parameters: parameters.map(|sysctl| (sysctl.key, sysctl.value)).collect(),
    };
    let expected = Expected::of(&attachment);
    assert_eq!(compare(&expected, &found), []);
    let elsewhere = |link: &Option<FoundLink>| {
        let mut link = link.clone().unwrap();
        link.routes.iter_mut().for_each(|route| route.table = Some(100));
        Some(link)
    };
    let by_source = Found { container: elsewhere(&found.container), ..found.clone() };
    assert_eq!(compare(&expected, &by_source), [], "a later plugin may move routes");
    let unrouted = Found { host: elsewhere(&found.host), ..found.clone() };
    assert!(matches!(compare(&expected, &unrouted)[..], [Mismatch::RouteMissing { .. }]));
    let unknown = Expected { mtu: None, host_mtu: None, ..expected.clone() };
    let smaller =
        |link: &Option<FoundLink>| link.clone().map(|link| FoundLink { mtu: 1400, ..link });
    let tuned = Found { container: smaller(&found.container), ..found.clone() };
    assert_eq!(compare(&unknown, &tuned), [], "a later plugin may lower the MTU");
    assert!(matches!(compare(&expected, &tuned)[..], [Mismatch::Mtu { .. }]));
    let lowered = Found { host: smaller(&found.host), ..found.clone() };
    assert!(matches!(compare(&unknown, &lowered)[..], [Mismatch::MtuAboveHost { .. }]));
    let moved = Found {
        container: found.container.clone().map(|link| FoundLink { index: 7, ..link }),
        ..found
    };
    assert!(matches!(compare(&expected, &moved)[..], [Mismatch::NotPeers { .. }]));
}
