//! Results: of the plugins before, of ADD on CHECK, of a delegated plugin.

use serde_json::{Value, json};
use weir_common::cni::{AddResult, Error, SpecVersion};

use crate::call::{call, pools};

/// A result that is read in some version can be written in every version that has
/// room for it, and what is written is read alike. As a `prevResult` it gets an
/// answer from every command that takes one.
pub fn run(input: &[u8]) {
    let Ok(json) = serde_json::from_slice::<Value>(input) else { return };
    for version in SpecVersion::ALL {
        if let Ok(result) = AddResult::parse(&json, version) {
            convert(&result);
        }
        let _ = Error::parse(&json);
        for command in ["ADD", "CHECK"] {
            chained(command, version, &json);
        }
    }
}

fn convert(result: &AddResult) {
    for version in SpecVersion::ALL {
        let Ok(written) = result.to_json(version) else {
            assert!(version <= SpecVersion::V0_2_0 && result.ips.is_empty());
            continue;
        };
        assert_eq!(written["cniVersion"], version.as_str());
        let read = match AddResult::parse(&written, version) {
            Ok(read) => read,
            Err(error) => panic!("{error}: {written}"),
        };
        assert_eq!(read.to_json(version).ok().as_ref(), Some(&written), "of {}", version.as_str());
        if version > SpecVersion::V0_2_0 {
            assert_eq!((&read.ips, &read.routes), (&result.ips, &result.routes));
        }
    }
}

fn chained(command: &str, version: SpecVersion, result: &Value) {
    let configuration = json!({
        "cniVersion": version.as_str(), "name": "net", "type": "weir",
        "ipam": {"type": "weir-ipam"}, "prevResult": result,
    });
    let variables = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "fuzz-1"),
        ("CNI_NETNS", "/run/netns/fuzz-1"),
        ("CNI_IFNAME", "eth0"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.into()));
    let answer = call(&pools(), &variables.into(), configuration.to_string().as_bytes());
    if command == "ADD" && answer.status == 0 {
        AddResult::parse(&answer.document, version).expect("ADD's own answer is a result");
    }
}
