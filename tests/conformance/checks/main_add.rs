//! M1, M2, M5 and M7: what ADD refuses, and what its result says.

use serde_json::{Value, json};
use weir_tests::{Place, Snapshot, UPLINK};

use super::Check;
use crate::bench::{Bench, Scene, is_as_before};
use crate::fake::Fake;
use crate::subject::World;
use crate::verdict::{
    Fault, Verdict, about, addresses, ensure, failed, list, not_offered, refused, refused_with,
    result, silent, told,
};

pub const CHECKS: &[Check] = &[
    Check::new("M1.refused", "ADD of an interface that is there is an error", taken_refused),
    Check::new(
        "M1.untouched",
        "the interface that was there, the host and the addresses stay as they were",
        taken_untouched,
    ),
    Check::new("M2.own-namespace", "CNI_NETNS that is the plugin's own is code 8", own_namespace),
    Check::new(
        "M2.before-any-change",
        "and is refused before addresses are asked for or anything is changed",
        own_namespace_unchanged,
    ),
    Check::new(
        "M2.override",
        "CNI_NETNS_OVERRIDE=1 or true, in any case, allows it; the node goes on forwarding",
        overridden,
    ),
    Check::new(
        "M5.every-interface",
        "the result lists every interface that ADD made",
        every_interface,
    ),
    Check::new(
        "M5.sandbox",
        "the container's interface has CNI_NETNS as its sandbox, verbatim",
        sandbox,
    ),
    Check::new(
        "M5.as-made",
        "its addresses, on the interface they index, are the kernel's",
        as_made,
    ),
    Check::new("M5.dns", "dns in the configuration goes before the IPAM plugin's", dns),
    Check::new("M5.ipam-dns", "without dns in the configuration it is the IPAM plugin's", ipam_dns),
    Check::new("M7.kept", "ADD keeps what prevResult says beside what it adds", previous_kept),
];

fn taken_refused(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let mut evidence = String::new();
    for version in bench.since("0.1.0")? {
        let container = scene.container(&format!("c{version}"));
        container.run(&["ip", "link", "add", "eth0", "type", "bridge"]);
        let answer = scene.run(&scene.call(version, &container), "ADD");
        about(version, refused(&answer))?;
        evidence = told(&answer);
    }
    Ok(evidence)
}

fn taken_untouched(bench: &Bench) -> Verdict {
    let scene = bench.scene(World::Small).or_else(|_| bench.usual())?;
    let version = bench.newest()?;
    warm_up(&scene, version)?;
    let container = scene.container("web");
    container.run(&["ip", "link", "add", "eth0", "type", "bridge"]);
    let room = scene.room(version);
    let (node, inside) = (Snapshot::of(&scene.node), Snapshot::of(&container));
    refused(&scene.run(&scene.call(version, &container), "ADD"))?;
    is_as_before(&node, &scene.node);
    is_as_before(&inside, &container);
    let room_after = scene.room(version);
    ensure(room == room_after, || format!("room for {room:?} before, {room_after:?} after"))?;
    Ok("nothing changed".to_owned())
}

/// What a node needs once is there afterwards.
pub fn warm_up(scene: &Scene<'_>, version: &str) -> Result<(), Fault> {
    let call = scene.call(version, &scene.container("warm-up"));
    result(&scene.run(&call, "ADD"))?;
    silent(&scene.run(&call, "DEL"))
}

/// A path of the node's own network namespace that does not look like one.
fn own_path(scene: &Scene<'_>) -> &'static str {
    const OWN: &str = "/run/netns/own";
    scene.node.write(OWN, "");
    scene.node.run(&["mount", "--bind", "/proc/self/ns/net", OWN]);
    OWN
}

fn own_namespace(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let own = own_path(&scene);
    let mut evidence = String::new();
    for path in [own, "/proc/self/ns/net"] {
        let call = scene.call_for(bench.newest()?, "web").with("CNI_NETNS", path);
        // The name of the uplink is taken here.
        let call = call.with("CNI_IFNAME", "own0");
        let answer = scene.run(&call, "ADD");
        about(path, refused_with(&answer, 8))?;
        evidence = told(&answer);
    }
    Ok(evidence)
}

fn own_namespace_unchanged(bench: &Bench) -> Verdict {
    let fake = Fake::new(bench)?;
    let container = fake.scene.container("web");
    let call = fake.call(&container).with("CNI_NETNS", own_path(&fake.scene));
    let call = call.with("CNI_IFNAME", "own0");
    let before = Snapshot::of(&fake.scene.node);
    let answer = fake.scene.run(&call, "ADD");
    ensure(!answer.succeeded, || told(&answer))?;
    ensure(!fake.was_asked("ADD"), || "the IPAM plugin was asked for addresses".to_owned())?;
    is_as_before(&before, &fake.scene.node);
    Ok("nothing asked, nothing changed".to_owned())
}

fn overridden(bench: &Bench) -> Verdict {
    own_namespace(bench)
        .or_else(|_| not_offered("its own namespace is not refused, see M2.own-namespace"))?;
    let mut evidence = String::new();
    for yes in ["1", "TRUE", "true"] {
        let scene = bench.usual()?;
        let call = scene.call_for(bench.newest()?, "web").with("CNI_NETNS", own_path(&scene));
        let call = call.with("CNI_IFNAME", "own0").with("CNI_NETNS_OVERRIDE", yes);
        // Whoever writes the first sets the second again.
        scene.node.write("/proc/sys/net/ipv4/ip_forward", "1");
        scene.node.write(&format!("/proc/sys/net/ipv4/conf/{UPLINK}/forwarding"), "0");
        let answer = scene.run(&call, "ADD");
        about(yes, result(&answer))?;
        let made = scene.node.succeeds(&["ip", "link", "show", "own0"]);
        ensure(made, || format!("{yes}: no own0 after {}", told(&answer)))?;
        let key = |name: &str| scene.node.read(&format!("/proc/sys/net/ipv4/{name}"));
        let (all, uplink) = (key("ip_forward"), key(&format!("conf/{UPLINK}/forwarding")));
        let untouched = all.trim() == "1" && uplink.trim() == "0";
        ensure(untouched, || "the node's forwarding was switched".to_owned())?;
        silent(&scene.run(&call, "DEL"))?;
        evidence = told(&answer);
    }
    Ok(evidence)
}

fn every_interface(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let container = scene.container("web");
    let version = bench.since("0.3.0")?.pop().unwrap_or_default();
    let (outside, inside) = (names(&scene.node), names(&container));
    let added = result(&scene.run(&scene.call(version, &container), "ADD"))?;
    let new = |before: Vec<String>, after: Vec<String>| {
        after.into_iter().filter(|name| !before.contains(name)).collect::<Vec<_>>()
    };
    let made = [new(outside, names(&scene.node)), new(inside, names(&container))].concat();
    let listed: Vec<&str> =
        list(&added, "interfaces").iter().filter_map(|it| it["name"].as_str()).collect();
    let missing: Vec<_> = made.iter().filter(|name| !listed.contains(&name.as_str())).collect();
    ensure(missing.is_empty(), || format!("made {made:?}, listed {listed:?}"))?;
    Ok(format!("made and listed: {}", made.join(", ")))
}

fn names(place: &impl Place) -> Vec<String> {
    let links: Value = serde_json::from_str(&place.run(&["ip", "-j", "link"])).unwrap_or_default();
    let name = |link: &Value| Some(link["ifname"].as_str()?.to_owned());
    links.as_array().into_iter().flatten().filter_map(name).collect()
}

fn sandbox(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    let container = scene.container("web");
    let path = "/run/../run/netns/web";
    for version in bench.since("0.3.0")? {
        let call = scene.call(version, &container).with("CNI_NETNS", path);
        let answer = scene.run(&call, "ADD");
        let added = about(version, result(&answer))?;
        let interfaces = list(&added, "interfaces");
        let inside: Vec<_> = interfaces.iter().filter(|it| it["name"] == "eth0").collect();
        let holds = inside.len() == 1 && inside[0]["sandbox"] == path;
        ensure(holds, || format!("{version}: {}", told(&answer)))?;
        silent(&scene.run(&call, "DEL"))?;
    }
    Ok(path.to_owned())
}

fn as_made(bench: &Bench) -> Verdict {
    let scene = bench.scene(World::Dual).or_else(|_| bench.usual())?;
    let container = scene.container("web");
    let version = bench.since("0.3.0")?.pop().unwrap_or_default();
    let added = result(&scene.run(&scene.call(version, &container), "ADD"))?;
    let interfaces = list(&added, "interfaces");
    for ip in list(&added, "ips") {
        let index = ip["interface"].as_u64().and_then(|it| usize::try_from(it).ok());
        let interface = index.and_then(|index| interfaces.get(index));
        let holds = interface.is_some_and(|it| it["name"] == "eth0");
        ensure(holds, || format!("{ip} indexes {interface:?}"))?;
    }
    let shown = container.run(&["ip", "address", "show", "dev", "eth0"]);
    let given = addresses(&added);
    let missing: Vec<_> = given.iter().filter(|it| !shown.contains(&format!(" {it} "))).collect();
    ensure(missing.is_empty(), || format!("not on eth0: {missing:?}"))?;
    let mac = container.link("eth0")["address"].clone();
    let listed = interfaces.iter().any(|it| it["name"] == "eth0" && it["mac"] == mac);
    ensure(listed, || format!("mac {mac} is not in the result"))?;
    Ok(given.join(", "))
}

fn dns(bench: &Bench) -> Verdict {
    nameserver(bench, Some(json!({"nameservers": ["192.0.2.54"]})), "192.0.2.54")
}

fn ipam_dns(bench: &Bench) -> Verdict {
    nameserver(bench, None, "192.0.2.53")
}

fn nameserver(bench: &Bench, dns: Option<Value>, expected: &str) -> Verdict {
    let fake = Fake::new(bench)?;
    let mut call = fake.call(&fake.scene.container("web"));
    if let Some(dns) = dns {
        call = call.configure("/dns", dns);
    }
    let added = result(&fake.scene.run(&call, "ADD"))?;
    let holds = added["dns"]["nameservers"] == json!([expected]);
    ensure(holds, || format!("dns is {}", added["dns"]))?;
    Ok(added["dns"].to_string())
}

fn previous_kept(bench: &Bench) -> Verdict {
    let scene = bench.usual()?;
    for version in bench.since("0.3.0")? {
        let mut earlier = json!({"address": "203.0.113.5/24", "interface": 0});
        if version < "1.0.0" {
            earlier["version"] = "4".into();
        }
        let previous = json!({
            "cniVersion": version,
            "interfaces": [{"name": "other0", "mac": "02:00:00:00:00:01", "sandbox": "/x"}],
            "ips": [earlier],
            "routes": [{"dst": "192.0.2.0/24"}],
            "dns": {"nameservers": ["192.0.2.55"]},
        });
        let call = scene.call(version, &scene.container(&format!("c{version}")));
        let answer = scene.run(&call.clone().configure("/prevResult", previous), "ADD");
        let added = about(version, result(&answer))?;
        let interfaces = list(&added, "interfaces");
        let kept = [
            interfaces.iter().any(|it| it["name"] == "other0"),
            addresses(&added).iter().any(|it| it == "203.0.113.5/24"),
            list(&added, "routes").iter().any(|it| it["dst"] == "192.0.2.0/24"),
            added["dns"]["nameservers"] == json!(["192.0.2.55"]),
        ];
        if kept != [true; 4] {
            let [interface, address, route, dns] = kept;
            return failed(format!(
                "{version}: interface kept: {interface}, address: {address}, route: {route}, \
                 dns: {dns}"
            ));
        }
        for ip in list(&added, "ips") {
            let owner = if ip["address"] == "203.0.113.5/24" { "other0" } else { "eth0" };
            let index = ip["interface"].as_u64().and_then(|it| usize::try_from(it).ok());
            let found = index.and_then(|index| interfaces.get(index)).map(|it| &it["name"]);
            ensure(found.is_some_and(|it| it == owner), || format!("{ip} indexes {found:?}"))?;
        }
        silent(&scene.run(&call, "DEL"))?;
    }
    Ok("interface, address, route and dns kept".to_owned())
}
