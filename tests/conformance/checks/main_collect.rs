//! M10 and M11: GC and STATUS.

use serde_json::{Value, json};
use weir_tests::{Call, Container, Place};

use super::Check;
use super::main_check::host_end;
use crate::bench::{Bench, Scene};
use crate::fake::Fake;
use crate::subject::World;
use crate::verdict::{
    Fault, Verdict, about, ensure, not_offered, refused, refused_with, result, silent, told,
};

pub const CHECKS: &[Check] = &[
    Check::new("M10.drops-unlisted", "GC removes what is not in cni.dev/valid-attachments", drops),
    Check::new("M10.keeps-listed", "GC keeps what is in it, by container id and ifname", keeps),
    Check::new("M10.empty-list", "GC with an empty list removes all of the network", empty_list),
    Check::new("M10.no-list", "GC without a list, as cnitool sends, keeps what lives", no_list),
    Check::new("M10.other-network", "GC leaves other networks alone", other_network),
    Check::new("M10.forwarded", "GC is always delegated, with the whole configuration", forwarded),
    Check::new("M10.goes-on", "GC goes on after an error and reports it", goes_on),
    Check::new("M10.addresses-free", "GC frees the addresses of what it removes", addresses_free),
    Check::new("M11.ready", "STATUS prints nothing when ADD would work", ready),
    Check::new("M11.delegated", "STATUS asks the IPAM plugin", status_delegated),
    Check::new("M11.not-ready", "STATUS is code 50 when the IPAM plugin says so", not_ready),
    Check::new("M11.degraded", "STATUS is code 51 when a container has lost its network", degraded),
    Check::new("M11.add-works-anyway", "ADD, CHECK and DEL do not go by STATUS", add_works),
];

/// The list of attachments that live.
const LIST: &str = "cni.dev/valid-attachments";

/// Two containers of the network under test.
struct Two<'a> {
    scene: Scene<'a>,
    containers: [Container; 2],
    calls: [Call; 2],
    results: [Value; 2],
}

impl<'a> Two<'a> {
    fn new(bench: &'a Bench, world: World) -> Result<Self, Fault> {
        bench.claims("1.1.0")?;
        let version = bench.since("1.1.0")?[0];
        let scene = bench.scene(world)?;
        let containers = ["web", "db"].map(|name| scene.container(name));
        let calls = containers.each_ref().map(|container| scene.call(version, container));
        let results =
            [result(&scene.run(&calls[0], "ADD"))?, result(&scene.run(&calls[1], "ADD"))?];
        Ok(Self { scene, containers, calls, results })
    }

    /// GC with this list, or none; it must succeed.
    fn collect(&self, valid: Option<Value>) -> Result<(), Fault> {
        about("GC", silent(&collect(&self.scene, &self.calls[0], valid)))
    }

    /// Whether each is as ADD made it, by CHECK.
    fn alive(&self) -> [bool; 2] {
        [0, 1].map(|index| {
            let previous = self.results[index].clone();
            let call = self.calls[index].clone().configure("/prevResult", previous);
            self.scene.run(&call, "CHECK").succeeded
        })
    }

    /// Whether each has its interface.
    fn present(&self) -> [bool; 2] {
        self.containers
            .each_ref()
            .map(|container| container.succeeds(&["ip", "link", "show", "dev", "eth0"]))
    }
}

/// Runs GC as a runtime does: without a container.
pub fn collect(scene: &Scene<'_>, call: &Call, valid: Option<Value>) -> weir_tests::Answer {
    let none = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];
    let call = none.iter().fold(call.clone(), |call, variable| call.with(variable, ""));
    let mut configuration = call.configuration().clone();
    if let Some(valid) = valid {
        configuration["cni.dev/attachments"] = valid.clone();
        configuration[LIST] = valid;
    }
    scene.run_with(&call, "GC", &configuration.to_string())
}

/// The list with one attachment.
pub fn only(id: &str) -> Value {
    json!([{"containerID": id, "ifname": "eth0"}])
}

fn drops(bench: &Bench) -> Verdict {
    let two = Two::new(bench, World::Usual)?;
    two.collect(Some(only("web")))?;
    ensure(!two.present()[1], || "the interface of the unlisted one is still there".to_owned())?;
    ensure(!two.alive()[1], || "CHECK of the unlisted one passes".to_owned())?;
    Ok("gone".to_owned())
}

fn keeps(bench: &Bench) -> Verdict {
    let two = Two::new(bench, World::Usual)?;
    two.collect(Some(only("web")))?;
    ensure(two.alive()[0], || "CHECK of the listed one fails".to_owned())?;
    two.collect(Some(json!([{"containerID": "web", "ifname": "eth1"}])))?;
    ensure(!two.present()[0], || "listed with another interface, and still there".to_owned())?;
    Ok("kept; gone when only another interface was listed".to_owned())
}

fn empty_list(bench: &Bench) -> Verdict {
    let two = Two::new(bench, World::Usual)?;
    two.collect(Some(json!([])))?;
    ensure(two.present() == [false; 2], || format!("interfaces: {:?}", two.present()))?;
    Ok("both gone".to_owned())
}

fn no_list(bench: &Bench) -> Verdict {
    let two = Two::new(bench, World::Usual)?;
    two.collect(None)?;
    ensure(two.alive() == [true; 2], || format!("CHECK passes: {:?}", two.alive()))?;
    Ok("both kept".to_owned())
}

fn other_network(bench: &Bench) -> Verdict {
    let two = Two::new(bench, World::Usual)?;
    let other = two.calls[0].clone().configure("/name", "other".into());
    about("GC", silent(&collect(&two.scene, &other, Some(json!([])))))?;
    ensure(two.alive() == [true; 2], || format!("CHECK passes: {:?}", two.alive()))?;
    Ok("both kept".to_owned())
}

fn forwarded(bench: &Bench) -> Verdict {
    bench.claims("1.1.0")?;
    let fake = Fake::of_version(bench, "1.1.0")?;
    let call = fake.call(&fake.scene.container("web"));
    for valid in [Some(only("web")), Some(json!([])), None] {
        about("GC", silent(&collect(&fake.scene, &call, valid.clone())))?;
        ensure(fake.was_asked("GC"), || "the IPAM plugin was not asked".to_owned())?;
        let got = fake.input("GC").get(LIST).cloned();
        ensure(got == valid, || format!("it got {got:?} for {valid:?}"))?;
    }
    Ok(format!("asked {} times", fake.calls().len()))
}

fn goes_on(bench: &Bench) -> Verdict {
    bench.claims("1.1.0")?;
    let fake = Fake::of_version(bench, "1.1.0")?;
    let container = fake.scene.container("web");
    let call = fake.call(&container);
    result(&fake.scene.run(&call, "ADD"))?;
    fake.fails("GC", 123);
    let answer = collect(&fake.scene, &call, Some(json!([])));
    let failure = refused(&answer)?;
    ensure(failure.text.contains("told to fail"), || told(&answer))?;
    let left = container.succeeds(&["ip", "link", "show", "dev", "eth0"]);
    ensure(!left, || "the interface is still there".to_owned())?;
    Ok(format!("{}; the interface is gone", told(&answer)))
}

fn addresses_free(bench: &Bench) -> Verdict {
    let two = Two::new(bench, World::Small)?;
    let version = bench.since("1.1.0")?[0];
    let full = two.scene.room(version);
    two.collect(Some(only("web")))?;
    let after = two.scene.room(version);
    let freed = full.zip(after).is_some_and(|(full, after)| after == full + 1);
    ensure(freed, || format!("room for {full:?} before, for {after:?} after"))?;
    Ok("room for one more".to_owned())
}

/// Runs STATUS as a runtime does: without a container.
pub fn status(scene: &Scene<'_>, call: &Call) -> weir_tests::Answer {
    let none = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];
    let call = none.iter().fold(call.clone(), |call, variable| call.with(variable, ""));
    scene.run(&call, "STATUS")
}

fn ready(bench: &Bench) -> Verdict {
    bench.claims("1.1.0")?;
    let version = bench.since("1.1.0")?[0];
    let scene = bench.usual()?;
    silent(&status(&scene, &scene.call_for(version, "web")))?;
    Ok("exit 0, nothing printed".to_owned())
}

fn status_delegated(bench: &Bench) -> Verdict {
    bench.claims("1.1.0")?;
    let fake = Fake::of_version(bench, "1.1.0")?;
    silent(&status(&fake.scene, &fake.call(&fake.scene.container("web"))))?;
    ensure(fake.was_asked("STATUS"), || "the IPAM plugin was not asked".to_owned())?;
    Ok(fake.calls().join(", "))
}

fn not_ready(bench: &Bench) -> Verdict {
    bench.claims("1.1.0")?;
    let fake = Fake::of_version(bench, "1.1.0")?;
    let call = fake.call(&fake.scene.container("web"));
    let mut evidence = String::new();
    for code in [50, 51] {
        fake.fails("STATUS", code);
        let answer = status(&fake.scene, &call);
        refused_with(&answer, code)?;
        evidence = told(&answer);
    }
    Ok(evidence)
}

fn degraded(bench: &Bench) -> Verdict {
    let two = Two::new(bench, World::Usual)?;
    silent(&status(&two.scene, &two.calls[0]))?;
    let Some(name) = host_end(&two.scene.node, &two.results[1]) else {
        return not_offered("there is no end on the host");
    };
    two.scene.node.run(&["ip", "link", "set", name, "down"]);
    let answer = status(&two.scene, &two.calls[0]);
    refused_with(&answer, 51)?;
    two.scene.node.run(&["ip", "link", "delete", name]);
    let call = two.calls[1].clone();
    silent(&two.scene.run(&call, "DEL"))?;
    about("after its DEL", silent(&status(&two.scene, &two.calls[0])))?;
    Ok(told(&answer))
}

fn add_works(bench: &Bench) -> Verdict {
    bench.claims("1.1.0")?;
    let fake = Fake::of_version(bench, "1.1.0")?;
    let call = fake.call(&fake.scene.container("web"));
    fake.fails("STATUS", 50);
    refused(&status(&fake.scene, &call))?;
    let added = result(&fake.scene.run(&call, "ADD"))?;
    silent(&fake.scene.run(&call.clone().configure("/prevResult", added), "CHECK"))?;
    silent(&fake.scene.run(&call, "DEL"))?;
    Ok("after STATUS 50 they work".to_owned())
}
