//! I4 to I7: what an IPAM plugin keeps on record.

use serde_json::{Value, json};
use weir_tests::{Answer, Call};

use super::Check;
use super::main_collect::{collect, only, status};
use crate::bench::{Bench, Scene};
use crate::subject::{ROOM_LIMIT, World};
use crate::verdict::{
    Fault, Verdict, about, ensure, not_offered, refused, refused_with, result, silent, told,
};

pub const CHECKS: &[Check] = &[
    Check::new("I4.nothing", "DEL of nothing: exit 0, in each version", nothing),
    Check::new("I4.unreachable", "DEL is code 11 while the record cannot be reached", unreachable),
    Check::new("I5.reserved", "CHECK of what was just added passes", reserved),
    Check::new("I5.released", "CHECK notices that the address was released", released),
    Check::new(
        "I5.other-address",
        "CHECK notices a prevResult with another address",
        other_address,
    ),
    Check::new("I6.drops-unlisted", "GC frees what is not in cni.dev/valid-attachments", drops),
    Check::new("I6.keeps-listed", "GC keeps what is in it", keeps),
    Check::new("I6.no-list", "GC without a list keeps what was just given", no_list),
    Check::new("I6.other-network", "GC leaves addresses of other networks alone", other_network),
    Check::new("I6.other-host", "GC leaves addresses of other hosts alone", other_host),
    Check::new("I7.ready", "STATUS prints nothing while there are addresses", ready),
    Check::new("I7.exhausted", "STATUS is code 50 when there is no address left", exhausted),
    Check::new("I7.unreachable", "STATUS is code 50 while the record cannot be reached", down),
];

fn nothing(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    for version in bench.since("0.1.0")? {
        about(version, silent(&scene.run(&scene.call_for(version, "nobody"), "DEL")))?;
    }
    Ok("exit 0, nothing printed".to_owned())
}

fn unreachable(bench: &Bench) -> Verdict {
    let scene = bench.scene(World::Unreachable)?;
    let answer = scene.run(&scene.call_for(bench.newest()?, "web"), "DEL");
    refused_with(&answer, 11)?;
    Ok(told(&answer))
}

/// CHECK of an earlier ADD's result.
fn check(scene: &Scene<'_>, call: &Call, result: &Value) -> Answer {
    scene.run(&call.clone().configure("/prevResult", result.clone()), "CHECK")
}

fn reserved(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    for version in bench.since("0.4.0")? {
        let call = scene.call_for(version, &format!("c{version}"));
        let added = result(&scene.run(&call, "ADD"))?;
        about(version, silent(&check(&scene, &call, &added)))?;
    }
    Ok("passes".to_owned())
}

fn released(bench: &Bench) -> Verdict {
    if bench.pair.ipam.section(World::Small).is_none() {
        return not_offered("it keeps no record");
    }
    let scene = bench.usual()?;
    let call = scene.call_for(bench.since("0.4.0")?.pop().unwrap_or_default(), "web");
    let added = result(&scene.run(&call, "ADD"))?;
    silent(&scene.run(&call, "DEL"))?;
    let answer = check(&scene, &call, &added);
    refused(&answer)?;
    Ok(told(&answer))
}

fn other_address(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let call = scene.call_for(bench.since("0.4.0")?.pop().unwrap_or_default(), "web");
    let mut added = result(&scene.run(&call, "ADD"))?;
    added["ips"][0]["address"] = "10.9.0.99/24".into();
    let answer = check(&scene, &call, &added);
    refused(&answer)?;
    Ok(told(&answer))
}

/// Two containers with an address each.
fn two<'a>(bench: &'a Bench, world: World) -> Result<(Scene<'a>, [(Call, Value); 2]), Fault> {
    bench.claims("1.1.0")?;
    let scene = bench.scene(world)?;
    let add = |id: &str| {
        let call = scene.call_for("1.1.0", id);
        result(&scene.run(&call, "ADD")).map(|added| (call, added))
    };
    let added = [add("web")?, add("db")?];
    Ok((scene, added))
}

fn drops(bench: &Bench) -> Verdict {
    let (scene, [(web, _), (db, added)]) = two(bench, World::Small)?;
    let full = scene.room("1.1.0");
    silent(&collect(&scene, &web, Some(only("web"))))?;
    refused(&check(&scene, &db, &added))?;
    let after = scene.room("1.1.0");
    let freed = full.zip(after).is_some_and(|(full, after)| after == full + 1);
    ensure(freed, || format!("room for {full:?} before, for {after:?} after"))?;
    silent(&collect(&scene, &web, Some(json!([]))))?;
    let after = scene.room("1.1.0");
    let freed = full.zip(after).is_some_and(|(full, after)| after == full + 2);
    ensure(freed, || format!("after an empty list room for {after:?}"))?;
    Ok("the address is free again".to_owned())
}

fn keeps(bench: &Bench) -> Verdict {
    let (scene, [(web, added), _]) = two(bench, World::Usual)?;
    silent(&collect(&scene, &web, Some(only("web"))))?;
    about("CHECK", silent(&check(&scene, &web, &added)))?;
    Ok("CHECK passes".to_owned())
}

fn no_list(bench: &Bench) -> Verdict {
    let (scene, added) = two(bench, World::Usual)?;
    silent(&collect(&scene, &added[0].0, None))?;
    for (call, added) in &added {
        about("CHECK", silent(&check(&scene, call, added)))?;
    }
    Ok("CHECK of both passes".to_owned())
}

/// GC of everything by a call that is not of theirs must leave both.
fn left_alone(bench: &Bench, change: impl Fn(Call) -> Call) -> Verdict {
    let (scene, added) = two(bench, World::Usual)?;
    let other = change(added[0].0.clone());
    about("GC", silent(&collect(&scene, &other, Some(json!([])))))?;
    for (call, added) in &added {
        about("CHECK", silent(&check(&scene, call, added)))?;
    }
    Ok("CHECK of both passes".to_owned())
}

fn other_network(bench: &Bench) -> Verdict {
    left_alone(bench, |call| call.configure("/name", "other".into()))
}

fn other_host(bench: &Bench) -> Verdict {
    bench.claims("1.1.0")?;
    let Some(Value::Object(keys)) = bench.pair.ipam.other_host() else {
        return not_offered("hosts share no record");
    };
    left_alone(bench, |call| {
        keys.iter()
            .fold(call, |call, (key, value)| call.configure(&format!("/{key}"), value.clone()))
    })
}

fn ready(bench: &Bench) -> Verdict {
    bench.claims("1.1.0")?;
    let scene = bench.usual()?;
    silent(&status(&scene, &scene.call_for("1.1.0", "web")))?;
    Ok("exit 0, nothing printed".to_owned())
}

fn exhausted(bench: &Bench) -> Verdict {
    bench.claims("1.1.0")?;
    let scene = bench.scene(World::Small)?;
    let call = |number: usize| scene.call_for("1.1.0", &format!("c{number}"));
    let taken = (0..ROOM_LIMIT).take_while(|number| scene.run(&call(*number), "ADD").succeeded);
    let taken = taken.count();
    let answer = status(&scene, &call(0));
    refused_with(&answer, 50)?;
    silent(&scene.run(&call(0), "DEL"))?;
    about("with one address free", silent(&status(&scene, &call(0))))?;
    Ok(format!("after {taken} ADDs {}", told(&answer)))
}

fn down(bench: &Bench) -> Verdict {
    bench.claims("1.1.0")?;
    let scene = bench.scene(World::Unreachable)?;
    let answer = status(&scene, &scene.call_for("1.1.0", "web"));
    refused_with(&answer, 50)?;
    Ok(told(&answer))
}
