//! Who had which address: recorded by the agents, asked on any node.

use serde_json::{Value, json};
use weir_tests::{Cluster, Families, Fleet, Place, Pod, Subnet, address};

/// What a node's history says of an address or container.
fn ask(fleet: &Fleet, member: usize, words: &[&str]) -> Value {
    let line = [&["ipam", "history", "-o", "json"], words].concat();
    let answer = fleet.weirctl(member, &line);
    serde_json::from_str(&answer.stdout).unwrap_or_else(|_| panic!("{answer:?}"))
}

fn holders(fleet: &Fleet, member: usize, what: &str) -> Vec<Value> {
    ask(fleet, member, &[what])["holders"].as_array().expect("a list").clone()
}

fn delete(fleet: &Fleet, pod: &Pod) {
    fleet.call(0, "direct", &pod.container).delete(fleet.members[0].node());
}

#[test]
fn who_had_an_address_is_known_on_every_node_and_across_a_gap() {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::First]);
    fleet.apply_pool("direct", json!({"cidr": "10.7.0.0/24", "blockSize": 28}));
    fleet.start_agents();
    let (stays, goes) =
        (fleet.named_pod(0, "direct", "stays"), fleet.named_pod(0, "direct", "goes"));
    let (kept, freed) = (stays.address.to_string(), goes.address.to_string());
    for member in [0, 1] {
        fleet.until("both are recorded", || {
            [&kept, &freed].iter().all(|address| holders(&fleet, member, address).len() == 1)
        });
        let found = &holders(&fleet, member, &freed)[0];
        assert_eq!((&found["node"], &found["interface"]), (&json!("n1"), &json!("eth0")));
        assert_eq!((&found["until"], &found["from"]), (&Value::Null, &found["fromEarliest"]));
        let container = found["container"].as_str().expect("it is a container's");
        assert_eq!(holders(&fleet, member, container), std::slice::from_ref(found));
    }
    // While one agent is away, the other one sees all.
    fleet.kill_agent(0);
    delete(&fleet, &goes);
    fleet.until("the release is recorded", || !holders(&fleet, 1, &freed)[0]["until"].is_null());
    let exact = &holders(&fleet, 1, &freed)[0];
    assert_eq!(exact["until"], exact["untilEarliest"]);
    assert_eq!(holders(&fleet, 0, &freed)[0]["until"], Value::Null);
    fleet.start_agent(0);
    fleet.until("the gap is compared", || !holders(&fleet, 0, &freed)[0]["until"].is_null());
    let gap = &holders(&fleet, 0, &freed)[0];
    let time = |of: &Value, key: &str| of[key].as_str().expect("a time").to_owned();
    let (earliest, latest) = (time(gap, "untilEarliest"), time(gap, "until"));
    let released = time(exact, "until");
    assert!(earliest < released && released < latest, "{earliest} {released} {latest}");
    let unchanged = holders(&fleet, 0, &kept);
    assert_eq!((unchanged.len(), &unchanged[0]["until"]), (1, &Value::Null), "not recorded again");
    // At a time: surely, by the one that saw it; perhaps, by the other one.
    let sure = ask(&fleet, 1, &[&freed, "--at", &time(exact, "from")]);
    assert_eq!(sure["holders"][0]["certain"], json!(true));
    let refused = fleet.weirctl(0, &["ipam", "history", &freed, "--at", &released]);
    assert!(!refused.succeeded && refused.stderr.contains("was not seen"), "{refused:?}");
    assert!(refused.stdout.contains("between"), "{refused:?}");
    let modes = fleet.members[0].node().run(&["stat", "-c", "%a", "/var/lib/weir/history"]);
    assert_eq!(modes.trim(), "600");
}

#[test]
fn a_node_without_an_agent_knows_who_had_an_address() {
    let cluster = Cluster::embedded().with_pools(Families::V4);
    let ask = |words: &[&str]| {
        let answer = cluster.weirctl(&[&["ipam", "history", "-o", "json"], words].concat());
        let told: Value =
            serde_json::from_str(&answer.stdout).unwrap_or_else(|_| panic!("{answer:?}"));
        told["holders"].as_array().expect("a list").clone()
    };
    let web = cluster.node.container("web");
    let call = cluster.weir(Families::V4, &web);
    let result = call.add(&cluster.node);
    let held = address(&result, 0);
    let found = ask(&[held]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["container"], &found[0]["until"]), (&json!("web"), &Value::Null));
    call.delete(&cluster.node);
    let found = ask(&["web"]);
    assert_eq!(found[0]["address"], held);
    let time = |key: &str| found[0][key].as_str().expect("a time").to_owned();
    assert_eq!((time("from"), time("until")), (time("fromEarliest"), time("untilEarliest")));
    assert_eq!(ask(&[held, "--at", &time("from")])[0]["certain"], json!(true));
    assert_eq!(ask(&[held, "--at", &time("until")]), [] as [Value; 0]);
}
