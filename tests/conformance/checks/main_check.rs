//! M9: CHECK.

use serde_json::{Value, json};
use weir_tests::{Call, Container, Node, Place};

use super::Check;
use crate::bench::{Bench, Scene};
use crate::fake::Fake;
use crate::verdict::{
    Verdict, about, ensure, list, not_offered, refused, refused_with, result, silent, told,
};

pub const CHECKS: &[Check] = &[
    Check::new("M9.no-previous", "CHECK without prevResult is code 7", no_previous),
    Check::new("M9.just-added", "CHECK of what was just added passes, in each version", just_added),
    Check::new("M9.interface-gone", "CHECK notices that the interface is gone", |bench| {
        notices(bench, &["ip", "link", "delete", "eth0"])
    }),
    Check::new("M9.address-gone", "CHECK notices that the address is gone", |bench| {
        notices(bench, &["ip", "address", "flush", "dev", "eth0", "scope", "global"])
    }),
    Check::new("M9.route-gone", "CHECK notices that the default route is gone", route_gone),
    Check::new("M9.mac-changed", "CHECK notices another hardware address", |bench| {
        notices(bench, &["ip", "link", "set", "eth0", "address", "02:00:00:00:00:99"])
    }),
    Check::new("M9.host-end-gone", "CHECK notices that the host's end has another name", renamed),
    Check::new("M9.sandbox", "CHECK notices a prevResult of another namespace", other_sandbox),
    Check::new("M9.others-tolerated", "CHECK tolerates what later plugins added", others_tolerated),
    Check::new(
        "M9.routes-added",
        "CHECK tolerates routes that later plugins added to the result, by ways of their own",
        routes_added,
    ),
    Check::new("M9.delegate", "what the IPAM plugin finds in CHECK is returned", delegate),
];

/// A container that was added, with its result.
fn added(
    bench: &Bench,
    examine: impl Fn(&Scene<'_>, &Container, &Call, Value) -> Verdict,
) -> Verdict {
    let scene = bench.usual()?;
    let version = bench.since("0.4.0")?.pop().unwrap_or_default();
    let container = scene.container("web");
    let call = scene.call(version, &container);
    let result = result(&scene.run(&call, "ADD"))?;
    examine(&scene, &container, &call, result)
}

fn no_previous(bench: &Bench) -> Verdict {
    added(bench, |scene, _, call, _| {
        let answer = scene.run(call, "CHECK");
        refused_with(&answer, 7)?;
        Ok(told(&answer))
    })
}

fn just_added(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let versions = bench.since("0.4.0")?;
    for version in &versions {
        let call = scene.call(version, &scene.container(&format!("c{version}")));
        let added = result(&scene.run(&call, "ADD"))?;
        let call = call.configure("/prevResult", added);
        about(version, silent(&scene.run(&call, "CHECK")))?;
        silent(&scene.run(&call, "DEL"))?;
    }
    Ok(versions.join(" "))
}

/// CHECK must pass, and fail after this command in the container.
fn notices(bench: &Bench, damage: &[&str]) -> Verdict {
    added(bench, |scene, container, call, result| {
        let call = call.clone().configure("/prevResult", result);
        silent(&scene.run(&call, "CHECK"))?;
        container.run(damage);
        let answer = scene.run(&call, "CHECK");
        refused(&answer)?;
        Ok(told(&answer))
    })
}

fn route_gone(bench: &Bench) -> Verdict {
    let default = ["ip", "route", "show", "default"];
    added(bench, |_, container, _, _| match container.run(&default).as_str() {
        "" => not_offered("it makes no default route here"),
        route => Ok(route.to_owned()),
    })?;
    notices(bench, &["ip", "route", "delete", "default"])
}

/// The name of the host's end of a container's veth, by the result of its ADD.
pub fn host_end<'a>(node: &Node, result: &'a Value) -> Option<&'a str> {
    let of_host = |it: &&Value| it["sandbox"].as_str().unwrap_or_default().is_empty();
    let names = list(result, "interfaces").iter().filter(of_host);
    let mut names = names.filter_map(|it| it["name"].as_str());
    names.find(|name| node.link(name)["linkinfo"]["info_kind"] == "veth")
}

fn renamed(bench: &Bench) -> Verdict {
    added(bench, |scene, _, call, result| {
        let Some(name) = host_end(&scene.node, &result) else {
            return not_offered("there is no end on the host");
        };
        scene.node.run(&["ip", "link", "set", name, "down"]);
        scene.node.run(&["ip", "link", "set", name, "name", "renamed"]);
        scene.node.run(&["ip", "link", "set", "renamed", "up"]);
        let answer = scene.run(&call.clone().configure("/prevResult", result.clone()), "CHECK");
        refused(&answer)?;
        Ok(told(&answer))
    })
}

fn other_sandbox(bench: &Bench) -> Verdict {
    added(bench, |scene, _, call, mut result| {
        for interface in result["interfaces"].as_array_mut().into_iter().flatten() {
            if interface["name"] == "eth0" {
                interface["sandbox"] = "/run/netns/other".into();
            }
        }
        let answer = scene.run(&call.clone().configure("/prevResult", result), "CHECK");
        refused(&answer)?;
        Ok(told(&answer))
    })
}

fn others_tolerated(bench: &Bench) -> Verdict {
    added(bench, |scene, container, call, mut result| {
        let count = list(&result, "interfaces").len();
        let more = [
            json!({"name": "later0", "mac": "02:00:00:00:00:98"}),
            json!({"name": "later1", "mac": "02:00:00:00:00:97", "sandbox": "/run/netns/web"}),
        ];
        result["interfaces"].as_array_mut().into_iter().for_each(|it| it.extend(more.clone()));
        let ip = json!({"version": "4", "address": "203.0.113.7/24", "interface": count + 1});
        result["ips"].as_array_mut().into_iter().for_each(|it| it.push(ip.clone()));
        let bridge = ["type", "bridge"];
        container.run(
            &[&["ip", "link", "add", "later1", "address", "02:00:00:00:00:97"], &bridge[..]]
                .concat(),
        );
        container.run(&["ip", "address", "add", "203.0.113.7/24", "dev", "later1"]);
        container.run(&["ip", "link", "set", "later1", "up"]);
        container.run(&["ip", "route", "add", "192.0.2.0/24", "dev", "later1"]);
        let later = ["ip", "link", "add", "later0", "address", "02:00:00:00:00:98"];
        scene.node.run(&[&later[..], &bridge[..]].concat());
        let answer = scene.run(&call.clone().configure("/prevResult", result), "CHECK");
        silent(&answer)?;
        Ok("passes".to_owned())
    })
}

fn routes_added(bench: &Bench) -> Verdict {
    let later = |container: &Container, result: &mut Value| {
        container.run(&["ip", "link", "add", "later1", "type", "bridge"]);
        container.run(&["ip", "address", "add", "203.0.113.7/24", "dev", "later1"]);
        container.run(&["ip", "link", "set", "later1", "up"]);
        container.run(&["ip", "route", "add", "192.0.2.0/24", "via", "203.0.113.1"]);
        let mut routes = list(result, "routes").to_vec();
        routes.push(json!({"dst": "192.0.2.0/24", "gw": "203.0.113.1"}));
        result["routes"] = routes.into();
    };
    added(bench, |scene, container, call, mut result| {
        later(container, &mut result);
        silent(&scene.run(&call.clone().configure("/prevResult", result), "CHECK"))?;
        Ok(String::new())
    })?;
    // And under an IPAM plugin that it does not know.
    let fake = Fake::new(bench)?;
    // Its own routes are another check's.
    let mut answer = fake.result();
    answer["routes"] = json!([]);
    fake.answers("ADD", &answer);
    let container = fake.scene.container("web");
    let call = fake.call(&container);
    let mut added = result(&fake.scene.run(&call, "ADD"))?;
    later(&container, &mut added);
    silent(&fake.scene.run(&call.configure("/prevResult", added), "CHECK"))?;
    Ok("passes, under an unknown IPAM plugin too".to_owned())
}

fn delegate(bench: &Bench) -> Verdict {
    let fake = Fake::new(bench)?;
    // Routes are another check's.
    let mut answer = fake.result();
    answer["routes"] = json!([]);
    fake.answers("ADD", &answer);
    let call = fake.call(&fake.scene.container("web"));
    let added = result(&fake.scene.run(&call, "ADD"))?;
    let call = call.configure("/prevResult", added);
    silent(&fake.scene.run(&call, "CHECK"))?;
    ensure(fake.was_asked("CHECK"), || "the IPAM plugin was not asked".to_owned())?;
    fake.fails("CHECK", 123);
    let answer = fake.scene.run(&call, "CHECK");
    refused_with(&answer, 123)?;
    Ok(told(&answer))
}
