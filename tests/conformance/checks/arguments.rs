//! P11 to P13: what the user of a runtime asks for, and many calls at once.

use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};
use weir_tests::{Answer, Call, Place};

use super::Check;
use crate::bench::{Bench, Scene};
use crate::subject::{FREE, World};
use crate::verdict::{
    Verdict, about, addresses, bare, ensure, failed, not_offered, refused, result, silent, told,
};

pub const CHECKS: &[Check] = &[
    Check::new("P11.pairs", "CNI_ARGS that are not KEY=VALUE;KEY=VALUE are an error", pairs),
    Check::new("P11.unknown-key", "an unknown key in CNI_ARGS is an error [R]", unknown_key),
    Check::new("P11.ignore-unknown", "IgnoreUnknown=1 or true, in any case, allows it", ignored),
    Check::new("P11.case", "keys in CNI_ARGS are case-sensitive: ip= is unknown [R]", case),
    Check::new("P11.kubernetes", "what Kubernetes sends in CNI_ARGS works", kubernetes),
    Check::new(
        "P12.addresses",
        "of addresses asked for, runtimeConfig goes before args.cni before CNI_ARGS",
        asked_addresses,
    ),
    Check::new(
        "P12.mac",
        "of hardware addresses asked for, runtimeConfig goes before args.cni before CNI_ARGS",
        asked_mac,
    ),
    Check::new(
        "P13.concurrent",
        "ADDs and DELs at the same time all work, no address twice",
        concurrent,
    ),
];

/// The plugin's answer to ADD with these `CNI_ARGS`, on the usual scene.
fn add_with(scene: &Scene<'_>, version: &str, name: &str, arguments: &str) -> Answer {
    let call = scene.call(version, &scene.container(name)).with("CNI_ARGS", arguments);
    let answer = scene.run(&call, "ADD");
    scene.run(&call.with("CNI_ARGS", ""), "DEL");
    answer
}

fn pairs(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let version = bench.newest()?;
    let mut evidence = String::new();
    for (number, bad) in
        ["IgnoreUnknown=1;", "IgnoreUnknown=1;A=b=c", "IgnoreUnknown=1;A"].iter().enumerate()
    {
        let answer = add_with(&scene, version, &format!("c{number}"), bad);
        about(bad, refused(&answer))?;
        evidence = told(&answer);
    }
    Ok(evidence)
}

fn unknown_key(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let version = bench.newest()?;
    let mut evidence = String::new();
    for (number, bad) in ["COLOUR=red", "COLOUR=red;IgnoreUnknown=0"].iter().enumerate() {
        let answer = add_with(&scene, version, &format!("c{number}"), bad);
        about(bad, refused(&answer))?;
        evidence = told(&answer);
    }
    Ok(evidence)
}

fn ignored(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let version = bench.newest()?;
    for (number, yes) in ["1", "true", "TRUE", "True"].iter().enumerate() {
        let arguments = format!("COLOUR=red;IgnoreUnknown={yes}");
        let answer = add_with(&scene, version, &format!("c{number}"), &arguments);
        about(&arguments, result(&answer))?;
    }
    Ok("1, true, TRUE, True".to_owned())
}

fn case(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let version = bench.newest()?;
    let lower = add_with(&scene, version, "lower", &format!("ip={FREE}"));
    refused(&lower)?;
    let ignored = add_with(&scene, version, "ignored", &format!("IgnoreUnknown=1;ip={FREE}"));
    let given = addresses(&result(&ignored)?);
    ensure(given.iter().all(|it| bare(it) != FREE), || format!("ip= was obeyed: {given:?}"))?;
    Ok(told(&lower))
}

fn kubernetes(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    for version in bench.since("0.1.0")? {
        let arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0;\
                         K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_UID=7b9e";
        let answer = add_with(&scene, version, &format!("c{version}"), arguments);
        about(version, result(&answer))?;
    }
    Ok("works in each version".to_owned())
}

/// A call that asks for something by one of the three ways.
type Ask = fn(Call, &Asked) -> Call;

/// What is asked for: the key in `CNI_ARGS`, the one elsewhere, and its value.
struct Asked {
    argument: &'static str,
    key: &'static str,
    text: &'static str,
    value: Value,
}

/// The three ways, the strongest first.
const WAYS: [(&str, Ask); 3] = [
    ("runtimeConfig", |call, asked| {
        let wanted = json!({asked.key: asked.value});
        call.configure("/capabilities", json!({asked.key: true}))
            .configure("/runtimeConfig", wanted)
    }),
    ("args.cni", |call, asked| call.configure("/args", json!({"cni": {asked.key: asked.value}}))),
    ("CNI_ARGS", |call, asked| {
        call.with("CNI_ARGS", &format!("{}={}", asked.argument, asked.text))
    }),
];

fn asked_addresses(bench: &Bench) -> Verdict {
    let asked = [FREE, "10.9.0.78", "10.9.0.79"].map(|text| Asked {
        argument: "IP",
        key: "ips",
        text,
        value: json!([text]),
    });
    precedence(bench, &asked, |_, result| {
        addresses(result).iter().map(|it| bare(it).to_owned()).collect()
    })
}

fn asked_mac(bench: &Bench) -> Verdict {
    if !bench.is_main() {
        return not_offered("an IPAM plugin makes no interface");
    }
    let macs = ["02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c"];
    let asked = macs.map(|text| Asked { argument: "MAC", key: "mac", text, value: json!(text) });
    precedence(bench, &asked, |link, _| {
        vec![link["address"].as_str().unwrap_or_default().to_owned()]
    })
}

/// Finds out which ways there are, each alone, and that the strongest of them
/// wins. `given` sees the container's link and the result.
fn precedence(
    bench: &Bench,
    asked: &[Asked; 3],
    given: fn(&Value, &Value) -> Vec<String>,
) -> Verdict {
    let scene = bench.usual()?;
    let version = bench.since("0.3.0")?.pop().unwrap_or_default();
    let outcome = |name: &str, ask: &dyn Fn(Call) -> Call| {
        let container = scene.container(name);
        let call = scene.call(version, &container);
        let answer = scene.run(&ask(call.clone()), "ADD");
        let added = result(&answer).map(|document| {
            let link = if bench.is_main() { container.link("eth0") } else { Value::Null };
            given(&link, &document)
        });
        scene.run(&call, "DEL");
        added.map_err(|_| told(&answer))
    };
    let obeyed = |index: usize| {
        let alone = outcome(&format!("alone{index}"), &|call| WAYS[index].1(call, &asked[index]));
        alone.is_ok_and(|given| given.iter().any(|it| it == asked[index].text))
    };
    let ways: Vec<usize> = (0..WAYS.len()).filter(|index| obeyed(*index)).collect();
    let Some(strongest) = ways.first() else {
        return not_offered(format!("{} cannot be asked for it", bench.name()));
    };
    let names: Vec<&str> = ways.iter().map(|index| WAYS[*index].0).collect();
    let all = |call| ways.iter().fold(call, |call, index| WAYS[*index].1(call, &asked[*index]));
    match outcome("all", &all) {
        Ok(given) if given.iter().any(|it| it == asked[*strongest].text) => {
            Ok(format!("{} wins", names.join(" > ")))
        }
        Ok(given) => failed(format!("of {}: {given:?}", names.join(", "))),
        Err(told) => {
            not_offered(format!("takes {} together, not one of them: {told}", names.join(", ")))
        }
    }
}

fn concurrent(bench: &Bench) -> Verdict {
    if bench.pair.ipam.section(World::Small).is_none() {
        return not_offered(format!("{} gives all the same address", bench.pair.ipam.name));
    }
    let scene = bench.usual()?;
    let version = bench.since("0.3.0")?.pop().unwrap_or_default();
    let calls: Vec<Call> =
        (0..8).map(|number| scene.call(version, &scene.container(&format!("c{number}")))).collect();
    let all = |command: &str| -> Vec<Answer> {
        thread::scope(|scope| {
            let running: Vec<_> =
                calls.iter().map(|call| scope.spawn(|| scene.run(call, command))).collect();
            running.into_iter().map(|it| it.join().expect("a call was made")).collect()
        })
    };
    let mut given = Vec::new();
    for answer in all("ADD") {
        given.extend(addresses(&result(&answer)?));
    }
    let different = given.iter().collect::<BTreeSet<_>>().len();
    ensure(different == given.len(), || format!("one twice: {given:?}"))?;
    for answer in all("DEL") {
        silent(&answer)?;
    }
    Ok(format!("{} calls, {different} addresses", calls.len()))
}
