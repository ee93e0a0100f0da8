//! P1 to P3: the variables of a call.

use weir_tests::Call;

use super::Check;
use crate::bench::{Bench, Scene, commands};
use crate::verdict::{Fault, Verdict, about, ensure, refused_with, result, silent, told};

pub const CHECKS: &[Check] = &[
    Check::new("P1.unknown-command", "an unknown CNI_COMMAND is an error, code 4", unknown_command),
    Check::new(
        "P1.no-command",
        "without CNI_COMMAND: exit 0, the versions on stderr, nothing on stdout",
        no_command,
    ),
    Check::new(
        "P2.all-missing-named",
        "ADD, CHECK and DEL without what they require: code 4, naming all that is missing",
        all_missing_named,
    ),
    Check::new("P2.empty-is-missing", "an empty required variable is a missing one", empty),
    Check::new("P2.del-without-namespace", "DEL does not require CNI_NETNS", del_without_namespace),
    Check::new("P2.gc-needs-path", "GC without CNI_PATH: code 4, naming it", gc_needs_path),
    Check::new(
        "P2.gc-and-status-need-no-container",
        "GC and STATUS take empty CNI_CONTAINERID, CNI_NETNS and CNI_IFNAME, as libcni sends",
        no_container,
    ),
    Check::new("P2.version-needs-nothing", "VERSION requires no other variable", version_alone),
    Check::new(
        "P3.bad-container-id",
        "ADD, CHECK and DEL refuse a container id outside of [a-zA-Z0-9][a-zA-Z0-9_.-]*, code 4, naming it",
        bad_container_id,
    ),
    Check::new(
        "P3.bad-interface-name",
        "ADD, CHECK and DEL refuse a CNI_IFNAME that Linux would not take, code 4, naming it",
        bad_interface_name,
    ),
    Check::new(
        "P3.bad-network-name",
        "a bad or missing network name is code 7 in each command, naming it",
        bad_network_name,
    ),
    Check::new(
        "P3.good-names",
        "ids and interface names at the edge of what is allowed work",
        good_names,
    ),
];

const CONTAINER: [&str; 3] = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];

fn unknown_command(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let mut evidence = String::new();
    for version in bench.since("0.1.0")? {
        let answer = scene.run(&scene.call_for(version, "web"), "ATTACH");
        about(version, refused_with(&answer, 4))?;
        evidence = told(&answer);
    }
    Ok(evidence)
}

fn no_command(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let version = bench.newest()?;
    let answer = scene.run_without_command(&scene.call_for(version, "web"));
    let holds = answer.succeeded && answer.stdout.is_empty() && answer.stderr.contains(version);
    ensure(holds, || format!("{}; stderr {:?}", told(&answer), answer.stderr))?;
    Ok(format!("stderr {:?}", answer.stderr.trim()))
}

/// The commands with what they require, in this version.
fn required(version: &str) -> Vec<(&'static str, &'static [&'static str])> {
    let mut commands: Vec<(_, &[_])> =
        vec![("ADD", &CONTAINER), ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME"])];
    if version >= "0.4.0" {
        commands.push(("CHECK", &CONTAINER));
    }
    commands
}

fn all_missing_named(bench: &Bench) -> Verdict {
    missing(bench, |call, variable| call.without(variable))
}

fn empty(bench: &Bench) -> Verdict {
    missing(bench, |call, variable| call.with(variable, ""))
}

fn missing(bench: &Bench, take: fn(Call, &str) -> Call) -> Verdict {
    let scene = bench.usual()?;
    let mut evidence = String::new();
    for version in bench.since("0.1.0")? {
        for (command, required) in required(version) {
            let call =
                CONTAINER.iter().fold(scene.call_for(version, "web"), |call, it| take(call, it));
            let answer = scene.run(&call, command);
            let failure = about(&format!("{command} in {version}"), refused_with(&answer, 4))?;
            let named = required.iter().all(|variable| failure.text.contains(variable));
            ensure(named, || format!("{command} does not name all: {}", told(&answer)))?;
            evidence = told(&answer);
        }
    }
    Ok(evidence)
}

fn del_without_namespace(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    for version in bench.since("0.1.0")? {
        let call = scene.call_for(version, "web").without("CNI_NETNS");
        about(version, silent(&scene.run(&call, "DEL")))?;
    }
    Ok("exit 0, nothing printed".to_owned())
}

fn gc_needs_path(bench: &Bench) -> Verdict {
    bench.claims("1.1.0")?;
    let scene = bench.usual()?;
    let call = scene.call_for("1.1.0", "web").without("CNI_PATH");
    let answer = scene.run(&call, "GC");
    let failure = refused_with(&answer, 4)?;
    ensure(failure.text.contains("CNI_PATH"), || told(&answer))?;
    Ok(told(&answer))
}

fn no_container(bench: &Bench) -> Verdict {
    bench.claims("1.1.0")?;
    let scene = bench.usual()?;
    for empty in [true, false] {
        for command in ["GC", "STATUS"] {
            let take = |call: Call, it: &&str| {
                if empty { call.with(it, "") } else { call.without(it) }
            };
            let call = CONTAINER.iter().fold(scene.call_for("1.1.0", "web"), take);
            about(command, silent(&scene.run(&call, command)))?;
        }
    }
    Ok("exit 0, nothing printed".to_owned())
}

fn version_alone(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let call =
        CONTAINER.iter().fold(scene.call_for(bench.newest()?, "web"), |call, it| call.without(it));
    let answer = scene.run(&call.without("CNI_PATH"), "VERSION");
    result(&answer)?;
    Ok(told(&answer))
}

fn bad_container_id(bench: &Bench) -> Verdict {
    let bad = ["../web", "-web", ".web", "_web", "a/b", "a b", "a:b", "wëb", "a\nb"];
    refuses_each(bench, "CNI_CONTAINERID", "containerid", &bad)
}

fn bad_interface_name(bench: &Bench) -> Verdict {
    let bad = [".", "..", "a/b", "a:b", "a b", "a\tb", "a\u{a0}b", "sixteen-bytes-xx"];
    refuses_each(bench, "CNI_IFNAME", "if|interface", &bad)
}

/// `named` are the words for the variable, in small letters and without underscores, one
/// of which must be said.
fn refuses_each(bench: &Bench, variable: &str, named: &str, bad: &[&str]) -> Verdict {
    let scene = bench.usual()?;
    let mut evidence = String::new();
    for version in bench.since("0.1.0")? {
        for value in bad {
            for (command, _) in required(version) {
                let call = scene.call_for(version, "web").with(variable, value);
                let answer = scene.run(&call, command);
                let tried = format!("{command} {value:?} in {version}");
                let text = about(&tried, refused_with(&answer, 4))?.text;
                let text = text.to_lowercase().replace('_', "");
                let is_named = named.split('|').any(|word| text.contains(word));
                ensure(is_named, || format!("{tried} does not name it: {}", told(&answer)))?;
                evidence = told(&answer);
            }
        }
    }
    Ok(evidence)
}

fn bad_network_name(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let mut evidence = String::new();
    for version in bench.since("0.1.0")? {
        let call = scene.call_for(version, "web");
        let mut inputs: Vec<String> = ["", "-pods", "a b", "a/b", "../a", "päds"]
            .map(|name| call.clone().configure("/name", name.into()).configuration().to_string())
            .into();
        let mut configuration = call.configuration().clone();
        configuration.as_object_mut().and_then(|members| members.remove("name"));
        inputs.push(configuration.to_string());
        for input in inputs {
            for command in commands(version) {
                let answer = scene.run_with(&call, command, &input);
                let tried = format!("{command} with {input}");
                let failure = about(&tried, refused_with(&answer, 7))?;
                let is_named = failure.text.contains("name");
                ensure(is_named, || format!("{tried} does not name it: {}", told(&answer)))?;
                evidence = told(&answer);
            }
        }
    }
    Ok(evidence)
}

fn good_names(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let version = bench.newest()?;
    let long = "0123456789abcdef".repeat(4);
    let name_of = |id: &str| format!("c{}", id.len());
    for (id, interface) in [("0", "x"), ("Z_.-z", "fifteen-bytes-x"), (&long, "ETH_0.1-2")] {
        let call = scene.call(version, &scene.container(&name_of(id)));
        add_and_delete(&scene, &call.with("CNI_CONTAINERID", id).with("CNI_IFNAME", interface))?;
    }
    Ok("all added and deleted".to_owned())
}

fn add_and_delete(scene: &Scene<'_>, call: &Call) -> Result<(), Fault> {
    result(&scene.run(call, "ADD"))?;
    silent(&scene.run(call, "DEL"))
}
