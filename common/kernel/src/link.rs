//! Links: the veth pair, lookups, deletion.

use std::collections::BTreeSet;
use std::io;

use futures_util::StreamExt;
use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, Prop,
};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use weir_common::link::{MacAddress, SourceCheck, UNCHECKED_GROUP};
use weir_common::network::{
    AttachmentIdentity, ContainerEnd, HOST_MAC, Sandbox, Side, Step, Veth, allowed_source_of,
};

use crate::Kernel;
use crate::error::Error;
use crate::netlink::{Netlink, into_io, request_aside};

/// The attribute that asks for a link by another name (`IFLA_ALT_IFNAME`, `linux/if_link.h`).
const ALT_IFNAME: u16 = 53;

/// What a link is, as far as Weir cares.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) kind: Option<String>,
    pub(crate) alias: Option<String>,
    pub(crate) other_names: Vec<String>,
    pub(crate) mac: Option<MacAddress>,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
    pub(crate) carrier: bool,
    pub(crate) group: u32,
    pub(crate) loopback: bool,
    pub(crate) peer_index: Option<u32>,
    /// The number of the bridge, bond or VRF that it is a port of.
    pub(crate) master: Option<u32>,
    /// What a device of VXLAN was made with.
    pub(crate) vxlan: Option<Vec<InfoVxlan>>,
}

impl Link {
    pub(crate) fn from_message(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            kind: None,
            alias: None,
            other_names: Vec::new(),
            mac: None,
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            group: 0,
            loopback: flags.contains(LinkFlags::Loopback),
            peer_index: None,
            master: None,
            vxlan: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::PropList(names) => {
                    link.other_names.extend(names.into_iter().filter_map(|name| match name {
                        Prop::AltIfName(name) => Some(name),
                        _ => None,
                    }));
                }
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Group(group) => link.group = group,
                LinkAttribute::Link(index) => link.peer_index = Some(index),
                LinkAttribute::Address(bytes) => {
                    link.mac = <[u8; 6]>::try_from(bytes).ok().map(MacAddress);
                }
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                    link.vxlan = infos.into_iter().find_map(|info| match info {
                        LinkInfo::Data(InfoData::Vxlan(infos)) => Some(infos),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }

    /// Whether it is the host's end of an attachment, of whichever: also of one that is
    /// being made, and of one whose alias was lost.
    pub(crate) fn is_host_end(&self) -> bool {
        AttachmentIdentity::may_name_host_interface(&self.name)
            && self.kind.as_deref() == Some("veth")
            && self.mac == Some(HOST_MAC)
    }

    /// What its container may send, where it is a host end.
    pub(crate) fn source_check(&self) -> SourceCheck {
        if self.group == UNCHECKED_GROUP { SourceCheck::Off } else { SourceCheck::Strict }
    }

    /// What its container may send from besides its addresses, where it is a host end.
    pub(crate) fn allowed_sources(&self) -> BTreeSet<IpNet> {
        let names = self.other_names.iter();
        names.filter_map(|name| allowed_source_of(&self.name, name)).collect()
    }

    /// The sandbox that its container is in, where one is recorded.
    pub(crate) fn sandbox(&self) -> Option<Sandbox> {
        self.other_names.iter().find_map(|name| Sandbox::of_name(name))
    }

    /// Whether it is the host's end of `identity`'s veth: its alias says so, or
    /// an ADD was interrupted between the creation and the alias.
    pub(crate) fn belongs_to(&self, identity: &AttachmentIdentity) -> bool {
        self.name == identity.host_interface()
            && (self.is_unfinished() || self.alias.as_ref() == Some(&identity.alias()))
    }

    /// The attachment that the alias records, if the name is that attachment's.
    pub(crate) fn identity(&self) -> Option<AttachmentIdentity> {
        let identity = AttachmentIdentity::from_alias(self.alias.as_deref()?)?;
        (identity.host_interface() == self.name).then_some(identity)
    }

    /// Whether it is the host's end of an attachment that cannot be told because
    /// the alias is missing.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.alias.is_none() && self.is_host_end()
    }

    pub(crate) fn foreign(&self) -> Error {
        Error::ForeignLink {
            link: self.name.clone(),
            kind: self.kind.clone().unwrap_or_else(|| "of hardware".to_owned()),
            alias: self.alias.clone().unwrap_or_default(),
        }
    }
}

impl Netlink {
    /// The link of that name, if there is one.
    pub(crate) async fn link_by_name(&self, name: &str) -> Result<Option<Link>, Error> {
        let request = self.handle().link().get().match_name(name);
        self.find_link(request, format!("ip link show {name}")).await
    }

    /// The link with that other name, if there is one: such names are longer than the kernel
    /// takes for names.
    pub(crate) async fn link_by_other_name(&self, name: &str) -> Result<Option<Link>, Error> {
        // Number 0 is none, and keeps the request from being a list of all.
        let mut request = self.handle().link().get().match_index(0);
        let value = [name.as_bytes(), &[0]].concat();
        let attribute = LinkAttribute::Other(DefaultNla::new(ALT_IFNAME, value));
        request.message_mut().attributes.push(attribute);
        self.find_link(request, format!("ip link show {name}")).await
    }

    /// The link of that number, if there is one.
    pub(crate) async fn link_by_index(&self, index: u32) -> Result<Option<Link>, Error> {
        let request = self.handle().link().get().match_index(index);
        self.find_link(request, format!("ip link show, number {index}")).await
    }

    async fn find_link(
        &self,
        request: rtnetlink::LinkGetRequest,
        action: String,
    ) -> Result<Option<Link>, Error> {
        let mut answers = std::pin::pin!(request.execute());
        match answers.next().await {
            None => Ok(None),
            Some(Ok(message)) => Ok(Some(Link::from_message(message))),
            Some(Err(error)) => match into_io(error) {
                cause if is(&cause, Errno::ENODEV) => Ok(None),
                cause => Err(Error::refused(action, cause)),
            },
        }
    }

    /// Every link of the namespace.
    pub(crate) async fn links(&self) -> Result<Vec<Link>, Error> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let listing = self.dump(request).await.map_err(|cause| Error::refused("ip link", cause))?;
        let links = listing.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(Link::from_message(link)),
            _ => None,
        });
        Ok(links.collect())
    }

    /// Deletes the link of that number; one that is gone is not an error. The call
    /// blocks the thread for as long as the kernel waits for RCU (15 to 47 ms).
    pub(crate) async fn delete_link(&self, index: u32, name: &str) -> Result<(), Error> {
        unless_gone(self.handle().link().del(index).execute().await.map_err(into_io), name)
    }
}

/// What the deletion of the link of that name came to, which may have been gone before.
pub(crate) fn unless_gone(deleted: io::Result<()>, name: &str) -> Result<(), Error> {
    match deleted {
        Err(cause) if !is(&cause, Errno::ENODEV) => {
            Err(Error::refused(format!("ip link delete {name}"), cause))
        }
        _ => Ok(()),
    }
}

impl Kernel {
    /// Creates a veth pair with its peer inside the container, or on the node. A leftover of
    /// the same attachment is replaced; anything else in the way is left alone.
    pub(crate) async fn create_veth(&self, veth: &Veth) -> Result<(), Error> {
        let cause = match self.request_veth(veth).await {
            Err(cause) if is(&cause, Errno::EEXIST) => cause,
            outcome => return outcome.map_err(|cause| Error::refused(veth, cause)),
        };
        let host = self.host.link_by_name(&veth.identity.host_interface()).await?;
        match (&veth.container_end, self.container_end(veth).await?) {
            (_, None) => {}
            (ContainerEnd::OnNode(_), Some(found))
                if host.as_ref().is_some_and(|host| host.peer_index == Some(found.index)) => {}
            (ContainerEnd::OnNode(_), Some(found)) => return Err(found.foreign()),
            (ContainerEnd::InContainer, Some(found)) => {
                return Err(Error::InterfaceExists { interface: found.name });
            }
        }
        match host {
            None => return Err(Error::refused(veth, cause)),
            Some(link) if !link.belongs_to(&veth.identity) => return Err(link.foreign()),
            // Of the same attachment, and without its other end in this
            // container: an ADD that was interrupted, or the container was made
            // again under its old id.
            Some(link) => self.host.delete_link(link.index, &link.name).await?,
        }
        self.request_veth(veth).await.map_err(|cause| Error::refused(veth, cause))
    }

    /// The link that has the name of the veth's end for the container, where that is born.
    async fn container_end(&self, veth: &Veth) -> Result<Option<Link>, Error> {
        let netlink = match veth.container_end {
            ContainerEnd::InContainer => &self.container()?.netlink,
            ContainerEnd::OnNode(_) => &self.host,
        };
        netlink.link_by_name(veth.container_end()).await
    }

    /// rtnetlink's builder gives the peer no more than a name, so the peer's
    /// part of the message is put together here.
    async fn request_veth(&self, veth: &Veth) -> io::Result<()> {
        let peer = LinkUnspec::new_with_name(veth.container_end())
            .address(veth.container_mac.0.to_vec())
            .mtu(veth.mtu);
        let peer = match veth.container_end {
            ContainerEnd::OnNode(_) => peer,
            ContainerEnd::InContainer => {
                let container = self.container().map_err(io::Error::other)?;
                peer.setns_by_fd(container.namespace.descriptor())
            }
        };
        let peer = peer.build();
        let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(veth.identity.host_interface())
            .address(veth.host_mac.0.to_vec())
            .mtu(veth.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .up();
        let message = match veth.source_check {
            SourceCheck::Strict => message,
            SourceCheck::Off => {
                message.append_extra_attribute(LinkAttribute::Group(UNCHECKED_GROUP))
            }
        };
        let request = RouteNetlinkMessage::NewLink(message.build());
        request_aside(request, NLM_F_CREATE | NLM_F_EXCL).await
    }

    pub(crate) async fn set_alias(
        &self,
        step: &Step,
        index: u32,
        alias: &str,
    ) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).alias(alias).build();
        let outcome = self.host.handle().link().change(message).execute().await;
        outcome.map_err(|error| Error::refused(step, into_io(error)))
    }

    pub(crate) async fn add_names(
        &self,
        step: &Step,
        index: u32,
        names: &[String],
    ) -> Result<(), Error> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let request = self.host.handle().link().property_add(index).alt_ifname(&names);
        request.execute().await.map_err(|error| Error::refused(step, into_io(error)))
    }

    pub(crate) async fn set_mac(
        &self,
        step: &Step,
        index: u32,
        mac: MacAddress,
    ) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).address(mac.0.to_vec()).build();
        let outcome = self.host.handle().link().change(message).execute().await;
        outcome.map_err(|error| Error::refused(step, into_io(error)))
    }

    pub(crate) async fn set_up(&self, step: &Step, side: Side, index: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).up().build();
        let outcome = self.netlink(side)?.handle().link().change(message).execute().await;
        outcome.map_err(|error| Error::refused(step, into_io(error)))
    }

    /// The number of a link, by an ioctl, which costs less than a request over
    /// netlink.
    pub(crate) fn index(&self, side: Side, link: &str) -> Result<u32, Error> {
        self.within(side, || if_nametoindex(link))?.map_err(|errno| match errno {
            Errno::ENODEV => Error::LinkMissing { side, link: link.to_owned() },
            errno => Error::refused(format!("ip link show {link} {side}"), errno.into()),
        })
    }
}

impl Kernel {
    /// Those of these numbers of links that there are still.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn present_links(&self, indices: &BTreeSet<u32>) -> Result<BTreeSet<u32>, Error> {
        let mut present = BTreeSet::new();
        for index in indices {
            present.extend(self.host.link_by_index(*index).await?.map(|link| link.index));
        }
        Ok(present)
    }
}

/// Whether the thread's network namespace has a link of this name.
///
/// # Errors
/// The kernel refuses.
pub fn has_link(name: &str) -> Result<bool, Error> {
    match if_nametoindex(name) {
        Ok(_) => Ok(true),
        Err(Errno::ENODEV) => Ok(false),
        Err(errno) => Err(Error::refused(format!("ip link show {name}"), errno.into())),
    }
}

pub(crate) fn is(cause: &io::Error, errno: Errno) -> bool {
    cause.raw_os_error() == Some(errno as i32)
}
