//! M6: the routes of the IPAM plugin.

use serde_json::{Value, json};
use weir_tests::{Container, Place};

use super::Check;
use crate::bench::Bench;
use crate::fake::{Fake, GATEWAY};
use crate::verdict::{Fault, Verdict, ensure, list, refused_with, result};

pub const CHECKS: &[Check] = &[
    Check::new(
        "M6.gateway",
        "a route without gw leads to the host, by the family's gateway or one of the plugin's own",
        gateway,
    ),
    Check::new(
        "M6.no-table",
        "a route without table is in the main table, of global scope",
        no_table,
    ),
    Check::new("M6.table", "a route with a table is in that one only (1.1.0)", table),
    Check::new(
        "M6.absent-is-not-zero",
        "the result has table and scope where they were given, 0 included, and nowhere else (1.1.0)",
        absent_is_not_zero,
    ),
    Check::new(
        "M6.scope",
        "a route's scope is the kernel's: 0, 253 and 254, or else it is refused (1.1.0)",
        scope,
    ),
    Check::new(
        "M6.metrics",
        "a route's mtu, advmss and priority are the kernel's (1.1.0)",
        metrics,
    ),
];

/// Where the routes lead.
const DESTINATION: &str = "198.51.100.0/24";

/// Adds a container with this one route; it is in the container afterwards.
fn with_route<'a>(bench: &'a Bench, route: &Value) -> Result<(Fake<'a>, Container), Fault> {
    let fake = Fake::new(bench)?;
    let mut answer = fake.result();
    answer["routes"] = json!([route]);
    fake.answers("ADD", &answer);
    let container = fake.scene.container("web");
    result(&fake.scene.run(&fake.call(&container), "ADD"))?;
    Ok((fake, container))
}

/// The routes to the destination in a table.
fn routes(container: &Container, table: &str) -> Vec<Value> {
    let line = ["ip", "-d", "-j", "route", "show", "table", table, DESTINATION];
    // A table without routes is an error.
    let shown = if container.succeeds(&line) { container.run(&line) } else { String::new() };
    serde_json::from_str(&shown).unwrap_or_default()
}

fn gateway(bench: &Bench) -> Verdict {
    let (fake, container) = with_route(bench, &json!({"dst": DESTINATION}))?;
    let found = routes(&container, "main");
    ensure(found.len() == 1, || format!("{} routes to {DESTINATION}", found.len()))?;
    let next = found[0]["gateway"].as_str().unwrap_or("none").to_owned();
    if next == GATEWAY {
        return Ok(format!("via {next}"));
    }
    fake.scene.node.run(&["ip", "address", "add", "198.51.100.1/32", "dev", "lo"]);
    let reached = container.reaches("198.51.100.1");
    ensure(reached, || format!("via {next}, by which the host is not reached"))?;
    Ok(format!("via {next}, by which the host is reached"))
}

fn no_table(bench: &Bench) -> Verdict {
    let (_fake, container) = with_route(bench, &json!({"dst": DESTINATION}))?;
    let found = routes(&container, "main");
    let scope = found.first().map(|route| route["scope"].clone()).unwrap_or_default();
    ensure(found.len() == 1 && scope == "global", || format!("{found:?}"))?;
    Ok("in main, scope global".to_owned())
}

fn table(bench: &Bench) -> Verdict {
    bench.claims("1.1.0")?;
    let (_fake, container) = with_route(bench, &json!({"dst": DESTINATION, "table": 100}))?;
    let (there, main) = (routes(&container, "100"), routes(&container, "main"));
    ensure(there.len() == 1 && main.is_empty(), || {
        format!("{} in table 100, {} in main", there.len(), main.len())
    })?;
    Ok("in table 100 only".to_owned())
}

fn absent_is_not_zero(bench: &Bench) -> Verdict {
    bench.claims("1.1.0")?;
    let fake = Fake::of_version(bench, "1.1.0")?;
    let mut answer = fake.result();
    answer["routes"] = json!([
        {"dst": "203.0.113.0/24"},
        {"dst": DESTINATION, "table": 0, "scope": 0},
    ]);
    fake.answers("ADD", &answer);
    let added = result(&fake.scene.run(&fake.call(&fake.scene.container("web")), "ADD"))?;
    let route = |destination: &str| {
        let routes = list(&added, "routes").iter();
        routes.rev().find(|it| it["dst"] == destination).cloned().unwrap_or_default()
    };
    let (without, with) = (route("203.0.113.0/24"), route(DESTINATION));
    let absent = without.is_object() && without.get("table").or(without.get("scope")).is_none();
    let present = with["table"] == 0 && with["scope"] == 0;
    ensure(absent && present, || format!("{without} and {with}"))?;
    Ok(format!("{without} and {with}"))
}

fn scope(bench: &Bench) -> Verdict {
    bench.claims("1.1.0")?;
    let mut evidence = Vec::new();
    for (scope, name) in [(0, "global"), (253, "link"), (254, "host")] {
        let fake = Fake::of_version(bench, "1.1.0")?;
        let mut answer = fake.result();
        answer["routes"] = json!([{"dst": DESTINATION, "scope": scope}]);
        fake.answers("ADD", &answer);
        let container = fake.scene.container("web");
        let answer = fake.scene.run(&fake.call(&container), "ADD");
        if !answer.succeeded {
            refused_with(&answer, 2)?;
            evidence.push(format!("{scope} refused"));
            continue;
        }
        result(&answer)?;
        let found = routes(&container, "main").pop().unwrap_or_default();
        ensure(found["scope"] == name, || format!("scope {scope}: the kernel has {found}"))?;
        evidence.push(format!("{scope} {name}"));
    }
    Ok(evidence.join(", "))
}

fn metrics(bench: &Bench) -> Verdict {
    bench.claims("1.1.0")?;
    let route = json!({"dst": DESTINATION, "mtu": 1300, "advmss": 1200, "priority": 50});
    let (_fake, container) = with_route(bench, &route)?;
    let found = routes(&container, "main").pop().unwrap_or_default();
    let metrics = &found["metrics"][0];
    let holds = found["metric"] == 50 && metrics["mtu"] == 1300 && metrics["advmss"] == 1200;
    ensure(holds, || format!("the kernel has {found}"))?;
    Ok("mtu 1300, advmss 1200, metric 50".to_owned())
}
