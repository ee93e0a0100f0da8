//! Reads results of ADD in the form of CNI 0.3.0 and later.

use serde_json::Value;

/// The name of the host's end of an attachment.
pub fn host_interface(result: &Value) -> &str {
    let interfaces = result["interfaces"].as_array().expect("a result lists interfaces");
    let host = |interface: &&Value| interface["sandbox"].as_str().unwrap_or_default().is_empty();
    let host = interfaces.iter().find(host).expect("a result lists the host's interface");
    host["name"].as_str().expect("an interface has a name")
}

/// The address at this place, without its prefix length.
pub fn address(result: &Value, index: usize) -> &str {
    let address = result["ips"][index]["address"].as_str();
    let address = address.unwrap_or_else(|| panic!("address {index} is missing in {result}"));
    address.split_once('/').expect("an address has a prefix length").0
}
