//! I1 to I3: what an IPAM plugin gives.

use serde_json::Value;
use weir_tests::Call;

use super::Check;
use crate::bench::{Bench, Scene};
use crate::subject::{FREE, FREE_V6, OUTSIDE, World};
use crate::verdict::{
    Fault, Verdict, about, addresses, bare, ensure, list, not_offered, refused, refused_with,
    result, silent, told,
};

pub const CHECKS: &[Check] = &[
    Check::new("I1.addresses-only", "the result has no interfaces and no ips[].interface", only),
    Check::new("I1.no-section", "a configuration without ipam is code 7", no_section),
    Check::new("I2.taken", "an address asked for that another has is an error", taken),
    Check::new("I2.outside", "an address asked for of no pool is an error", outside),
    Check::new("I2.gateway", "the gateway asked for as an address is an error", gateway),
    Check::new("I2.all-or-nothing", "of two families, none is taken if one cannot be given", all),
    Check::new(
        "I3.again",
        "a second ADD of the same container and interface is an error or gives the same",
        again,
    ),
    Check::new("I3.one-reservation", "and one DEL gives all back", one_reservation),
];

fn only(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let mut evidence = String::new();
    for version in bench.since("0.3.0")? {
        let answer = scene.run(&scene.call_for(version, &format!("c{version}")), "ADD");
        let added = about(version, result(&answer))?;
        // An empty list says no more than none.
        let interfaces = list(&added, "interfaces").len();
        let indexed = list(&added, "ips").iter().any(|ip| ip.get("interface").is_some());
        ensure(interfaces == 0 && !indexed, || format!("{version}: {}", told(&answer)))?;
        evidence = told(&answer);
    }
    Ok(evidence)
}

/// Whether the plugin keeps a record of who has which address.
fn reserves(bench: &Bench) -> bool {
    bench.pair.ipam.section(World::Small).is_some()
}

fn needs_record(bench: &Bench) -> Result<(), Fault> {
    if reserves(bench) { Ok(()) } else { not_offered(format!("{} keeps no record", bench.name())) }
}

fn no_section(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let call = scene.call_for(bench.newest()?, "web");
    let mut configuration = call.configuration().clone();
    configuration.as_object_mut().and_then(|members| members.remove("ipam"));
    let answer = scene.run_with(&call, "ADD", &configuration.to_string());
    refused_with(&answer, 7)?;
    Ok(told(&answer))
}

/// A call that asks for addresses.
fn asking(scene: &Scene<'_>, version: &str, id: &str, asked: &[&str]) -> Call {
    let arguments = format!("IP={}", asked.join(","));
    scene.call_for(version, id).with("CNI_ARGS", &arguments)
}

/// The plugin must be able to give the address that is asked for.
fn can_be_asked(
    scene: &Scene<'_>,
    version: &str,
    id: &str,
    asked: &[&str],
) -> Result<Value, Fault> {
    let answer = scene.run(&asking(scene, version, id, asked), "ADD");
    let added = result(&answer).unwrap_or_default();
    let given = addresses(&added);
    if asked.iter().all(|asked| given.iter().any(|it| bare(it) == *asked)) {
        return Ok(added);
    }
    not_offered(format!("an address cannot be asked for: {}", told(&answer)))
}

fn taken(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let version = bench.since("0.3.0")?.pop().unwrap_or_default();
    needs_record(bench)?;
    can_be_asked(&scene, version, "first", &[FREE])?;
    let answer = scene.run(&asking(&scene, version, "second", &[FREE]), "ADD");
    refused(&answer)?;
    Ok(told(&answer))
}

fn outside(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let version = bench.since("0.3.0")?.pop().unwrap_or_default();
    needs_record(bench)?;
    can_be_asked(&scene, version, "first", &[FREE])?;
    let answer = scene.run(&asking(&scene, version, "second", &[OUTSIDE]), "ADD");
    refused(&answer)?;
    Ok(told(&answer))
}

fn gateway(bench: &Bench) -> Verdict {
    let scene = bench.scene(World::Gateway)?;
    let version = bench.since("0.3.0")?.pop().unwrap_or_default();
    needs_record(bench)?;
    let added = can_be_asked(&scene, version, "first", &[FREE])?;
    let Some(gateway) = added["ips"][0]["gateway"].as_str() else {
        return not_offered("its addresses have no gateway");
    };
    let answer = scene.run(&asking(&scene, version, "second", &[gateway]), "ADD");
    refused(&answer)?;
    Ok(told(&answer))
}

fn all(bench: &Bench) -> Verdict {
    let scene = bench.scene(World::Dual)?;
    let version = bench.since("0.3.0")?.pop().unwrap_or_default();
    can_be_asked(&scene, version, "first", &["10.9.0.70", FREE_V6])?;
    let answer = scene.run(&asking(&scene, version, "second", &[FREE, FREE_V6]), "ADD");
    refused(&answer)?;
    // What the failed call asked for is free for another.
    let third = scene.run(&asking(&scene, version, "third", &[FREE, "fd00:9::78"]), "ADD");
    about(FREE, result(&third))?;
    Ok(told(&answer))
}

fn again(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let version = bench.since("0.3.0")?.pop().unwrap_or_default();
    let call = scene.call_for(version, "web");
    let first = addresses(&result(&scene.run(&call, "ADD"))?);
    let answer = scene.run(&call, "ADD");
    if refused(&answer).is_ok() {
        return Ok(format!("an error: {}", told(&answer)));
    }
    let second = addresses(&result(&answer)?);
    ensure(first == second, || format!("{first:?}, then {second:?}"))?;
    Ok(format!("the same: {}", second.join(", ")))
}

fn one_reservation(bench: &Bench) -> Verdict {
    let scene = bench.scene(World::Small)?;
    let version = bench.newest()?;
    let room = scene.room(version);
    let call = scene.call_for(version, "web");
    result(&scene.run(&call, "ADD"))?;
    scene.run(&call, "ADD");
    silent(&scene.run(&call, "DEL"))?;
    let left = scene.room(version);
    ensure(room == left, || format!("room for {room:?} before, for {left:?} after"))?;
    Ok(format!("room for {} as before", room.unwrap_or_default()))
}
