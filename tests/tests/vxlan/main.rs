//! Clusters whose pools ask for VXLAN.

mod agentless;
mod calico;
mod complaints;
mod drift;
mod guard;
mod modes;
mod settings;
mod switch;

use serde_json::{Value, json};
use weir_tests::{Fleet, Member, Place, Subnet};

const DEVICE: &str = "vxlan.calico";
const DEVICE_V6: &str = "vxlan-v6.calico";

const TWO_SUBNETS: [Subnet; 4] = [Subnet::First, Subnet::First, Subnet::Second, Subnet::Second];

/// A pool of a few blocks: `10.NUMBER.0.0/24`.
fn pool(fleet: &Fleet, name: &str, number: u8, vxlan_mode: &str) {
    let cidr = format!("10.{number}.0.0/24");
    fleet.apply_pool(name, json!({"cidr": cidr, "blockSize": 28, "vxlanMode": vxlan_mode}));
}

/// As [`pool`], of IPv6: `fd10:NUMBER::/112`.
fn pool_v6(fleet: &Fleet, name: &str, number: u8, vxlan_mode: &str) {
    let cidr = format!("fd10:{number}::/112");
    fleet.apply_pool(name, json!({"cidr": cidr, "blockSize": 124, "vxlanMode": vxlan_mode}));
}

/// Nodes with addresses of both families, whose agents find both.
fn dual(subnets: &[Subnet]) -> Fleet {
    let mut fleet = Fleet::dual(subnets);
    fleet.agent_arguments.extend(["--ip6-autodetection-method", "first-found"]);
    fleet
}

/// Two nodes in two subnets with a pool `blue` that asks for VXLAN, and their agents.
fn pair() -> Fleet {
    let mut fleet = Fleet::new(&[Subnet::First, Subnet::Second]);
    pool(&fleet, "blue", 61, "Always");
    fleet.start_agents();
    fleet
}

/// What a JSON list of iproute2's says.
fn listed(member: &Member, line: &[&str]) -> Vec<Value> {
    let text = member.node().run(line);
    // Nothing at all is printed for an empty list by some of its programs.
    if text.trim().is_empty() { Vec::new() } else { serde_json::from_str(&text).expect("JSON") }
}

/// The Node that a member is registered as.
fn registered(fleet: &Fleet, member: usize) -> Value {
    let key =
        format!("/calico/resources/v3/projectcalico.org/nodes/{}", fleet.members[member].name);
    let entries = fleet.store.entries();
    entries.get(&key).map_or(Value::Null, |text| serde_json::from_str(text).expect("JSON"))
}
