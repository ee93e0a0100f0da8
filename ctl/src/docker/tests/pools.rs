//! What docker network create is answered.
//!
//! Calico's driver (libnetwork-plugin's `driver/ipam_driver.go`, RequestPool) refuses a sub-pool,
//! every option, a CIDR that is none, and a CIDR that is not exactly a pool's. The last two are
//! refused here with the same meaning. Sub-pools and options work: a sub-pool restricts what is
//! given by itself, options name several pools, or a real gateway for bridge and macvlan. What
//! Calico finds out when the first container starts, that no pool can serve it, is refused here
//! when the network is made.

use weir_common::ipam::Error;
use weir_datastore::Memory;

use super::super::front::Front;
use super::super::pools::{PoolRefusal, request};
use super::super::protocol::PoolRequest;
use super::cluster;

fn asking(pool: &str, sub_pool: &str, options: &[(&str, &str)]) -> PoolRequest {
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    PoolRequest {
        pool: pool.to_owned(),
        sub_pool: sub_pool.to_owned(),
        options: options.collect(),
        v6: pool.contains(':'),
        ..PoolRequest::default()
    }
}

/// The PoolID, CIDR and gateway that a request is answered.
async fn answered(front: Front, asked: &PoolRequest) -> [String; 3] {
    let id = request(&cluster(), "n1", front, asked).await.unwrap();
    assert_eq!(id.to_string().parse(), Ok(id.clone()));
    [id.to_string(), id.cidr().to_string(), id.gateway().to_string()]
}

async fn refused(asked: &PoolRequest) -> PoolRefusal {
    request(&cluster(), "n1", Front::Weir, asked).await.unwrap_err()
}

/// The same in words, which must have all of `parts`.
async fn told(asked: &PoolRequest, parts: &[&str]) {
    let told = refused(asked).await.to_string();
    for part in parts {
        assert!(told.contains(part), "{part} in: {told}");
    }
}

#[tokio::test]
async fn a_subnet_that_is_a_pool_is_answered_with_it_and_without_a_gateway() {
    for front in [Front::Weir, Front::CalicoIpam] {
        let [id, pool, gateway] = answered(front, &asking("10.9.0.0/16", "", &[])).await;
        assert_eq!([id, pool, gateway], ["10.9.0.0/16", "10.9.0.0/16", "0.0.0.0/0"]);
    }
    let [id, pool, gateway] = answered(Front::Weir, &asking("fd00:9::/64", "", &[])).await;
    assert_eq!([id, pool, gateway], ["fd00:9::/64", "fd00:9::/64", "::/0"]);
    // One that serves whoever asks for it.
    answered(Front::Weir, &asking("10.10.0.0/24", "", &[])).await;
}

#[tokio::test]
async fn without_a_subnet_any_pool_serves() {
    for (front, v6, id, everything) in [
        (Front::Weir, false, "weir-any-v4", "0.0.0.0/0"),
        (Front::Weir, true, "weir-any-v6", "::/0"),
        (Front::CalicoIpam, false, "CalicoPoolIPv4", "0.0.0.0/0"),
        (Front::CalicoIpam, true, "CalicoPoolIPv6", "::/0"),
    ] {
        let asked = PoolRequest { v6, ..asking("", "", &[]) };
        assert_eq!(answered(front, &asked).await, [id, everything, everything]);
    }
}

/// The article's "No configured Calico pools", with its cure, and already here.
#[tokio::test]
async fn without_pools_it_is_said_how_to_make_one() {
    for asked in
        [asking("", "", &[]), asking("10.9.0.0/16", "", &[]), asking("", "", &[("pools", "blue")])]
    {
        let refused = request(&Memory::new(), "n1", Front::Weir, &asked).await.unwrap_err();
        assert!(matches!(refused, PoolRefusal::Pools(Error::NoPool(_))), "{refused:?}");
        assert!(refused.to_string().contains("weirctl create -f"), "{refused}");
    }
}

#[tokio::test]
async fn a_subnet_that_is_no_pool_is_refused_with_the_pools() {
    told(
        &asking("172.16.0.0/16", "", &[]),
        &["no pool has exactly 172.16.0.0/16", "10.9.0.0/16 (blue)", "weirctl get ippool"],
    )
    .await;
    told(
        &asking("10.9.4.0/24", "", &[]),
        &["exactly 10.9.4.0/24", "--subnet 10.9.0.0/16 --ip-range 10.9.4.0/24"],
    )
    .await;
}

#[tokio::test]
async fn what_is_no_cidr_is_refused_with_the_flag() {
    for (text, advice) in
        [("10.9.0.0", "prefix length"), ("x/8", "prefix length"), ("010.9.0.0/16", "10.9.0.0/16")]
    {
        told(&asking(text, "", &[]), &["--subnet", text, "invalid CIDR", advice]).await;
        told(&asking("10.9.0.0/16", text, &[]), &["--ip-range", text, "invalid CIDR"]).await;
    }
    let v4 = PoolRequest { v6: true, ..asking("10.9.0.0/16", "", &[]) };
    told(&v4, &["10.9.0.0/16 is not an IPv6 range", "--ipv6"]).await;
}

#[tokio::test]
async fn pools_that_serve_no_container_are_refused_with_why() {
    for (subnet, pool, why) in [
        ("10.11.0.0/24", "off", "is disabled"),
        ("10.12.0.0/24", "tunnels", "allowedUses"),
        ("10.13.0.0/24", "flawed", "cannot be used"),
    ] {
        told(&asking(subnet, "", &[]), &[pool, why]).await;
        told(&asking("", "", &[("pools", pool)]), &[pool, why]).await;
    }
}

#[tokio::test]
async fn a_range_is_a_part_of_the_pool() {
    let ranged = |range| asking("10.9.0.0/16", range, &[]);
    let [id, pool, _] = answered(Front::Weir, &ranged("10.9.4.0/24")).await;
    assert_eq!([id.as_str(), &pool], ["10.9.0.0/16;range=10.9.4.0/24", "10.9.0.0/16"]);
    // The whole of it is no restriction.
    assert_eq!(answered(Front::Weir, &ranged("10.9.0.0/16")).await[0], "10.9.0.0/16");
    for range in ["10.10.0.0/24", "10.0.0.0/8", "fd00:9::/72"] {
        told(&ranged(range), &["--ip-range", range, "does not lie in pool 10.9.0.0/16"]).await;
    }
    told(&asking("", "10.9.4.0/24", &[]), &["--ip-range 10.9.4.0/24", "--subnet"]).await;
}

#[tokio::test]
async fn an_option_names_pools_in_their_order() {
    let named = |text| asking("", "", &[("pools", text)]);
    let [id, pool, _] = answered(Front::Weir, &named("green, blue")).await;
    assert_eq!([id.as_str(), &pool], ["10.10.0.0/24,10.9.0.0/16", "0.0.0.0/0"]);
    let [id, pool, _] = answered(Front::CalicoIpam, &named("10.10.0.0/24")).await;
    assert_eq!([id.as_str(), &pool], ["10.10.0.0/24", "10.10.0.0/24"]);
    // dockerd gives the options to both families.
    let six = |text| PoolRequest { v6: true, ..named(text) };
    assert_eq!(answered(Front::Weir, &six("green,six")).await[0], "fd00:9::/64");
    assert_eq!(answered(Front::Weir, &named("green,six")).await[0], "10.10.0.0/24");
    told(&six("green"), &["pools=green", "no IPv6 pool"]).await;
    let beside = asking("fd00:9::/64", "", &[("pools", "green")]);
    assert_eq!(answered(Front::Weir, &beside).await[0], "fd00:9::/64");
    told(&named("gren"), &["pool gren does not exist", "green (10.10.0.0/24)"]).await;
    told(&named("green,blues"), &["pool blues does not exist"]).await;
    let twice = asking("10.9.0.0/16", "", &[("pools", "green")]);
    told(&twice, &["--subnet 10.9.0.0/16", "pools=green", "leave one"]).await;
}

#[tokio::test]
async fn a_gateway_for_other_drivers_is_answered_with_its_subnet() {
    let with = |pool, text| asking(pool, "", &[("gateway", text)]);
    let [id, pool, gateway] = answered(Front::Weir, &with("10.10.0.0/24", "10.10.0.1")).await;
    let expected = ["10.10.0.0/24;gateway=10.10.0.1/24", "10.10.0.0/24", "10.10.0.1/24"];
    assert_eq!([id.as_str(), &pool, &gateway], expected);
    let both = "10.10.0.1,fd00:9::1";
    assert_eq!(answered(Front::Weir, &with("10.10.0.0/24", both)).await[2], "10.10.0.1/24");
    assert_eq!(answered(Front::Weir, &with("fd00:9::/64", both)).await[2], "fd00:9::1/64");
    assert_eq!(answered(Front::Weir, &with("fd00:9::/64", "10.10.0.1")).await[2], "::/0");
    for edge in ["10.10.0.0", "10.10.0.255", "10.9.0.1"] {
        told(&with("10.10.0.0/24", edge), &[edge, "in pool 10.10.0.0/24"]).await;
    }
    told(&with("10.10.0.0/24", "10.10.0.1/24"), &["10.10.0.1/24", "is not an address"]).await;
    told(&with("", "10.10.0.1"), &["add --subnet"]).await;
}

#[tokio::test]
async fn unknown_options_are_refused_by_name() {
    let with = |name| asking("10.9.0.0/16", "", &[(name, "x")]);
    told(&with("pool"), &["--ipam-opt pool is not known", "is pools meant?", "gateway="]).await;
    told(&with("Gateways"), &["Gateways", "is gateway meant?"]).await;
    let other = refused(&with("\u{1b}[31m")).await.to_string();
    assert!(other.contains("\\u{1b}") && !other.contains("meant"), "{other}");
}
