//! The old form of documents (`apiVersion: v1`), turned into the present one.

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::error::FieldError;
use super::fields::{Fields, Problems};
use super::kind::Kind;
use super::resource::Resource;

/// Turns a v1 pool into a v3 one (`libcalico-go/lib/upgrade/converters`): its
/// name is made of its CIDR. Values of a wrong type and an unknown IPIP mode
/// are left out and noted in the resource; whether the CIDR is a CIDR is left
/// to the validator.
pub(super) fn convert_pool(pool: &Map<String, Value>) -> Resource {
    let mut problems = Problems::default();
    let document = Fields::new(pool, "");
    let metadata = document.object("metadata", "metadata", &mut problems);
    let cidr = metadata.text("cidr", "cidr", &mut problems);
    let spec = document.object("spec", "spec", &mut problems);
    let mode = ipip_mode(&spec, &mut problems);
    let mut converted = Map::new();
    converted.insert("cidr".into(), json!(cidr));
    converted.insert("ipipMode".into(), json!(mode));
    for (old, new) in [("nat-outgoing", "natOutgoing"), ("disabled", "disabled")] {
        let flag = spec.boolean(old, old, &mut problems).unwrap_or(false);
        converted.insert(new.into(), json!(flag));
    }
    let name = cidr.map_or_else(|| "no-cidr".to_owned(), pool_name);
    let object = super::resource::document(Kind::IpPool.name(), &name, converted);
    let unconverted = problems.into_vec();
    Resource { kind: Kind::IpPool, object, known_by_cidr: true, unconverted }
}

fn ipip_mode(spec: &Fields<'_>, problems: &mut Problems) -> &'static str {
    let ipip = spec.object("ipip", "ipip", problems);
    let enabled = ipip.boolean("enabled", "enabled", problems).unwrap_or(false);
    let mode = match ipip.text("mode", "mode", problems) {
        None | Some("always") => "Always",
        Some("cross-subnet") => "CrossSubnet",
        Some(other) => {
            problems.add(
                FieldError::new(ipip.path("mode"), "must be always or cross-subnet").value(other),
            );
            "Never"
        }
    };
    if enabled { mode } else { "Never" }
}

/// The name of a pool that has none but its CIDR
/// (`libcalico-go/lib/names/cidr.go`).
pub fn pool_name(cidr: &str) -> String {
    let canonical = cidr.parse::<IpNet>().map_or_else(|_| cidr.to_owned(), |cidr| cidr.to_string());
    let name = canonical.to_lowercase().replace(['.', ':', '/'], "-");
    if name.starts_with('-') { format!("0{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(spec: Value) -> Resource {
        let pool = json!({"metadata": {"cidr": "10.254.0.0/24"}, "spec": spec});
        convert_pool(pool.as_object().unwrap())
    }

    #[test]
    fn modes_become_v3s() {
        let cases = [
            (json!({}), "Never"),
            (json!({"ipip": {}}), "Never"),
            (json!({"ipip": {"enabled": false, "mode": "always"}}), "Never"),
            (json!({"ipip": {"enabled": true}}), "Always"),
            (json!({"ipip": {"enabled": true, "mode": ""}}), "Always"),
            (json!({"ipip": {"enabled": true, "mode": "always"}}), "Always"),
            (json!({"ipip": {"enabled": true, "mode": "cross-subnet"}}), "CrossSubnet"),
        ];
        for (spec, mode) in cases {
            let pool = convert(spec.clone());
            assert_eq!(pool.object["spec"]["ipipMode"], mode, "{spec}");
            pool.check().unwrap();
        }
        let spec = json!({"ipip": {"enabled": true, "mode": "CrossSubnet"}, "disabled": []});
        let error = convert(spec).check().unwrap_err().to_string();
        assert_eq!(
            error,
            "error with the following fields:\n\
             -  spec.ipip.mode = 'CrossSubnet' (must be always or cross-subnet)\n\
             -  spec.disabled = '[]' (must be true or false, not a list)\n"
        );
    }

    #[test]
    fn names_are_made_of_the_cidr() {
        assert_eq!(pool_name("10.254.0.0/24"), "10-254-0-0-24");
        assert_eq!(pool_name("FD00:7:0::/48"), "fd00-7---48");
        assert_eq!(pool_name("::/0"), "0---0");
    }
}
