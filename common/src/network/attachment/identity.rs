//! Who an attachment is, and the names that follow from it.

use std::net::{Ipv4Addr, Ipv6Addr};

use sha1::{Digest, Sha1};

use crate::ipam::collect::AttachmentName;
use crate::ipam::docker::DOCKER_NETWORK;
use crate::link::MacAddress;

/// The longest alias that a link can carry, in bytes: the kernel takes less than
/// `IFALIASZ` (256) with the closing zero (`rtnetlink.c`, ifla_policy; `dev.c`,
/// dev_set_alias).
const MAXIMUM_ALIAS: usize = 254;
/// The longest name of an interface, in bytes (`IFNAMSIZ` less the closing
/// zero).
const MAXIMUM_INTERFACE: usize = 15;
/// What every name and alias of Weir begins with.
const PREFIX: &str = "weir";
/// The next hop of every IPv6 route in a container: the link-local address of the host's end, which
/// follows from its hardware address [`HOST_MAC`](super::HOST_MAC) (RFC 4291, appendix A).
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);
/// Separates the parts of an alias: neither a network name nor a container id
/// nor an interface name can hold it (CNI SPEC, "Network configuration format"
/// and "Parameters"; the kernel's `dev_valid_name`).
const SEPARATOR: char = ':';

/// One interface of one container in one network: what the CNI specification
/// tells attachments apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentIdentity {
    network: String,
    container_id: String,
    interface: String,
    /// SHA-1 over the alias, which no two identities share, since the separator cannot occur
    /// within a part.
    digest: [u8; 20],
}

/// Parts that make no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// A part is empty or holds a character that it cannot hold.
    #[error("{part} {value:?} cannot be used: it is empty or holds ':' or a control character")]
    Part {
        /// Which part: `network name`, `container id` or `interface name`.
        part: &'static str,
        /// Its value.
        value: String,
    },
    /// The interface name is longer than the kernel's names can be.
    #[error("interface name {value:?} is longer than 15 bytes; choose a shorter CNI_IFNAME")]
    InterfaceTooLong {
        /// The name.
        value: String,
    },
    /// Network name and container id together do not fit in a link's alias,
    /// in which Weir records the attachment.
    #[error(
        "the attachment \"{network}:{container_id}:{interface}\" takes {length} bytes in the host \
         link's alias, which holds 254; shorten the network's name or the container id"
    )]
    TooLong {
        /// The network's name.
        network: String,
        /// The container id.
        container_id: String,
        /// The interface name inside the container.
        interface: String,
        /// How long the alias would be, in bytes.
        length: usize,
    },
}

impl AttachmentIdentity {
    /// The identity of `interface` (CNI_IFNAME) of the container
    /// `container_id` (CNI_CONTAINERID) in the network named `network`.
    ///
    /// # Errors
    /// A part is empty or holds `:` or a control character; the interface name
    /// is longer than 15 bytes; or all together exceed a link's alias.
    pub fn new(
        network: impl Into<String>,
        container_id: impl Into<String>,
        interface: impl Into<String>,
    ) -> Result<Self, InvalidIdentity> {
        let mut identity = Self {
            network: part("network name", network.into())?,
            container_id: part("container id", container_id.into())?,
            interface: part("interface name", interface.into())?,
            digest: [0; 20],
        };
        if identity.interface.len() > MAXIMUM_INTERFACE {
            return Err(InvalidIdentity::InterfaceTooLong { value: identity.interface });
        }
        let alias = identity.alias();
        let length = alias.len();
        if length > MAXIMUM_ALIAS {
            return Err(InvalidIdentity::TooLong {
                network: identity.network,
                container_id: identity.container_id,
                interface: identity.interface,
                length,
            });
        }
        identity.digest = Sha1::digest(alias.as_bytes()).into();
        Ok(identity)
    }

    /// The network's name.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// The container id.
    pub fn container_id(&self) -> &str {
        &self.container_id
    }

    /// The name of the interface inside the container.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The name of the host's end of the veth: `weir` and eleven hexadecimal
    /// digits (44 bits) of the SHA-1 of the alias; 15 bytes, the most that the
    /// kernel takes.
    pub fn host_interface(&self) -> String {
        format!("{PREFIX}{:011x}", self.lock_number())
    }

    /// The number of the lock under which calls on this attachment exclude each other:
    /// the digits of [`AttachmentIdentity::host_interface`].
    pub fn lock_number(&self) -> u64 {
        let [a, b, c, d, e, f, ..] = self.digest;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f]) >> 4
    }

    /// The same, by the name of the host's end alone, as where an ADD has not given it its
    /// alias yet; `None` for a name of another form.
    pub fn lock_number_of(host_interface: &str) -> Option<u64> {
        u64::from_str_radix(host_interface.strip_prefix(PREFIX)?, 16).ok()
    }

    /// Whether a link of that name may be the host's end of some attachment.
    pub fn may_name_host_interface(name: &str) -> bool {
        name.len() == MAXIMUM_INTERFACE
            && name.strip_prefix(PREFIX).is_some_and(|digits| {
                digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            })
    }

    /// What the runtime calls it within its network.
    pub fn name(&self) -> AttachmentName {
        AttachmentName {
            container_id: self.container_id.clone(),
            interface: self.interface.clone(),
        }
    }

    /// The hardware address of the container's end where none is asked for:
    /// 46 bits of the same hash, marked as locally administered. An address
    /// known beforehand need not be read back from the kernel.
    pub fn container_mac(&self) -> MacAddress {
        let [.., a, b, c, d, e, f] = self.digest;
        MacAddress([(a | 0b10) & !1, b, c, d, e, f])
    }

    /// The address that the host's end asks for its container from (ARP), and its only IPv4
    /// address. It is the attachment's own: the container, which routes it by this interface,
    /// may have others, and may be a node of Weir itself. Of the range for addresses of the link
    /// (RFC 3927), less those that clouds and management controllers are known to have.
    pub fn arp_source(&self) -> Ipv4Addr {
        let [.., high, low] = self.digest;
        // 169.254.192.0 to 169.254.254.255
        Ipv4Addr::new(169, 254, 192 + high % 63, low)
    }

    /// The address of the host's end that is the next hop of the container's IPv6 routes. One of
    /// Docker's has its own: dockerd looks for the link by the route to the next hop, which must
    /// not lead to another interface of the same container (libnetwork: `osl/route_linux.go`,
    /// programGateway).
    pub fn gateway_v6(&self) -> Ipv6Addr {
        if self.network != DOCKER_NETWORK {
            return GATEWAY_V6;
        }
        let word = |place: usize| u16::from_be_bytes([self.digest[place], self.digest[place + 1]]);
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, word(0), word(2), word(4))
    }

    /// The alias of the host's link: `weir:<network>:<container id>:<interface>`.
    pub fn alias(&self) -> String {
        format!(
            "{PREFIX}{SEPARATOR}{}{SEPARATOR}{}{SEPARATOR}{}",
            self.network, self.container_id, self.interface
        )
    }

    /// The identity that a link's alias records; `None` when it is not an
    /// alias of Weir's.
    pub fn from_alias(alias: &str) -> Option<Self> {
        let mut parts = alias.split(SEPARATOR);
        let (prefix, network, container_id, interface) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if prefix != PREFIX || parts.next().is_some() {
            return None;
        }
        Self::new(network, container_id, interface).ok()
    }
}

fn part(part: &'static str, value: String) -> Result<String, InvalidIdentity> {
    if value.is_empty() || value.chars().any(|c| c == SEPARATOR || c.is_control()) {
        return Err(InvalidIdentity::Part { part, value });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn identity(network: &str, container_id: &str, interface: &str) -> AttachmentIdentity {
        AttachmentIdentity::new(network, container_id, interface).unwrap()
    }

    #[test]
    fn names_are_stable() {
        // A changed name would orphan the links of running containers.
        let identity = identity("weir", "0123456789abcdef", "eth0");
        assert_eq!(identity.alias(), "weir:weir:0123456789abcdef:eth0");
        assert_eq!(identity.host_interface(), "weir84bd87e317f");
        assert!(AttachmentIdentity::may_name_host_interface("weir84bd87e317f"));
        for other in ["weir84bd87e317", "weir84bd87e317g", "veth84bd87e317f", "weir-uplink0000"] {
            assert!(!AttachmentIdentity::may_name_host_interface(other), "{other}");
        }
        assert_eq!(identity.container_mac().to_string(), "c2:60:dd:12:ae:5b");
        assert_eq!(identity.gateway_v6(), GATEWAY_V6);
        let [one, other] =
            ["a", "b"].map(|id| AttachmentIdentity::new("docker", id, "docker").unwrap());
        assert!(one.gateway_v6().is_unicast_link_local());
        assert_ne!(one.gateway_v6(), other.gateway_v6());
    }

    #[test]
    fn refuses_parts_that_make_the_alias_ambiguous_or_too_long() {
        assert!(AttachmentIdentity::new("a:b", "c", "eth0").is_err());
        assert!(AttachmentIdentity::new("", "c", "eth0").is_err());
        assert!(AttachmentIdentity::new("a", "c\n", "eth0").is_err());
        assert!(matches!(
            AttachmentIdentity::new("a", "c", "sixteen-bytes-xx"),
            Err(InvalidIdentity::InterfaceTooLong { .. })
        ));
        let longest = "c".repeat(254 - "weir:a::eth0".len());
        assert_eq!(identity("a", &longest, "eth0").alias().len(), 254);
        assert!(matches!(
            AttachmentIdentity::new("a", format!("{longest}c"), "eth0"),
            Err(InvalidIdentity::TooLong { length: 255, .. })
        ));
    }

    #[test]
    fn foreign_aliases_record_nothing() {
        for alias in
            ["", "uplink", "weir", "weir:a:b", "weir:a:b:eth0:x", "reed:a:b:eth0", "weir::b:eth0"]
        {
            assert_eq!(AttachmentIdentity::from_alias(alias), None, "{alias}");
        }
    }

    fn any_identity() -> impl Strategy<Value = AttachmentIdentity> {
        ("[a-zA-Z0-9][a-zA-Z0-9_.-]{0,20}", "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,80}", "[a-z0-9_.-]{1,15}")
            .prop_map(|(network, container_id, interface)| {
                identity(&network, &container_id, &interface)
            })
    }

    proptest! {
        #[test]
        fn the_alias_brings_the_identity_back(identity in any_identity()) {
            prop_assert_eq!(AttachmentIdentity::from_alias(&identity.alias()), Some(identity));
        }

        #[test]
        fn names_fit_and_differ(identities in prop::collection::hash_set(any_identity(), 1..40)) {
            let mut owners = HashMap::new();
            for identity in identities {
                let name = identity.host_interface();
                prop_assert_eq!(name.len(), 15);
                let number = AttachmentIdentity::lock_number_of(&name);
                prop_assert_eq!(number, Some(identity.lock_number()));
                prop_assert!(identity.container_mac().is_unicast());
                let arp_source = identity.arp_source();
                prop_assert!(arp_source.is_link_local() && arp_source.octets()[2] >= 192);
                prop_assert_eq!(identity.container_mac().0[0] & 0b10, 0b10);
                prop_assert_eq!(owners.insert(name, identity), None);
            }
        }
    }
}
