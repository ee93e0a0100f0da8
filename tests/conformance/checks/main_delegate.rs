//! M3 and M4: the IPAM plugin is run, and given back what it gave.

use serde_json::json;
use weir_tests::{Place, Snapshot};

use super::Check;
use crate::bench::{Bench, is_as_before};
use crate::fake::{Fake, WORDS};
use crate::subject::World;
use crate::verdict::{Verdict, about, ensure, refused, refused_with, result, silent, told};

pub const CHECKS: &[Check] = &[
    Check::new("M3.searched", "ipam.type is looked for in each directory of CNI_PATH", searched),
    Check::new("M3.no-path", "ipam.type with a slash is refused and not run", no_path),
    Check::new("M3.environment", "the IPAM plugin gets the same variables", same_environment),
    Check::new("M3.input", "the IPAM plugin gets the whole configuration", same_input),
    Check::new("M3.stderr", "what the IPAM plugin writes to stderr is passed on", stderr),
    Check::new("M3.code", "an error of the IPAM plugin keeps its code and message", code),
    Check::new(
        "M4.no-address",
        "a result without addresses is an error, and DEL is delegated",
        no_address,
    ),
    Check::new(
        "M4.no-result",
        "an answer that is not a result is an error, and DEL is delegated",
        no_result,
    ),
    Check::new(
        "M4.only-command-differs",
        "the delegated DEL has ADD's variables and input",
        only_command,
    ),
    Check::new(
        "M4.interface-taken",
        "what the IPAM plugin gave is given back when the interface is there already",
        interface_taken,
    ),
    Check::new(
        "M4.nothing-left",
        "a failed ADD leaves host, container and addresses as they were",
        nothing_left,
    ),
];

fn searched(bench: &Bench) -> Verdict {
    let fake = Fake::new(bench)?;
    let call = fake.call(&fake.scene.container("web"));
    result(&fake.scene.run(&call, "ADD"))?;
    ensure(fake.was_asked("ADD"), || "another plugin was run".to_owned())?;
    let nobody = call.configure("/ipam/type", "nobody".into());
    let answer = fake.scene.run(&nobody.with("CNI_IFNAME", "eth1"), "ADD");
    refused(&answer)?;
    Ok(format!("found in the last directory; one that is nowhere: {}", told(&answer)))
}

fn no_path(bench: &Bench) -> Verdict {
    let fake = Fake::new(bench)?;
    let call = fake.call(&fake.scene.container("web"));
    let mut evidence = String::new();
    for kind in ["../bin/fake-ipam", "/run/fake/bin/fake-ipam"] {
        let answer = fake.scene.run(&call.clone().configure("/ipam/type", kind.into()), "ADD");
        about(kind, refused(&answer))?;
        ensure(!fake.was_asked("ADD"), || format!("{kind} was run"))?;
        evidence = told(&answer);
    }
    Ok(evidence)
}

fn same_environment(bench: &Bench) -> Verdict {
    let fake = Fake::new(bench)?;
    let arguments = "IgnoreUnknown=1;K8S_POD_NAME=cart-0";
    let call = fake.call(&fake.scene.container("web")).with("CNI_ARGS", arguments);
    result(&fake.scene.run(&call, "ADD"))?;
    let got = fake.environment("ADD");
    for (name, value) in [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "web"),
        ("CNI_NETNS", "/run/netns/web"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", arguments),
    ] {
        let holds = got.get(name).is_some_and(|it| it == value);
        ensure(holds, || format!("{name} is {:?}", got.get(name)))?;
    }
    let path = got.get("CNI_PATH").map(String::as_str).unwrap_or_default();
    ensure(path.ends_with("/run/fake/bin"), || format!("CNI_PATH is {path:?}"))?;
    Ok(format!("{} variables", got.len()))
}

fn same_input(bench: &Bench) -> Verdict {
    let fake = Fake::new(bench)?;
    let call = fake.call(&fake.scene.container("web")).configure("/unknownKey", json!([{"a": 1}]));
    result(&fake.scene.run(&call, "ADD"))?;
    let got = fake.input("ADD");
    ensure(&got == call.configuration(), || format!("it got {got}"))?;
    Ok("the same document".to_owned())
}

fn stderr(bench: &Bench) -> Verdict {
    let fake = Fake::new(bench)?;
    let answer = fake.scene.run(&fake.call(&fake.scene.container("web")), "ADD");
    result(&answer)?;
    ensure(answer.stderr.contains(WORDS), || format!("stderr is {:?}", answer.stderr))?;
    Ok(format!("stderr has {WORDS:?}"))
}

fn code(bench: &Bench) -> Verdict {
    let mut evidence = String::new();
    for given in [11, 123] {
        let fake = Fake::new(bench)?;
        fake.fails("ADD", given);
        let answer = fake.scene.run(&fake.call(&fake.scene.container("web")), "ADD");
        let failure = refused_with(&answer, given)?;
        ensure(failure.text.contains("told to fail"), || told(&answer))?;
        evidence = told(&answer);
    }
    Ok(evidence)
}

/// ADD fails after the IPAM plugin answered so; it must be told DEL.
fn gives_back<'a>(
    bench: &'a Bench,
    answer: &serde_json::Value,
) -> Result<Fake<'a>, crate::verdict::Fault> {
    let fake = Fake::new(bench)?;
    fake.answers("ADD", answer);
    let call = fake.call(&fake.scene.container("web"));
    refused(&fake.scene.run(&call, "ADD"))?;
    let calls = fake.calls().join(", ");
    ensure(fake.was_asked("DEL"), || format!("the IPAM plugin was only asked {calls}"))?;
    Ok(fake)
}

fn no_address(bench: &Bench) -> Verdict {
    let fake = gives_back(bench, &json!({"cniVersion": "1.0.0", "routes": []}))?;
    Ok(fake.calls().join(", "))
}

fn no_result(bench: &Bench) -> Verdict {
    let fake = gives_back(bench, &json!("nonsense"))?;
    Ok(fake.calls().join(", "))
}

fn only_command(bench: &Bench) -> Verdict {
    let fake = gives_back(bench, &json!({"cniVersion": "1.0.0", "ips": []}))?;
    let (mut add, mut delete) = (fake.environment("ADD"), fake.environment("DEL"));
    add.remove("CNI_COMMAND");
    delete.remove("CNI_COMMAND");
    ensure(add == delete, || format!("ADD {add:?}, DEL {delete:?}"))?;
    ensure(fake.input("ADD") == fake.input("DEL"), || "the input is another".to_owned())?;
    Ok("the same".to_owned())
}

fn interface_taken(bench: &Bench) -> Verdict {
    let fake = Fake::new(bench)?;
    let container = fake.scene.container("web");
    container.run(&["ip", "link", "add", "eth0", "type", "bridge"]);
    refused(&fake.scene.run(&fake.call(&container), "ADD"))?;
    let given_back = fake.was_asked("DEL") || !fake.was_asked("ADD");
    ensure(given_back, || format!("only {}", fake.calls().join(", ")))?;
    Ok(format!("asked: {}", fake.calls().join(", ")))
}

fn nothing_left(bench: &Bench) -> Verdict {
    let fake = Fake::new(bench)?;
    let warm = fake.call(&fake.scene.container("warm-up"));
    result(&fake.scene.run(&warm, "ADD"))?;
    silent(&fake.scene.run(&warm, "DEL"))?;
    let container = fake.scene.container("web");
    let (node, inside) = (Snapshot::of(&fake.scene.node), Snapshot::of(&container));
    // An address with a prefix length that there is not, and then no address.
    let mut bad = fake.result();
    bad["ips"] = json!([bad["ips"][0], {"address": "10.9.0.6/99"}]);
    fake.answers("ADD", &bad);
    refused(&fake.scene.run(&fake.call(&container), "ADD"))?;
    let mut bad = fake.result();
    bad["ips"] = json!([]);
    fake.answers("ADD", &bad);
    refused(&fake.scene.run(&fake.call(&container), "ADD"))?;
    is_as_before(&node, &fake.scene.node);
    is_as_before(&inside, &container);
    full_host_leaves_nothing(bench)
}

/// No address is taken by an ADD that fails for the sake of the container.
fn full_host_leaves_nothing(bench: &Bench) -> Verdict {
    let Ok(scene) = bench.scene(World::Small) else {
        return Ok("nothing changed".to_owned());
    };
    let version = bench.newest()?;
    let room = scene.room(version);
    for number in 0..3 {
        let call = scene.call_for(version, &format!("nobody{number}"));
        refused(&scene.run(&call, "ADD"))?;
    }
    let left = scene.room(version);
    ensure(room == left, || format!("room for {room:?} before, for {left:?} after"))?;
    Ok(format!("nothing changed, room for {} as before", room.unwrap_or_default()))
}
