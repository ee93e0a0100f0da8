//! P4 to P6: standard input, and which versions are spoken.

use std::fs::File;

use serde_json::Value;

use super::Check;
use crate::bench::{Bench, VERSIONS, commands};
use crate::verdict::{Verdict, about, ensure, failed, list, refused_with, result, silent, told};

pub const CHECKS: &[Check] = &[
    Check::new("P4.unreadable", "standard input that cannot be read is code 5", unreadable),
    Check::new(
        "P4.not-json",
        "input that is not a JSON object, or has a cniVersion that is not a text, is code 6",
        not_json,
    ),
    Check::new("P4.name-first", "a missing name is reported before a bad version", name_first),
    Check::new(
        "P4.unknown-version",
        "an unknown cniVersion is code 1, listing those supported",
        unknown_version,
    ),
    Check::new("P4.exact-version", "cniVersion is compared as text: 1.0 is not 1.0.0", exact),
    Check::new("P4.no-version", "without cniVersion it is 0.1.0", no_version),
    Check::new(
        "P4.no-number",
        "a cniVersion that is not a version at all is code 6 in CHECK, GC and STATUS [R]",
        no_number,
    ),
    Check::new("P5.check", "CHECK below 0.4.0 is code 1", check_too_old),
    Check::new("P5.gc", "GC below 1.1.0 is code 1", |bench| too_old(bench, "GC")),
    Check::new("P5.status", "STATUS below 1.1.0 is code 1", |bench| too_old(bench, "STATUS")),
    Check::new("P6.versions", "VERSION lists the versions supported", versions),
    Check::new("P6.echo", "VERSION repeats the cniVersion of its input [S]", echo),
    Check::new("P6.terminal", "VERSION does not wait for a terminal", terminal),
];

fn unreadable(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let call = scene.call_for(bench.newest()?, "web");
    let mut evidence = String::new();
    for command in commands(bench.newest()?) {
        let directory = File::open("/").expect("a directory can be opened");
        let answer = scene.run_from(&call, command, directory);
        about(command, refused_with(&answer, 5))?;
        evidence = told(&answer);
    }
    Ok(evidence)
}

fn not_json(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let call = scene.call_for(bench.newest()?, "web");
    let mut evidence = String::new();
    for input in ["", "{", "[]", "\"text\"", "{\"name\": \"pods\", \"cniVersion\": 1}"] {
        for command in commands(bench.newest()?) {
            let answer = scene.run_with(&call, command, input);
            let failure = about(&format!("{command} {input:?}"), refused_with(&answer, 6))?;
            let is_named = !input.contains("cniVersion") || failure.text.contains("cniVersion");
            ensure(is_named, || format!("{command} does not name it: {}", told(&answer)))?;
            evidence = told(&answer);
        }
    }
    Ok(evidence)
}

fn name_first(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let call = scene.call_for(bench.newest()?, "web");
    let call = call.configure("/name", "-".into()).configure("/cniVersion", "9.9.9".into());
    let mut evidence = String::new();
    for command in commands(bench.newest()?) {
        let answer = scene.run(&call, command);
        about(command, refused_with(&answer, 7))?;
        evidence = told(&answer);
    }
    Ok(evidence)
}

fn unknown_version(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let call = scene.call_for(bench.newest()?, "web").configure("/cniVersion", "9.9.9".into());
    let mut evidence = String::new();
    for command in commands(bench.newest()?) {
        let answer = scene.run(&call, command);
        let failure = about(command, refused_with(&answer, 1))?;
        // The reference does not list them where the command compares versions.
        let listed = !["ADD", "DEL"].contains(&command)
            || bench.claimed.iter().all(|version| failure.text.contains(version));
        ensure(listed, || format!("{command} does not list them: {}", told(&answer)))?;
        evidence = told(&answer);
    }
    Ok(evidence)
}

fn exact(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let call = scene.call_for(bench.newest()?, "web");
    let mut evidence = String::new();
    for version in ["1.0", "v1.0.0", "1.0.0 ", "1.0.00"] {
        let call = call.clone().configure("/cniVersion", version.into());
        // In the others, one that is not a version at all is P4.no-number's.
        let is_number = ["1.0", "1.0.00"].contains(&version);
        for command in commands(bench.newest()?) {
            if is_number || ["ADD", "DEL"].contains(&command) {
                let answer = scene.run(&call, command);
                about(&format!("{command} {version:?}"), refused_with(&answer, 1))?;
                evidence = told(&answer);
            }
        }
    }
    Ok(evidence)
}

fn no_version(bench: &Bench) -> Verdict {
    bench.claims("0.1.0")?;
    let scene = bench.usual()?;
    let call = scene.call("0.1.0", &scene.container("web"));
    let mut configuration = call.configuration().clone();
    configuration.as_object_mut().and_then(|members| members.remove("cniVersion"));
    let answer = scene.run_with(&call, "ADD", &configuration.to_string());
    let document = result(&answer)?;
    ensure(document["ip4"]["ip"].is_string(), || told(&answer))?;
    silent(&scene.run_with(&call, "DEL", &configuration.to_string()))?;
    for command in commands(bench.newest()?) {
        if !["ADD", "DEL"].contains(&command) {
            let answer = scene.run_with(&call, command, &configuration.to_string());
            about(command, refused_with(&answer, 1))?;
        }
    }
    Ok(told(&answer))
}

fn no_number(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let call = scene.call_for(bench.newest()?, "web").configure("/cniVersion", "new".into());
    let mut commands = vec!["CHECK"];
    if bench.claims("1.1.0").is_ok() {
        commands.extend(["GC", "STATUS"]);
    }
    let mut evidence = String::new();
    for command in commands {
        let answer = scene.run(&call, command);
        about(command, refused_with(&answer, 6))?;
        evidence = told(&answer);
    }
    Ok(evidence)
}

fn check_too_old(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let mut evidence = String::new();
    for version in bench.since("0.1.0")?.into_iter().filter(|version| *version < "0.4.0") {
        let answer = scene.run(&scene.call_for(version, "web"), "CHECK");
        let failure = about(version, refused_with(&answer, 1))?;
        ensure(failure.text.contains("CHECK"), || format!("{version}: {}", told(&answer)))?;
        evidence = told(&answer);
    }
    Ok(evidence)
}

fn too_old(bench: &Bench, command: &str) -> Verdict {
    bench.claims("1.1.0")?;
    let scene = bench.usual()?;
    let mut evidence = String::new();
    for version in bench.since("0.1.0")?.into_iter().filter(|version| *version < "1.1.0") {
        let answer = scene.run(&scene.call_for(version, "web"), command);
        let failure = about(version, refused_with(&answer, 1))?;
        ensure(failure.text.contains(command), || format!("{version}: {}", told(&answer)))?;
        evidence = told(&answer);
    }
    Ok(evidence)
}

fn versions(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let answer = scene.run(&scene.call_for(bench.newest()?, "web"), "VERSION");
    let document = result(&answer)?;
    ensure(document["cniVersion"].is_string(), || told(&answer))?;
    let listed: Vec<&str> =
        list(&document, "supportedVersions").iter().filter_map(Value::as_str).collect();
    let unknown = listed.iter().find(|version| !VERSIONS.contains(version));
    match unknown {
        Some(version) => failed(format!("there is no version {version}")),
        None if listed.is_empty() => failed(told(&answer)),
        None => Ok(listed.join(" ")),
    }
}

fn echo(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    for version in bench.since("0.1.0")? {
        let answer = scene.run(&scene.call_for(version, "web"), "VERSION");
        let document = result(&answer)?;
        let echoed = document["cniVersion"] == version;
        ensure(echoed, || format!("asked in {version}: {}", told(&answer)))?;
    }
    Ok("each was repeated".to_owned())
}

fn terminal(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    // This end of a terminal is one, too, and nobody types at the other.
    let terminal = File::options().read(true).write(true).open("/dev/ptmx");
    let terminal = terminal.expect("Linux has pseudo terminals");
    let answer = scene.run_from(&scene.call_for(bench.newest()?, "web"), "VERSION", terminal);
    result(&answer)?;
    Ok(told(&answer))
}
