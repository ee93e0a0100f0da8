//! M8: DEL.

use weir_tests::{Call, Container, Place, Snapshot};

use super::Check;
use super::main_add::warm_up;
use crate::bench::{Bench, Scene, is_as_before};
use crate::fake::Fake;
use crate::subject::World;
use crate::verdict::{Verdict, about, ensure, refused, result, silent, told};

pub const CHECKS: &[Check] = &[
    Check::new(
        "M8.nothing-left",
        "DEL leaves the host as ADD found it, in each version",
        nothing_left,
    ),
    Check::new(
        "M8.namespace-gone",
        "with the namespace gone: exit 0, and the same",
        namespace_gone,
    ),
    Check::new(
        "M8.namespace-held",
        "with its path gone, while a process still holds it: exit 0, and the same",
        held,
    ),
    Check::new("M8.namespace-unset", "with CNI_NETNS unset: exit 0, and the same", namespace_unset),
    Check::new("M8.link-gone", "with the interface gone: exit 0, and the same", link_gone),
    Check::new("M8.never-added", "of what was never added: exit 0", never_added),
    Check::new("M8.repeated", "a second time: exit 0", repeated),
    Check::new(
        "M8.addresses-free",
        "the addresses can be given again, also without the namespace",
        free,
    ),
    Check::new("M8.delegated", "DEL is delegated also when the namespace is gone", delegated),
    Check::new(
        "M8.delegate-fails",
        "an IPAM plugin that fails is an error, after own cleanup",
        delegate_fails,
    ),
];

/// Adds, lets `damage` happen, deletes by the call that it gives, and requires
/// that the host is as before. What `damage` gives back of the container lives
/// on.
fn comes_and_goes(
    bench: &Bench,
    versions: &[&str],
    damage: impl Fn(&Scene<'_>, Container, Call) -> (Option<Container>, Call),
) -> Verdict {
    let scene = bench.usual()?;
    warm_up(&scene, bench.newest()?)?;
    for version in versions {
        let container = scene.container(&format!("c{version}"));
        let call = scene.call(version, &container);
        let before = Snapshot::of(&scene.node);
        about(version, result(&scene.run(&call, "ADD")))?;
        let (_held, call) = damage(&scene, container, call);
        about(version, silent(&scene.run(&call, "DEL")))?;
        is_as_before(&before, &scene.node);
    }
    Ok("exit 0, nothing left".to_owned())
}

fn nothing_left(bench: &Bench) -> Verdict {
    // Without prevResult, which runtimes that lost their cache do not send.
    comes_and_goes(bench, &bench.since("0.1.0")?, |_, container, call| (Some(container), call))
}

fn namespace_gone(bench: &Bench) -> Verdict {
    comes_and_goes(bench, &bench.since("0.1.0")?, |_, container, call| {
        container.remove();
        (None, call)
    })
}

fn namespace_unset(bench: &Bench) -> Verdict {
    comes_and_goes(bench, &[bench.newest()?], |_, container, call| {
        container.remove();
        (None, call.without("CNI_NETNS"))
    })
}

fn held(bench: &Bench) -> Verdict {
    comes_and_goes(bench, &[bench.newest()?], |scene, container, call| {
        scene.node.run(&["ip", "netns", "delete", container.name()]);
        (Some(container), call)
    })
}

fn link_gone(bench: &Bench) -> Verdict {
    comes_and_goes(bench, &[bench.newest()?], |_, container, call| {
        container.run(&["ip", "link", "delete", "eth0"]);
        (Some(container), call)
    })
}

fn never_added(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    for version in bench.since("0.1.0")? {
        let call = scene.call(version, &scene.container(&format!("c{version}")));
        about(version, silent(&scene.run(&call, "DEL")))?;
        let call = scene.call_for(version, "nobody");
        about(version, silent(&scene.run(&call, "DEL")))?;
    }
    Ok("exit 0".to_owned())
}

fn repeated(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    for version in bench.since("0.1.0")? {
        let call = scene.call(version, &scene.container(&format!("c{version}")));
        result(&scene.run(&call, "ADD"))?;
        for _ in 0..3 {
            about(version, silent(&scene.run(&call, "DEL")))?;
        }
    }
    Ok("exit 0".to_owned())
}

fn free(bench: &Bench) -> Verdict {
    let scene = bench.scene(World::Small)?;
    let version = bench.newest()?;
    let room = scene.room(version);
    for gone in [false, true] {
        let name = format!("gone-{gone}");
        let call = scene.call(version, &scene.container(&name));
        result(&scene.run(&call, "ADD"))?;
        if gone {
            scene.node.run(&["ip", "netns", "delete", &name]);
        }
        silent(&scene.run(&call, "DEL"))?;
        let left = scene.room(version);
        ensure(left == room, || format!("room for {room:?} before, for {left:?} after"))?;
    }
    Ok(format!("room for {} as before", room.unwrap_or_default()))
}

fn delegated(bench: &Bench) -> Verdict {
    let fake = Fake::new(bench)?;
    let container = fake.scene.container("web");
    let call = fake.call(&container);
    result(&fake.scene.run(&call, "ADD"))?;
    container.remove();
    silent(&fake.scene.run(&call.without("CNI_NETNS"), "DEL"))?;
    ensure(fake.was_asked("DEL"), || "the IPAM plugin was not told".to_owned())?;
    Ok(fake.calls().join(", "))
}

fn delegate_fails(bench: &Bench) -> Verdict {
    let fake = Fake::new(bench)?;
    let container = fake.scene.container("web");
    let call = fake.call(&container);
    result(&fake.scene.run(&call, "ADD"))?;
    fake.fails("DEL", 123);
    let answer = fake.scene.run(&call, "DEL");
    about("DEL", refused(&answer))?;
    let left = container.succeeds(&["ip", "link", "show", "dev", "eth0"]);
    ensure(!left, || format!("eth0 is still there after {}", told(&answer)))?;
    Ok(format!("{}; eth0 is gone", told(&answer)))
}
