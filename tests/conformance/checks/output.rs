//! P7 to P10: what is printed, and which keys are let pass.

use serde_json::{Value, json};
use weir_tests::{Answer, Place};

use super::Check;
use crate::bench::{Bench, Scene, commands};
use crate::fake::Fake;
use crate::subject::World;
use crate::verdict::{
    Fault, Verdict, about, ensure, failed, list, not_offered, refused, refused_with, result,
    silent, told,
};

pub const CHECKS: &[Check] = &[
    Check::new("P7.one-result", "ADD prints one JSON document and nothing else", one_result),
    Check::new("P7.silence", "DEL, CHECK, GC and STATUS print nothing when they succeed", silence),
    Check::new(
        "P7.error-on-stdout",
        "an error of any command is one JSON document on stdout, with code and msg, and exit is not 0",
        error_on_stdout,
    ),
    Check::new(
        "P7.error-version",
        "an error has the configuration's cniVersion, where that could be read",
        error_version,
    ),
    Check::new("P8.codes", "version 1, variables 4, JSON 6, configuration 7", codes),
    Check::new(
        "P8.known-codes",
        "errors of any kind have a code of the list or above 99",
        known_codes,
    ),
    Check::new(
        "P8.never-unknown-container",
        "what fails after addresses were given is not code 3, which would leave out DEL",
        never_unknown_container,
    ),
    Check::new("P9.form-0.1.0", "the result of 0.1.0 has its form", |it| form(it, "0.1.0")),
    Check::new("P9.form-0.2.0", "the result of 0.2.0 has its form", |it| form(it, "0.2.0")),
    Check::new("P9.form-0.3.0", "the result of 0.3.0 has its form", |it| form(it, "0.3.0")),
    Check::new("P9.form-0.3.1", "the result of 0.3.1 has its form", |it| form(it, "0.3.1")),
    Check::new("P9.form-0.4.0", "the result of 0.4.0 has its form", |it| form(it, "0.4.0")),
    Check::new("P9.form-1.0.0", "the result of 1.0.0 has its form", |it| form(it, "1.0.0")),
    Check::new("P9.form-1.1.0", "the result of 1.1.0 has its form", |it| form(it, "1.1.0")),
    Check::new(
        "P9.two-families",
        "the results of 0.1.0 and 0.2.0 have one address of each family, in ip4 and ip6",
        two_families,
    ),
    Check::new("P9.no-address", "0.2.0 without any address is an error", no_address),
    Check::new(
        "P9.previous-without-version",
        "a prevResult without cniVersion has the configuration's",
        previous_without_version,
    ),
    Check::new(
        "P9.previous-of-another-version",
        "a prevResult of another version of the same form is read",
        previous_of_another_version,
    ),
    Check::new(
        "P10.unknown-keys",
        "ADD, CHECK, STATUS and DEL let unknown keys, cni.dev/… and capabilities pass",
        unknown_keys,
    ),
];

fn one_result(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let mut evidence = String::new();
    for version in bench.since("0.1.0")? {
        let call = scene.call(version, &scene.container(&format!("c{version}")));
        let answer = scene.run(&call, "ADD");
        about(version, result(&answer))?;
        evidence = told(&answer);
        silent(&scene.run(&call, "DEL"))?;
    }
    Ok(evidence)
}

fn silence(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let mut commands = Vec::new();
    for version in bench.since("0.1.0")? {
        commands = vec!["DEL", "DEL"];
        if version >= "0.4.0" {
            commands.insert(0, "CHECK");
        }
        if version >= "1.1.0" {
            commands.extend(["STATUS", "GC"]);
        }
        let call = scene.call(version, &scene.container(&format!("c{version}")));
        let added = result(&scene.run(&call, "ADD"))?;
        let call = call.configure("/prevResult", added);
        for command in &commands {
            about(&format!("{command} in {version}"), silent(&scene.run(&call, command)))?;
        }
    }
    Ok(commands.join(", "))
}

fn error_on_stdout(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let mut evidence = String::new();
    for version in bench.since("0.1.0")? {
        for command in commands(version) {
            for answer in failures(&scene, version, command) {
                about(&format!("{command} in {version}"), refused(&answer))?;
                evidence = told(&answer);
            }
        }
    }
    Ok(evidence)
}

fn error_version(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let mut evidence = String::new();
    for version in bench.since("0.1.0")? {
        let call = scene.call_for(version, "web");
        let bad_name = call.clone().configure("/name", "-".into());
        let mut tried: Vec<_> =
            commands(version).into_iter().map(|command| (command, bad_name.clone())).collect();
        tried.push(("ADD", call.clone().configure("/ipam", json!(7))));
        if version < "0.4.0" {
            tried.push(("CHECK", call));
        }
        for (command, call) in tried {
            let answer = scene.run(&call, command);
            about(&format!("{command} in {version}"), refused(&answer))?;
            let document: Value = serde_json::from_str(&answer.stdout).unwrap_or_default();
            let found = &document["cniVersion"];
            ensure(found == version, || {
                format!("{command} in {version}: cniVersion is {found}: {}", told(&answer))
            })?;
        }
        evidence = format!("{version} and all before");
    }
    Ok(evidence)
}

fn codes(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    for version in bench.since("0.1.0")? {
        for (answer, code) in failures(&scene, version, "ADD").iter().zip([4, 6, 7, 1]) {
            about(version, refused_with(answer, code))?;
        }
    }
    Ok("4, 6, 7 and 1, in each version".to_owned())
}

/// A bad variable, where the command looks at it, bad JSON, a bad name and a bad version.
fn failures(scene: &Scene<'_>, version: &str, command: &str) -> Vec<Answer> {
    let call = scene.call_for(version, "web");
    let mut answers = Vec::new();
    if !["GC", "STATUS"].contains(&command) {
        answers.push(scene.run(&call.clone().with("CNI_IFNAME", "a/b"), command));
    }
    answers.extend([
        scene.run_with(&call, command, "{"),
        scene.run(&call.clone().configure("/name", "-".into()), command),
        scene.run(&call.configure("/cniVersion", "9.9.9".into()), command),
    ]);
    answers
}

fn known_codes(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let call = scene.call(bench.newest()?, &scene.container("web"));
    let mut tried = vec![
        ("CNI_ARGS", call.clone().with("CNI_ARGS", "IP=x")),
        ("ipam", call.clone().configure("/ipam", json!(7))),
    ];
    if bench.is_main() {
        tried.extend([
            ("CNI_NETNS", call.clone().with("CNI_NETNS", "/run/netns/nobody")),
            ("ipam.type", call.clone().configure("/ipam/type", "nobody".into())),
        ]);
    }
    let mut evidence = Vec::new();
    for (what, call) in tried {
        let answer = scene.run(&call, "ADD");
        let code = about(what, refused(&answer))?.code;
        let known = matches!(code, 1..=2 | 4..=8 | 11 | 100..);
        ensure(known, || format!("{what}: {}", told(&answer)))?;
        evidence.push(format!("{what} {code}"));
    }
    Ok(evidence.join(", "))
}

fn never_unknown_container(bench: &Bench) -> Verdict {
    if !bench.is_main() {
        return not_offered("an IPAM plugin does not look at the container");
    }
    let scene = bench.usual()?;
    let container = scene.container("web");
    let call = scene.call(bench.newest()?, &container);
    container.run(&["ip", "link", "add", "eth0", "type", "bridge"]);
    let taken = scene.run(&call, "ADD");
    container.remove();
    for answer in [taken, scene.run(&call, "ADD")] {
        let code = refused(&answer)?.code;
        ensure(code != 3, || told(&answer))?;
    }
    Ok("interface taken, namespace gone: not code 3".to_owned())
}

fn form(bench: &Bench, version: &str) -> Verdict {
    bench.claims(version)?;
    if !bench.versions.contains(&version) {
        return not_offered(format!("{} does not claim {version}", bench.pair.ipam.name));
    }
    let scene = bench.usual()?;
    let answer = scene.run(&scene.call(version, &scene.container("web")), "ADD");
    let document = result(&answer)?;
    if let Some(flaw) = flaw(&document, version) {
        return failed(format!("{flaw}: {}", told(&answer)));
    }
    if version < "0.3.0" {
        gateway_and_routes(bench, version)?;
    }
    Ok(told(&answer))
}

/// The result has the gateway of the address, and the routes with their own, both in ip4.
fn gateway_and_routes(bench: &Bench, version: &str) -> Result<(), Fault> {
    let Ok(scene) = bench.scene(World::Gateway) else { return Ok(()) };
    let route = json!({"dst": "198.51.100.0/24", "gw": "10.9.0.1"});
    let call = scene.call(version, &scene.container("web"));
    let answer = scene.run(&call.configure("/ipam/routes", json!([route])), "ADD");
    let four = &result(&answer)?["ip4"];
    let holds = four["gateway"] == "10.9.0.1" && list(four, "routes").contains(&route);
    ensure(holds, || format!("gateway or routes are not in ip4: {}", told(&answer)))
}

/// What is wrong with the form of a result that has an IPv4 address.
fn flaw(result: &Value, version: &str) -> Option<&'static str> {
    if result["cniVersion"] != version {
        return Some("cniVersion is another");
    }
    if version < "0.3.0" {
        let is_cidr = result["ip4"]["ip"].as_str().is_some_and(|ip| ip.contains('/'));
        return match () {
            () if !is_cidr => Some("ip4.ip is not an address with prefix length"),
            () if result.get("ips").is_some() => Some("ips is of 0.3.0"),
            () if result.get("interfaces").is_some() => Some("interfaces is of 0.3.0"),
            () => None,
        };
    }
    let ips = list(result, "ips");
    if ips.is_empty() {
        return Some("ips is missing");
    }
    let has_version = |ip: &Value| {
        let family =
            if ip["address"].as_str().unwrap_or_default().contains(':') { "6" } else { "4" };
        if version < "1.0.0" { ip["version"] == family } else { ip.get("version").is_none() }
    };
    if !ips.iter().all(has_version) {
        return Some("ips[].version is of 0.3.0 to 0.4.0, there required");
    }
    let newer = |interface: &Value| {
        ["mtu", "socketPath", "pciID"].iter().any(|key| interface.get(key).is_some())
    };
    if version < "1.1.0" && list(result, "interfaces").iter().any(newer) {
        return Some("mtu, socketPath and pciID are of 1.1.0");
    }
    None
}

fn two_families(bench: &Bench) -> Verdict {
    bench.claims("0.2.0")?;
    let scene = bench.scene(World::Dual)?;
    let mut evidence = String::new();
    for version in bench.since("0.1.0")?.into_iter().filter(|version| *version < "0.3.0") {
        let call = scene.call(version, &scene.container(&format!("c{version}")));
        let answer = scene.run(&call, "ADD");
        let document = about(version, result(&answer))?;
        let address = |family: &str| document[family]["ip"].as_str().unwrap_or_default().to_owned();
        let (four, six) = (address("ip4"), address("ip6"));
        let holds = four.starts_with("10.9.0.") && six.starts_with("fd00:9::");
        ensure(holds, || format!("{version}: {}", told(&answer)))?;
        evidence = format!("{four} and {six}");
    }
    Ok(evidence)
}

fn no_address(bench: &Bench) -> Verdict {
    if !bench.is_main() {
        return not_offered("an IPAM plugin cannot be made to give none");
    }
    bench.claims("0.2.0")?;
    let fake = Fake::of_version(bench, "0.2.0")?;
    fake.answers("ADD", &json!({"cniVersion": "0.2.0"}));
    let answer = fake.scene.run(&fake.call(&fake.scene.container("web")), "ADD");
    refused(&answer)?;
    Ok(told(&answer))
}

fn previous_without_version(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    for version in bench.since("0.4.0")? {
        let call = scene.call(version, &scene.container(&format!("c{version}")));
        let mut added = result(&scene.run(&call, "ADD"))?;
        added.as_object_mut().and_then(|members| members.remove("cniVersion"));
        let call = call.configure("/prevResult", added);
        about(version, silent(&scene.run(&call, "CHECK")))?;
        silent(&scene.run(&call, "DEL"))?;
    }
    Ok("CHECK passes".to_owned())
}

fn previous_of_another_version(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let versions = bench.since("0.3.0")?;
    let mut read = Vec::new();
    for (older, newer) in [("0.3.1", "0.4.0"), ("1.0.0", "1.1.0")] {
        if !(versions.contains(&older) && versions.contains(&newer)) {
            continue;
        }
        let container = scene.container(&format!("c{newer}"));
        let added = result(&scene.run(&scene.call(older, &container), "ADD"))?;
        let call = scene.call(newer, &container).configure("/prevResult", added);
        let what = format!("{older} in {newer}");
        about(&what, silent(&scene.run(&call, "CHECK")))?;
        silent(&scene.run(&call, "DEL"))?;
        read.push(what);
    }
    ensure(!read.is_empty(), || "no two versions of one form".to_owned())?;
    Ok(format!("CHECK of {} passes", read.join(", ")))
}

fn unknown_keys(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let keys = json!({
        "somethingElse": {"deep": [1, 2]},
        "capabilities": {"portMappings": true, "ips": true, "mac": true},
        "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]},
        "cni.dev/valid-attachments": [{"containerID": "other", "ifname": "eth0"}],
        "cni.dev/attachments": [{"containerID": "other", "ifname": "eth0"}],
        "cni.dev/of-tomorrow": true,
    });
    for version in bench.since("0.1.0")? {
        let call = scene.call(version, &scene.container(&format!("c{version}")));
        let mut configuration = call.configuration().clone();
        weir_tests::merge(&mut configuration, keys.clone());
        let run = |command: &str, configuration: &Value| {
            scene.run_with(&call, command, &configuration.to_string())
        };
        let added = about(version, result(&run("ADD", &configuration)))?;
        if version >= "0.4.0" {
            configuration["prevResult"] = added;
            about(version, silent(&run("CHECK", &configuration)))?;
        }
        if version >= "1.1.0" {
            about(version, silent(&run("STATUS", &configuration)))?;
        }
        about(version, silent(&run("DEL", &configuration)))?;
    }
    Ok("all let pass".to_owned())
}
