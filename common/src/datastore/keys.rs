//! Calico's key names (`libcalico-go/lib/backend/model`), so that Calico's own
//! tools read a Weir datastore and the other way round.

use std::net::IpAddr;

use ipnet::IpNet;

/// All resources, as a prefix: the cluster's information, pools, reservations, nodes,
/// BGP's, Felix's.
pub const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";
/// All pools, as a prefix.
pub const POOLS: &str = "/calico/resources/v3/projectcalico.org/ippools/";
/// All nodes, as a prefix.
pub const NODES: &str = "/calico/resources/v3/projectcalico.org/nodes/";
/// All reservations, as a prefix.
pub const RESERVATIONS: &str = "/calico/resources/v3/projectcalico.org/ipreservations/";
/// All BGP configurations, as a prefix.
pub const BGP_CONFIGURATIONS: &str = "/calico/resources/v3/projectcalico.org/bgpconfigurations/";
/// All BGP peers, as a prefix.
pub const BGP_PEERS: &str = "/calico/resources/v3/projectcalico.org/bgppeers/";
/// All BGP filters, as a prefix.
pub const BGP_FILTERS: &str = "/calico/resources/v3/projectcalico.org/bgpfilters/";
/// All Felix configurations, as a prefix.
pub const FELIX_CONFIGURATIONS: &str =
    "/calico/resources/v3/projectcalico.org/felixconfigurations/";
/// All reports that nodes are asked for, as a prefix.
pub const NODE_STATUSES: &str = "/calico/resources/v3/projectcalico.org/caliconodestatuses/";
/// The cluster's information, with the ready flag.
pub const CLUSTER_INFORMATION: &str =
    "/calico/resources/v3/projectcalico.org/clusterinformations/default";
/// The configuration of IPAM.
pub const IPAM_CONFIG: &str = "/calico/ipam/v2/config";
/// All blocks of both families, as a prefix.
pub const BLOCKS: &str = "/calico/ipam/v2/assignment/";
/// All affinities of all hosts, as a prefix.
pub const HOSTS: &str = "/calico/ipam/v2/host/";
/// Weir's own notes on blocks without an address left, as a prefix; see
/// [`full`]. Below `/calico/`, since that is what users of etcd are given rights
/// to; Calico looks at nothing there.
pub const FULL: &str = "/calico/weir/v1/full/";
/// Which machine has a node's name, as a prefix; see [`machine`]. Weir's own.
pub const MACHINES: &str = "/calico/weir/v1/machines/";
/// Which nodes are being renamed, as a prefix; see [`rename`]. Weir's own.
pub const RENAMES: &str = "/calico/weir/v1/renames/";
/// All handles, as a prefix.
pub const HANDLES: &str = "/calico/ipam/v2/handle/";

/// The key of a pool.
pub fn pool(name: &str) -> String {
    format!("{POOLS}{name}")
}

/// The key of a node.
pub fn node(name: &str) -> String {
    format!("{NODES}{name}")
}

/// The key of a container's endpoint in a namespace.
pub fn workload_endpoint(namespace: &str, name: &str) -> String {
    format!("{RESOURCES}workloadendpoints/{namespace}/{name}")
}

/// The key of a reservation.
pub fn reservation(name: &str) -> String {
    format!("{RESERVATIONS}{name}")
}

/// The key of a block.
pub fn block(cidr: IpNet) -> String {
    format!("{BLOCKS}{}/block/{}", family(cidr.addr()), dashed(cidr))
}

/// The key of a host's affinity to a block.
pub fn affinity(host: &str, cidr: IpNet) -> String {
    format!("{HOSTS}{host}/{}/block/{}", family(cidr.addr()), dashed(cidr))
}

/// All affinities of one host, both families, as a prefix.
pub fn affinities_of(host: &str) -> String {
    format!("{HOSTS}{host}/")
}

/// The key that notes that a host's block has no address left to hand out. It
/// is a hint: nothing depends on its being right, and it has no content.
pub fn full(host: &str, cidr: IpNet) -> String {
    format!("{}{}/{}", full_of(host), family(cidr.addr()), dashed(cidr))
}

/// The key that records the machine which has a node's name.
pub fn machine(node: &str) -> String {
    format!("{MACHINES}{node}")
}

/// The key that says that a node is being renamed, and to what.
pub fn rename(node: &str) -> String {
    format!("{RENAMES}{node}")
}

/// All notes on one host's blocks, as a prefix.
pub fn full_of(host: &str) -> String {
    format!("{FULL}{host}/")
}

/// The block that a note names.
pub fn parse_full(key: &str) -> Option<IpNet> {
    parse_dashed(key.strip_prefix(FULL)?.rsplit('/').next()?)
}

/// The key of a handle.
pub fn handle(id: &str) -> String {
    format!("{HANDLES}{id}")
}

/// The block that a block's key names; `None` unless it is [`block`]'s for it.
pub fn parse_block(key: &str) -> Option<IpNet> {
    let (_, name) = key.strip_prefix(BLOCKS)?.split_once("/block/")?;
    parse_dashed(name).filter(|cidr| block(*cidr) == key)
}

/// The host and the block that an affinity's key names; `None` unless it is
/// [`affinity`]'s for them.
pub fn parse_affinity(key: &str) -> Option<(&str, IpNet)> {
    let (host, rest) = key.strip_prefix(HOSTS)?.split_once('/')?;
    let (_, block) = rest.split_once("/block/")?;
    let cidr = parse_dashed(block).filter(|cidr| affinity(host, *cidr) == key)?;
    Some((host, cidr))
}

/// The handle id that a handle's key names.
pub fn parse_handle(key: &str) -> Option<&str> {
    key.strip_prefix(HANDLES)
}

fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ipv4",
        IpAddr::V6(_) => "ipv6",
    }
}

fn dashed(cidr: IpNet) -> String {
    format!("{}-{}", cidr.network(), cidr.prefix_len())
}

fn parse_dashed(text: &str) -> Option<IpNet> {
    let (address, length) = text.rsplit_once('-')?;
    let cidr = IpNet::new(address.parse().ok()?, length.parse().ok()?).ok()?;
    (cidr == cidr.trunc()).then_some(cidr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_calicos() {
        let v4: IpNet = "10.7.0.0/30".parse().unwrap();
        let v6: IpNet = "fd00:7::2ff6:9651:8f4f:40/122".parse().unwrap();
        assert_eq!(block(v4), "/calico/ipam/v2/assignment/ipv4/block/10.7.0.0-30");
        assert_eq!(
            affinity("n6", v6),
            "/calico/ipam/v2/host/n6/ipv6/block/fd00:7::2ff6:9651:8f4f:40-122"
        );
        assert_eq!(handle("net.c1"), "/calico/ipam/v2/handle/net.c1");
    }

    #[test]
    fn keys_are_read_back() {
        for cidr in ["10.7.0.0/30", "fd00:7::2ff6:9651:8f4f:40/122"] {
            let cidr: IpNet = cidr.parse().unwrap();
            assert_eq!(parse_block(&block(cidr)), Some(cidr));
            assert_eq!(parse_affinity(&affinity("n-1.example", cidr)), Some(("n-1.example", cidr)));
        }
        assert_eq!(parse_block("/calico/ipam/v2/assignment/ipv4/block/nonsense"), None);
        assert_eq!(parse_affinity("/calico/ipam/v2/host/n1"), None);
    }

    /// A key is read in one form only: another one with the same meaning would be
    /// written again beside it.
    #[test]
    fn keys_in_another_form_are_none() {
        for block in ["ipv6/block/10.7.0.0-30", "ipv4/block/10.7.0.1-30", "ipv4/block/10.7.0.0-030"]
        {
            assert_eq!(parse_block(&format!("{BLOCKS}{block}")), None, "{block}");
            assert_eq!(parse_affinity(&format!("{HOSTS}n1/{block}")), None, "{block}");
        }
        let long = "ipv6/block/fd00:7:0:0:2ff6:9651:8f4f:40-122";
        assert_eq!(parse_block(&format!("{BLOCKS}{long}")), None);
    }
}
