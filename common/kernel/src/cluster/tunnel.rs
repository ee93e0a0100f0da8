//! Tunnel devices.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{InfoKind, LinkAttribute};
use nix::errno::Errno;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};
use weir_common::network::{Before, Change, Side, Sysctl, VxlanDevice};
use weir_common::tunnel::TunnelKind;

use super::vxlan::port_of;
use crate::Kernel;
use crate::error::Error;
use crate::link::{Link, is};
use crate::netlink::into_io;
use crate::occupied::subnet;

impl Kernel {
    /// Makes a tunnel device. The request alone makes the kernel load the module where it can
    /// (`rtnl_newlink` asks for "rtnl-link-ipip"). That of IPIP makes its device by itself in
    /// every namespace, so that "exists already" is a success too.
    pub(super) async fn create_tunnel(
        &self,
        change: &Change,
        kind: TunnelKind,
        vxlan: Option<&VxlanDevice>,
    ) -> Result<(), Error> {
        let message = match vxlan {
            Some(device) => self.vxlan_request(kind, device)?,
            None => {
                let link_kind = InfoKind::Other(kind.row().link_kind.to_owned());
                LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(link_kind)
                    .name(kind.device())
                    .build()
            }
        };
        match self.host.handle().link().add(message).execute().await.map_err(into_io) {
            Err(cause) if is(&cause, Errno::EEXIST) => match self.tunnel_link(kind).await? {
                Some(Ok(_)) => Ok(()),
                Some(Err(error)) => Err(error),
                None => Err(self.vni_taken(change, kind, vxlan, cause).await),
            },
            outcome => outcome.map_err(|cause| refusal(change, kind, cause)),
        }
    }

    /// The link that has the device's name; an error in the place of one of another kind.
    async fn tunnel_link(&self, kind: TunnelKind) -> Result<Option<Result<Link, Error>>, Error> {
        let wanted = kind.row().link_kind;
        let link = self.host.link_by_name(kind.device()).await?;
        Ok(link.map(|link| match link.kind.as_deref() {
            Some(its) if its == wanted => Ok(link),
            its => {
                let its = its.unwrap_or("of hardware").to_owned();
                Err(Error::NotATunnel { link: link.name.clone(), kind: its, wanted })
            }
        }))
    }

    /// What it means that a device exists already whose name no link has.
    async fn vni_taken(
        &self,
        change: &Change,
        kind: TunnelKind,
        vxlan: Option<&VxlanDevice>,
        cause: io::Error,
    ) -> Error {
        let Some(VxlanDevice { vni, port, .. }) = vxlan else {
            return Error::refused(change, cause);
        };
        match self.vxlan_holder(kind, *port, Some(*vni)).await {
            Ok(other) => Error::VniTaken { device: kind.device(), other, vni: *vni, port: *port },
            Err(error) => error,
        }
    }

    /// Deletes a tunnel device. One that has gone is not an error; a link of another kind that
    /// has got its name stays.
    pub(super) async fn delete_tunnel(&self, kind: TunnelKind) -> Result<(), Error> {
        match self.tunnel_link(kind).await? {
            Some(Ok(link)) => self.host.delete_link(link.index, &link.name).await,
            Some(Err(_)) | None => Ok(()),
        }
    }

    /// Brings a tunnel device up. A device of VXLAN takes its UDP port only then.
    pub(super) async fn bring_tunnel_up(
        &self,
        change: &Change,
        kind: TunnelKind,
        index: u32,
    ) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).up().build();
        match self.host.handle().link().change(message).execute().await.map_err(into_io) {
            Err(cause) if is(&cause, Errno::EADDRINUSE) => {
                Err(self.port_taken(change, kind, index, cause).await)
            }
            outcome => outcome.map_err(|cause| Error::refused(change, cause)),
        }
    }

    async fn port_taken(
        &self,
        change: &Change,
        kind: TunnelKind,
        index: u32,
        cause: io::Error,
    ) -> Error {
        let holder = async {
            let own = self.host.link_by_index(index).await?;
            let Some(port) = own.and_then(|own| Some(port_of(own.vxlan.as_ref()?))) else {
                return Ok(None);
            };
            Ok(Some((port, self.vxlan_holder(kind, port, None).await?)))
        };
        match holder.await {
            Ok(Some((port, other))) => Error::PortTaken { device: kind.device(), other, port },
            Ok(None) => Error::refused(change, cause),
            Err(error) => error,
        }
    }

    /// Changes a tunnel device, that of the number `index`, as `how` says.
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

    /// Gives a tunnel device an alias; an empty one takes it away.
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
        address: IpAddr,
    ) -> Result<(), Error> {
        let length = IpNet::from(address).prefix_len();
        let mut request = self.host.handle().address().add(index, address, length);
        let message = request.message_mut();
        // Without a broadcast address, which rtnetlink would add.
        message.attributes = own_address(address);
        // Usable at once: it is out of the cluster's own pools.
        message.header.flags |= AddressHeaderFlags::Nodad;
        if matches!(address, IpAddr::V4(address) if address.is_link_local()) {
            message.header.scope = AddressScope::Link;
        }
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
        address: IpNet,
    ) -> Result<(), Error> {
        let is_meant = |message: &AddressMessage| {
            message.header.index == index && subnet(message) == Some(address)
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
fn refusal(change: &Change, kind: TunnelKind, cause: io::Error) -> Error {
    if is(&cause, Errno::EOPNOTSUPP) {
        return Error::NoTunnels { kind, cause };
    }
    Error::refused(change, cause)
}

fn own_address(address: IpAddr) -> Vec<AddressAttribute> {
    vec![AddressAttribute::Local(address), AddressAttribute::Address(address)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_a_kind_is_told_from_other_refusals() {
        for (kind, advice) in [
            (TunnelKind::Ipip, "(ipipMode); load it with \"modprobe ipip\""),
            (TunnelKind::VxlanV6, "(vxlanMode); load it with \"modprobe vxlan\""),
        ] {
            let refusal =
                |errno: Errno| refusal(&Change::CreateTunnel(kind, None), kind, errno.into());
            let none = refusal(Errno::EOPNOTSUPP);
            assert!(none.to_string().contains(advice), "{none}");
            assert!(matches!(refusal(Errno::EPERM), Error::Denied { .. }));
            let (other, device) = (refusal(Errno::ENOBUFS), kind.device());
            assert!(other.to_string().starts_with(&format!("ip link add {device} ")), "{other}");
        }
    }
}
