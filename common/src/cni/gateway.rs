//! What `weir-ipam` tells main plugins other than `weir` of gateways.

use ipnet::IpNet;

use super::result::IpConfiguration;
use crate::ipam::Assigned;

/// How an assigned address is given to the main plugin: with the first of the
/// `gateways` (addresses with the prefix lengths of their subnets) in whose subnet
/// it is, and the prefix length of that subnet. Outside them all it has the length
/// of its `block` and no gateway, as Calico's IPAM plugin gives it.
///
/// Calico's main plugin and `weir` need no more. ptp, bridge and macvlan lead the
/// container's routes through the gateway of the result, which must be within its
/// subnet (`plugins/main/ptp/ptp.go`, setupContainerVeth;
/// `pkg/ipam/ipam_linux.go`, ConfigureIface).
pub fn ip_configuration(assigned: &Assigned, gateways: &[IpNet]) -> IpConfiguration {
    let gateway = gateways.iter().find(|gateway| gateway.contains(&assigned.address));
    let network = gateway.unwrap_or(&assigned.block);
    IpConfiguration {
        address: IpNet::new_assert(assigned.address, network.prefix_len()),
        gateway: gateway.map(IpNet::addr),
        interface: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_comes_with_its_gateway() {
        let gateways = ["10.7.1.1/24", "10.7.0.1/24", "fd00:7::1/64"];
        let gateways = gateways.map(|text| text.parse().unwrap());
        for (address, block, expected, gateway) in [
            ("10.7.0.66", "10.7.0.64/26", "10.7.0.66/24", Some("10.7.0.1")),
            ("10.8.0.66", "10.8.0.64/26", "10.8.0.66/26", None),
            ("fd00:7::9", "fd00:7::/122", "fd00:7::9/64", Some("fd00:7::1")),
        ] {
            let (address, block) = (address.parse().unwrap(), block.parse().unwrap());
            let given = ip_configuration(&Assigned { address, block }, &gateways);
            assert_eq!(given.address.to_string(), expected);
            assert_eq!(given.gateway, gateway.map(|gateway| gateway.parse().unwrap()));
        }
    }
}
