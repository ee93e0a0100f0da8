//! What docker run is answered when it asks for an address.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use weir_common::ipam::docker::{self, EndpointFacts, hand_over};
use weir_common::ipam::{Error, FoundAddress, MachineId};
use weir_datastore::Memory;

use super::super::addresses::{AddressRefusal, AddressUse, AskedAddress, GivenAddress, Here, read};
use super::super::front::Front;
use super::super::pool_id::PoolId;
use super::super::protocol::{ADDRESS_TYPE, AddressRequest, GATEWAY, MAC_ADDRESS};
use super::cluster;

const MAC: &str = "02:42:0a:09:00:02";
const ANY: &str = "weir-any-v4";

fn now() -> Timestamp {
    Timestamp::new(1_795_405_217, 0).unwrap()
}

fn here<'a>(store: &'a Memory, node: &'a str, machine: Option<&'a MachineId>) -> Here<'a> {
    Here { datastore: store, node, machine, likely: &[], probe: None, now: now() }
}

fn id(text: &str) -> PoolId {
    text.parse().unwrap()
}

fn asking(address: &str, options: &[(&str, &str)]) -> AddressRequest {
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    AddressRequest {
        address: address.to_owned(),
        options: options.collect(),
        ..AddressRequest::default()
    }
}

fn refusal(front: Front, request: &AddressRequest, pool: &str) -> String {
    read(front, request, &id(pool)).unwrap_err().to_string()
}

fn address_of(given: GivenAddress) -> IpAddr {
    match given {
        GivenAddress::Already(address) => address,
        GivenAddress::Now(_, assignment) => assignment.addresses[0].address,
    }
}

async fn assign(here: Here<'_>, pool: &str, address: Option<IpAddr>) -> IpAddr {
    address_of(here.assign(&id(pool), MAC.parse().unwrap(), address).await.unwrap())
}

#[test]
fn a_gateway_is_answered_and_not_given() {
    let gateway = |address| asking(address, &[(ADDRESS_TYPE, GATEWAY)]);
    let read = |request: &AddressRequest, pool: &str| read(Front::Weir, request, &id(pool));
    let known = "10.10.0.0/24;gateway=10.10.0.1/24";
    for address in ["", "10.10.0.1"] {
        let asked = read(&gateway(address), known).unwrap();
        assert_eq!(asked, AskedAddress::Gateway("10.10.0.1/24".parse().unwrap()));
    }
    let none = AskedAddress::Gateway("0.0.0.0/0".parse().unwrap());
    assert_eq!(read(&gateway(""), ANY).unwrap(), none);
    assert_eq!(read(&gateway("0.0.0.0"), ANY).unwrap(), none);
    let other = refusal(Front::Weir, &gateway("10.10.0.9"), known);
    assert!(other.contains("10.10.0.9") && other.contains("which is 10.10.0.1"), "{other}");
    let needless = refusal(Front::Weir, &gateway("10.9.0.1"), "10.9.0.0/16");
    assert!(needless.contains("leave --gateway out"), "{needless}");
    assert!(needless.contains("--ipam-opt gateway=10.9.0.1"), "{needless}");
}

#[test]
fn whom_an_address_is_for_is_told_by_a_hardware_address() {
    let of = |request: &AddressRequest| read(Front::Weir, request, &id("10.9.0.0/16"));
    let (mac, address) = (MAC.parse().unwrap(), "10.9.7.7".parse().unwrap());
    assert_eq!(
        of(&asking("", &[(MAC_ADDRESS, MAC)])).unwrap(),
        AskedAddress::Assigned(AddressUse::Container(mac, None))
    );
    let asked = of(&asking("10.9.7.7", &[(MAC_ADDRESS, MAC)])).unwrap();
    assert_eq!(asked, AskedAddress::Assigned(AddressUse::Container(mac, Some(address))));
    assert_eq!(
        of(&asking("10.9.7.7", &[])).unwrap(),
        AskedAddress::Assigned(AddressUse::Kept(address))
    );
    assert!(matches!(of(&asking("", &[])), Err(AddressRefusal::ForNone)));
    for (text, mac) in
        [("10.9.7", MAC), ("10.9.7.7/16", MAC), ("", "02:42"), ("", "01:00:5e:0:0:1")]
    {
        assert!(of(&asking(text, &[(MAC_ADDRESS, mac)])).is_err(), "{text} {mac}");
    }
}

/// Calico's driver gives any address of any pool.
#[test]
fn an_address_of_another_network_is_refused_unless_calico_s_driver_is_asked() {
    for (address, pool) in
        [("10.10.0.7", "10.9.0.0/16"), ("fd00:9::7", "10.9.0.0/16"), ("fd00:9::7", ANY)]
    {
        let asked = asking(address, &[(MAC_ADDRESS, MAC)]);
        let told = refusal(Front::Weir, &asked, pool);
        assert!(told.contains(&format!("{address} is not of this network")), "{told}");
        assert!(read(Front::CalicoIpam, &asked, &id(pool)).is_ok(), "{address}");
    }
    let any = asking("10.10.0.7", &[(MAC_ADDRESS, MAC)]);
    assert!(read(Front::Weir, &any, &id(ANY)).is_ok());
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_address_and_another_container_another_one() {
    let store = cluster();
    let here = here(&store, "n1", None);
    let first = assign(here, "10.9.0.0/16", None).await;
    let before = store.dump();
    assert_eq!(assign(here, "10.9.0.0/16", None).await, first);
    assert_eq!(store.dump(), before);
    // Another network at once, the first one's container later, and both families.
    let other = assign(here, "10.10.0.0/24", None).await;
    assert!(other.to_string().starts_with("10.10.0."), "{other}");
    let later = Here { now: now() + SignedDuration::from_secs(61), ..here };
    assert_ne!(assign(later, "10.9.0.0/16", None).await, first);
    let six = assign(here, "weir-any-v6", None).await;
    assert!(six.is_ipv6());
    // Once an endpoint has it, the hardware address is another container's.
    let facts = EndpointFacts { network: "net", mac: MAC.parse().unwrap(), now: now() };
    hand_over(&store, &docker::endpoint("n1", "e1"), &[first, six], facts).await.unwrap();
    assert_ne!(assign(here, "10.9.0.0/16", None).await, first);
    // Each a minute after the other.
    let mut minutes = (2..).map(SignedDuration::from_mins);
    let refused = loop {
        let later = Here { now: now() + minutes.next().unwrap(), ..here };
        if let Err(refused) = later.assign(&id(ANY), MAC.parse().unwrap(), None).await {
            break refused;
        }
    };
    assert!(matches!(refused, AddressRefusal::TooMany(_)), "{refused}");
}

#[tokio::test]
async fn a_range_is_kept_to_unless_an_address_outside_is_asked_for() {
    let store = cluster();
    let here = here(&store, "n1", None);
    let pool = "10.9.0.0/16;range=10.9.4.4/30";
    let given = assign(here, pool, None).await;
    assert!(id(pool).within().unwrap().contains(&given), "{given}");
    let asked = "10.9.200.1".parse().unwrap();
    assert_eq!(assign(here, pool, Some(asked)).await, asked);
    assert_eq!(assign(here, pool, Some(asked)).await, asked, "it waits already");
}

#[tokio::test]
async fn a_gateway_is_no_container_s() {
    let store = cluster();
    let here = here(&store, "n1", None);
    let pool = "10.10.0.0/24;gateway=10.10.0.1/24";
    let asked = here.assign(&id(pool), MAC.parse().unwrap(), "10.10.0.1".parse().ok()).await;
    assert!(matches!(asked, Err(AddressRefusal::Ipam(Error::Withheld { .. }))), "{asked:?}");
}

/// Such a container names no endpoint: its address looks as if it waited as long as it runs.
#[tokio::test]
async fn what_another_driver_wires_is_found_by_no_other_call() {
    let store = cluster();
    let bridge = "10.10.0.0/24;gateway=10.10.0.1/24";
    let at = |seconds| Here {
        now: now() + SignedDuration::from_secs(seconds),
        ..here(&store, "n1", None)
    };
    let first = assign(at(0), bridge, None).await;
    assert_ne!(assign(at(1), bridge, None).await, first);
    assert_ne!(assign(at(1), "10.10.0.0/24", None).await, first);
    for (pool, seconds) in [(bridge, 2), ("10.10.0.0/24", 2), ("10.10.0.0/24", 3600)] {
        let refused = at(seconds).assign(&id(pool), MAC.parse().unwrap(), Some(first)).await;
        let is_taken = matches!(refused, Err(AddressRefusal::Ipam(Error::Taken { .. })));
        assert!(is_taken, "{pool} {seconds} {refused:?}");
    }
}

#[tokio::test]
async fn what_a_network_keeps_is_kept_once_for_all_nodes() {
    let store = cluster();
    let address: IpAddr = "10.9.0.70".parse().unwrap();
    let pool = id("10.9.0.0/16");
    let keep = async |node: &str| here(&store, node, None).keep(&pool, address).await;
    assert!(matches!(keep("n1").await, Ok(GivenAddress::Now(..))));
    let before = store.dump();
    assert_eq!(address_of(keep("n2").await.unwrap()), address);
    assert_eq!(address_of(keep("n1").await.unwrap()), address);
    assert_eq!(store.dump().len(), before.len());
    let found = FoundAddress::find(&store, address).await.unwrap().unwrap();
    assert_eq!(found.holder().unwrap().handle_id.as_deref(), Some("docker.10.9.0.70"));
    // A container's is not the network's to keep.
    let taken = assign(here(&store, "n1", None), "10.9.0.0/16", None).await;
    let refused = here(&store, "n2", None).keep(&pool, taken).await;
    assert!(matches!(refused, Err(AddressRefusal::Ipam(Error::Taken { .. }))), "{refused:?}");
}
