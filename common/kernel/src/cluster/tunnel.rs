//! The tunnel device.

use std::io;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute};
use nix::errno::Errno;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};
use weir_common::network::{Before, Change, Side, Sysctl, TUNNEL_DEVICE};

use super::actual::TUNNEL_KIND;
use crate::Kernel;
use crate::error::Error;
use crate::link::is;
use crate::netlink::into_io;
use crate::occupied::subnet;

impl Kernel {
    /// Makes the tunnel device. The request alone makes the kernel load the
    /// module where it can (`rtnl_newlink` asks for "rtnl-link-ipip"), and the
    /// module makes the device by itself in every namespace, so that "exists
    /// already" is a success too.
    pub(super) async fn create_tunnel(&self) -> Result<(), Error> {
        let message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::IpIp)
            .name(TUNNEL_DEVICE)
            .build();
        match self.host.handle().link().add(message).execute().await.map_err(into_io) {
            Err(cause) if is(&cause, Errno::EEXIST) => {
                match self.host.link_by_name(TUNNEL_DEVICE).await? {
                    Some(link) if link.kind.as_deref() != Some(TUNNEL_KIND) => {
                        Err(Error::NotATunnel {
                            link: link.name,
                            kind: link.kind.unwrap_or_else(|| "of hardware".to_owned()),
                        })
                    }
                    _ => Ok(()),
                }
            }
            outcome => outcome.map_err(refusal),
        }
    }

    /// Changes the tunnel device, of the number `index`, as `how` says.
    pub(super) async fn change_tunnel(
        &self,
        change: &Change,
        index: u32,
        how: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), Error> {
        let message = how(LinkUnspec::new_with_index(index)).build();
        let outcome = self.host.handle().link().change(message).execute().await;
        outcome.map_err(|error| Error::refused(change, into_io(error)))
    }

    /// Gives the tunnel device an alias; an empty one takes it away.
    pub(super) async fn set_tunnel_alias(
        &self,
        change: &Change,
        index: u32,
        alias: &str,
    ) -> Result<(), Error> {
        let attribute = LinkAttribute::IfAlias(alias.to_owned());
        self.change_tunnel(change, index, |link| link.append_extra_attribute(attribute)).await
    }

    pub(super) async fn add_tunnel_address(
        &self,
        change: &Change,
        index: u32,
        address: Ipv4Addr,
    ) -> Result<(), Error> {
        let mut request = self.host.handle().address().add(index, address.into(), 32);
        // Without a broadcast address, which rtnetlink would add.
        request.message_mut().attributes = own_address(address);
        match request.execute().await.map_err(into_io) {
            Err(cause) if !is(&cause, Errno::EEXIST) => Err(Error::refused(change, cause)),
            _ => Ok(()),
        }
    }

    /// Removes it as it is listed, because the other end of a point-to-point
    /// address would have to be named too.
    pub(super) async fn remove_tunnel_address(
        &self,
        change: &Change,
        index: u32,
        address: Ipv4Net,
    ) -> Result<(), Error> {
        let is_meant = |message: &AddressMessage| {
            message.header.index == index
                && message.header.family == AddressFamily::Inet
                && subnet(message) == Some(IpNet::V4(address))
        };
        for message in self.all_addresses().await?.into_iter().filter(is_meant) {
            match self.host.handle().address().del(message).execute().await.map_err(into_io) {
                Err(cause) if !is(&cause, Errno::EADDRNOTAVAIL) => {
                    return Err(Error::refused(change, cause));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn loosen_reverse_path(&self, link: &str) -> Result<(), Error> {
        let sysctl = Sysctl {
            side: Side::Host,
            key: format!("net/ipv4/conf/{link}/rp_filter"),
            value: "2".to_owned(),
            of_veth: false,
            optional: false,
        };
        self.set_sysctl(&sysctl).map(|_: Before| ())
    }
}

/// What it means that no tunnel device is made. A kernel that has no links of a kind,
/// and cannot load a module with it, answers so (`rtnl_newlink`).
fn refusal(cause: io::Error) -> Error {
    if is(&cause, Errno::EOPNOTSUPP) {
        return Error::NoIpip { cause };
    }
    Error::refused(Change::CreateTunnel, cause)
}

fn own_address(address: Ipv4Addr) -> Vec<AddressAttribute> {
    vec![AddressAttribute::Local(address.into()), AddressAttribute::Address(address.into())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_ipip_is_told_from_other_refusals() {
        assert!(matches!(refusal(Errno::EOPNOTSUPP.into()), Error::NoIpip { .. }));
        assert!(matches!(refusal(Errno::EPERM.into()), Error::Denied { .. }));
        let other = refusal(Errno::ENOBUFS.into());
        assert!(other.to_string().starts_with("ip link add tunl0 type ipip: "), "{other}");
    }
}
