//! CreateNetwork and DeleteNetwork: what dockerd says of its networks, and where it is kept.
//!
//! A network is a file: the calls about its endpoints name it by its id alone.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use weir_common::link::{MAXIMUM_MTU, MINIMUM_MTU_V4, MINIMUM_MTU_V6};
use weir_common::nearest;
use weir_common::network::Mtu;
use weir_process::files;

use super::driver::Driver;
use super::error::DriverError;
use super::front::Front;
use super::protocol::{EndpointCall, GENERIC, INTERNAL, NetworkRange, NetworkRequest};

/// The option (`--opt`) that gives interfaces their MTU, as for Docker's own drivers.
const MTU_OPTION: &str = "com.docker.network.driver.mtu";

/// How many letters a misspelt option may be from one that is meant.
const FARTHEST: usize = 3;

/// How long dockerd's ids are.
const ID_LENGTH: usize = 64;

/// How long those of a swarm are.
const SWARM_ID_LENGTH: usize = 25;

/// What the calls about endpoints need to know of their network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DockerNetwork {
    /// The MTU of its interfaces in bytes; `None` for the node's.
    pub mtu: Option<u32>,
    /// Whether its containers reach its own pools only (`--internal`).
    pub internal: bool,
    /// Whether its containers have IPv4 addresses.
    pub ipv4: bool,
    /// Whether they have IPv6 addresses.
    pub ipv6: bool,
    /// Its pools; none where any pool will do.
    pub ranges: Vec<IpNet>,
}

impl DockerNetwork {
    /// The network that `request` asks for.
    ///
    /// # Errors
    /// It asks for something that networks of Weir's do not have; what to leave out.
    fn of(request: &NetworkRequest) -> Result<Self, DriverError> {
        let (ipv4, ipv6) = (!request.ipv4_data.is_empty(), !request.ipv6_data.is_empty());
        if !ipv4 && !ipv6 {
            return Err(DriverError::new("the network has no addresses; leave --ipv4=false out"));
        }
        let mut ranges = Vec::new();
        for range in request.ipv4_data.iter().chain(&request.ipv6_data) {
            ranges.extend(range_of(range)?);
        }
        let internal = is_set(&request.options, INTERNAL)?;
        let has_range = |v4| ranges.iter().any(|range| range.addr().is_ipv4() == v4);
        if internal && (ipv4 && !has_range(true) || ipv6 && !has_range(false)) {
            return Err(DriverError::new(
                "an internal network needs a pool for each IP version, which is all that its \
                 containers reach; name it with --subnet CIDR (see: weirctl get ippool)",
            ));
        }
        let mtu = mtu_of(request.options.get(GENERIC), ipv6)?;
        Ok(Self { mtu, internal, ipv4, ipv6, ranges })
    }
}

/// The pool of a range, if it is one pool's.
fn range_of(range: &NetworkRange) -> Result<Option<IpNet>, DriverError> {
    let NetworkRange { address_space, pool, gateway } = range;
    if !is_own(address_space) {
        return Err(DriverError::new(format!(
            "range {pool} is of another IPAM driver (address space {address_space:?}), and the \
             addresses of Weir's networks come from its pools; add --ipam-driver weir"
        )));
    }
    let address = gateway.split('/').next().unwrap_or_default();
    match address.parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() => {
            return Err(DriverError::new(format!(
                "this network needs no gateway; leave --gateway out (and --ipam-opt gateway), \
                 which asks for {address}"
            )));
        }
        Err(_) if !gateway.is_empty() => {
            return Err(DriverError::new(format!("gateway {gateway:?} is not an address")));
        }
        _ => {}
    }
    let cidr: IpNet = pool.parse().map_err(|_| {
        DriverError::new(format!("{pool:?} is not a range of addresses; write it as 10.9.0.0/16"))
    })?;
    Ok((cidr.prefix_len() > 0).then(|| cidr.trunc()))
}

/// Whether an address space is that of an IPAM driver of Weir's, under whichever name.
fn is_own(address_space: &str) -> bool {
    [Front::Weir, Front::Calico].into_iter().any(|front| {
        let spaces = front.address_spaces();
        [spaces.local, spaces.global].contains(&address_space)
    })
}

/// Whether a switch among dockerd's options is on.
fn is_set(options: &Map<String, Value>, key: &str) -> Result<bool, DriverError> {
    match options.get(key) {
        None | Some(Value::Null | Value::Bool(false)) => Ok(false),
        Some(Value::Bool(true)) => Ok(true),
        Some(other) => Err(DriverError::new(format!("{key} is {other}, not true or false"))),
    }
}

/// The MTU among a user's options, of which there is no other.
fn mtu_of(generic: Option<&Value>, ipv6: bool) -> Result<Option<u32>, DriverError> {
    let options = match generic {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(options)) => options,
        Some(other) => return Err(DriverError::new(format!("{GENERIC} is {other}, no object"))),
    };
    let unknown: Vec<&str> =
        options.keys().map(String::as_str).filter(|key| *key != MTU_OPTION).collect();
    match unknown[..] {
        [] => {}
        [one] => {
            let meant = nearest(one, [MTU_OPTION, "mtu"], FARTHEST).is_some();
            let did = if meant { ", did you mean" } else { "; there is" };
            return Err(DriverError::new(format!(
                "option --opt {one} is not known{did} {MTU_OPTION}; leave it out otherwise"
            )));
        }
        _ => {
            return Err(DriverError::new(format!(
                "options --opt {} are not known; there is {MTU_OPTION}; leave them out otherwise",
                unknown.join(", ")
            )));
        }
    }
    let Some(value) = options.get(MTU_OPTION) else { return Ok(None) };
    let bytes = match value {
        Value::String(text) => text.parse().ok(),
        number => number.as_u64().and_then(|number| u32::try_from(number).ok()),
    };
    let bytes = bytes.filter(|bytes| Mtu::configured(*bytes).check(ipv6).is_ok());
    bytes.map(Some).ok_or_else(|| {
        let (least, of) = if ipv6 { (MINIMUM_MTU_V6, " with IPv6") } else { (MINIMUM_MTU_V4, "") };
        DriverError::new(format!(
            "--opt {MTU_OPTION}={value} cannot be used; give a number from {least} to \
             {MAXIMUM_MTU}{of}"
        ))
    })
}

/// An id of dockerd's, which becomes part of names and paths.
///
/// # Errors
/// It is something else.
pub fn checked_id<'a>(what: &str, id: &'a str) -> Result<&'a str, DriverError> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if id.len() == ID_LENGTH && id.bytes().all(is_digit) {
        return Ok(id);
    }
    if id.len() == SWARM_ID_LENGTH && id.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'z')) {
        return Err(DriverError::new(format!(
            "{what} {id} is one of a swarm, and swarm is not supported; leave --attachable and \
             --scope swarm out, and use docker run instead of docker service"
        )));
    }
    // Whoever sent it may have sent a megabyte.
    let shown: String = id.chars().take(ID_LENGTH).collect();
    Err(DriverError::new(format!(
        "{what} {shown:?} is not an id of Docker's, which is {ID_LENGTH} hexadecimal digits"
    )))
}

impl Driver {
    pub(super) async fn create_network(&self, request: NetworkRequest) -> Result<(), DriverError> {
        let path = self.network_file(&request.network_id)?;
        let network = DockerNetwork::of(&request)?;
        let text = serde_json::to_string(&network).map_err(|it| DriverError::caused_by(&it))?;
        files::replace(&path, &text).map_err(|error| unusable(&path, &error))?;
        tracing::info!(network = request.network_id, ?network, "network");
        Ok(())
    }

    pub(super) async fn delete_network(&self, call: EndpointCall) -> Result<(), DriverError> {
        let path = self.network_file(&call.network_id)?;
        files::remove(&path).map_err(|error| unusable(&path, &error))
    }

    /// What is known of a network.
    ///
    /// # Errors
    /// Nothing is, or its file cannot be read.
    pub(super) fn network(&self, id: &str) -> Result<DockerNetwork, DriverError> {
        let path = self.network_file(id)?;
        let text = files::read(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => DriverError::new(format!(
                "network {id} is not known: there is no {}; remove the network and create it \
                 again",
                path.display()
            )),
            _ => unusable(&path, &error),
        })?;
        serde_json::from_str(&text).map_err(|error| unusable(&path, &error))
    }

    /// The ids of the networks that there are.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn networks(&self) -> Result<Vec<String>, DriverError> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| unusable(&self.directory, &error))?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let ids = names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned()));
        Ok(ids.filter(|id| checked_id("network", id).is_ok()).collect())
    }

    fn network_file(&self, id: &str) -> Result<PathBuf, DriverError> {
        Ok(self.directory.join(format!("{}.json", checked_id("network", id)?)))
    }
}

fn unusable(path: &Path, error: &dyn std::error::Error) -> DriverError {
    DriverError::new(format!(
        "{} cannot be used: {error}; correct that, or remove the network and create it again",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(options: Value, v4: &[[&str; 3]], v6: &[[&str; 3]]) -> NetworkRequest {
        let range = |[address_space, pool, gateway]: &[&str; 3]| json!({ "AddressSpace": address_space, "Pool": pool, "Gateway": gateway });
        let ranges = |list: &[[&str; 3]]| list.iter().map(range).collect::<Vec<_>>();
        serde_json::from_value(json!({
            "NetworkID": "a".repeat(64), "Options": options,
            "IPv4Data": ranges(v4), "IPv6Data": ranges(v6),
        }))
        .unwrap()
    }

    const V4: [&str; 3] = ["WeirLocal", "10.9.0.0/16", "0.0.0.0/0"];
    const ANY_V4: [&str; 3] = ["CalicoLocalAddressSpace", "0.0.0.0/0", "0.0.0.0/0"];
    const V6: [&str; 3] = ["WeirLocal", "fd00:9::/64", "::/0"];

    #[test]
    fn what_networks_may_ask_for() {
        let network = DockerNetwork::of(&request(json!(null), &[V4], &[])).unwrap();
        let ranges = vec!["10.9.0.0/16".parse().unwrap()];
        let plain = DockerNetwork { ipv4: true, ranges, ..DockerNetwork::default() };
        assert_eq!(network, plain);
        let options = json!({
            "com.docker.network.enable_ipv6": true, "com.docker.network.internal": true,
            "com.docker.network.generic": { "com.docker.network.driver.mtu": "1400" },
        });
        let network = DockerNetwork::of(&request(options, &[V4], &[V6])).unwrap();
        let mut both = DockerNetwork { mtu: Some(1400), internal: true, ipv6: true, ..plain };
        both.ranges.push("fd00:9::/64".parse().unwrap());
        assert_eq!(network, both);
        let any = DockerNetwork::of(&request(json!({}), &[ANY_V4], &[])).unwrap();
        assert_eq!(any, DockerNetwork { ipv4: true, ..DockerNetwork::default() });
    }

    #[test]
    fn what_is_refused_is_named() {
        let opt = |options: Value| json!({ "com.docker.network.generic": options });
        let internal = json!({ "com.docker.network.internal": true });
        let foreign = ["LocalDefault", "172.18.0.0/16", "172.18.0.1/16"];
        let with_gateway = ["WeirLocal", "10.9.0.0/16", "10.9.0.1/32"];
        let cases = [
            (request(json!({}), &[], &[]), "no addresses"),
            (request(json!({}), &[foreign], &[]), "--ipam-driver weir"),
            (request(json!({}), &[V4], &[["", "fd00::/64", "::/0"]]), "--ipam-driver weir"),
            (request(json!({}), &[with_gateway], &[]), "leave --gateway out"),
            (request(json!({}), &[["WeirLocal", "ten", ""]], &[]), "\"ten\""),
            (request(internal, &[ANY_V4], &[]), "--subnet"),
            (request(opt(json!({"a": "b"})), &[V4], &[]), "option --opt a is not known;"),
            (request(opt(json!({"mtu": "1400"})), &[V4], &[]), "did you mean com.docker"),
            (
                request(opt(json!({"com.docker.network.driver.mut": "1"})), &[V4], &[]),
                "did you mean com.docker.network.driver.mtu",
            ),
            (request(opt(json!({"a": "b", "c": "d"})), &[V4], &[]), "options --opt a, c are"),
            (request(opt(json!({"com.docker.network.driver.mtu": "67"})), &[V4], &[]), "from 68"),
            (
                request(opt(json!({"com.docker.network.driver.mtu": 1279})), &[V6], &[V6]),
                "from 1280",
            ),
            (request(opt(json!([])), &[V4], &[]), "no object"),
        ];
        for (request, told) in cases {
            let error = DockerNetwork::of(&request).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn an_id_is_sixty_four_digits() {
        let good = "0123456789abcdef".repeat(4);
        assert_eq!(checked_id("network", &good).unwrap(), good);
        let long = "a".repeat(1 << 20);
        for bad in ["", "../../etc/passwd", &good[1..], &good.to_uppercase(), &long] {
            let error = checked_id("network", bad).unwrap_err().to_string();
            assert!(error.len() < 300, "{}", error.len());
        }
        let swarms = checked_id("network", "9q1x0t7v3k2m5n8p4r6s0w1yz").unwrap_err().to_string();
        assert!(swarms.contains("swarm is not supported"), "{swarms}");
        for odd in ["/".repeat(64), ":".repeat(64), format!("{}\n", &good[1..])] {
            assert!(checked_id("endpoint", &odd).is_err(), "{odd:?}");
        }
    }
}
