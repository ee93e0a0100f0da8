//! The links that Weir made on a node, and removing many of them at once.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use nix::errno::Errno;
use rtnetlink::LinkUnspec;
use weir_common::link::SourceCheck;
use weir_common::network::{AttachmentIdentity, AttachmentState, Families, NatTable};

use crate::error::Error;
use crate::link::{Link, is};
use crate::netlink::into_io;
use crate::remove::OwnLink;
use crate::{Kernel, nft, sysctl};

/// The group that links are put in to be deleted together; "weir" in ASCII. Any
/// number does that nobody else uses, and whether somebody does is looked at.
const GROUP: u32 = u32::from_be_bytes(*b"weir");

/// A link that Weir made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeLink {
    /// The link.
    pub link: OwnLink,
    /// The attachment that its alias records; `None` without alias, as an ADD
    /// leaves it that is interrupted between two requests.
    pub identity: Option<AttachmentIdentity>,
}

/// The IP versions that the host's end of a veth was made ready for: those that are
/// `routed`, and others whose parameters are as the plan sets them. Two of each, since an
/// administrator may have made one of them the default.
fn ready_for(host: &str, routed: Families) -> Families {
    let is = |key: &str, kind: &str, name: &str, value: &str| {
        sysctl::read(&format!("net/{key}/{kind}/{host}/{name}")).is_ok_and(|found| found == value)
    };
    Families {
        ipv4: routed.ipv4
            || is("ipv4", "conf", "proxy_arp", "1") && is("ipv4", "neigh", "proxy_delay", "0"),
        ipv6: routed.ipv6
            || is("ipv6", "conf", "proxy_ndp", "1") && is("ipv6", "conf", "accept_dad", "0"),
    }
}

impl Kernel {
    /// The links of the node that Weir made, in the order in which they were made.
    ///
    /// # Errors
    /// The kernel refuses the list.
    pub async fn made_links(&self) -> Result<Vec<MadeLink>, Error> {
        let mut links = self.host.links().await?;
        links.sort_by_key(|link| link.index);
        let made = links.into_iter().filter_map(|link| {
            let identity = link.identity();
            let is_made = identity.is_some() || link.is_unfinished();
            is_made.then(|| MadeLink { link: OwnLink::of(link), identity })
        });
        Ok(made.collect())
    }

    /// The attachments of the node, each with the addresses that the node routes to it
    /// and what says whether packets can pass, in the order in which they were made:
    /// read from the aliases of its links, the only record of them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn attachment_states(&self) -> Result<Vec<AttachmentState>, Error> {
        let attached = self.links_with_attachments().await?;
        Ok(attached.into_iter().map(|(_, state)| state).collect())
    }

    /// The same, each with its host's end.
    pub(crate) async fn links_with_attachments(
        &self,
    ) -> Result<Vec<(Link, AttachmentState)>, Error> {
        let mut addresses = self.addresses_by_link().await?;
        let mut links = self.host.links().await?;
        links.sort_by_key(|link| link.index);
        let states = links.into_iter().filter_map(|link| {
            let mut state = AttachmentState {
                identity: link.identity()?,
                up: link.up,
                mtu: link.mtu,
                carrier: link.carrier,
                is_checked: link.source_check() == SourceCheck::Strict,
                allowed_sources: link.allowed_sources(),
                sandbox: link.sandbox().map(|sandbox| sandbox.id),
                addresses: addresses.remove(&link.index).unwrap_or_default(),
                ready_for: Families::default(),
            };
            state.ready_for = ready_for(&link.name, state.routed());
            Some((link, state))
        });
        Ok(states.collect())
    }

    /// The addresses that the node routes to these links.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn addresses_of(&self, links: &[OwnLink]) -> Result<BTreeSet<IpAddr>, Error> {
        let mut by_link = self.addresses_by_link().await?;
        let addresses = links.iter().filter_map(|link| by_link.remove(&link.index)).flatten();
        Ok(addresses.collect())
    }

    /// Deletes links, and with each its other end and all that hangs on both. One
    /// that is gone by now is not an error.
    ///
    /// The kernel waits for RCU (15 to 47 ms) in each deletion. Several links are
    /// put into one group and deleted with it, which makes it wait once; where that
    /// cannot be done they are deleted one by one.
    ///
    /// # Errors
    /// One for each link that could not be deleted, with its place among `links`.
    pub async fn remove_links(&self, links: &[OwnLink]) -> Vec<(usize, Error)> {
        if links.len() > 1 && self.remove_as_group(links).await.is_ok() {
            return Vec::new();
        }
        let mut errors = Vec::new();
        for (place, link) in links.iter().enumerate() {
            let deleted = self.host.delete_link(link.index, &link.name).await;
            errors.extend(deleted.err().map(|error| (place, error)));
        }
        errors
    }

    /// Removes the node's NAT table, there or not. (The filter of what containers send stays: an
    /// ADD looks for it before it makes its link.)
    ///
    /// # Errors
    /// nft is missing or refuses.
    pub async fn remove_nat(&self) -> Result<(), Error> {
        nft::remove::<NatTable>().await
    }

    async fn remove_as_group(&self, links: &[OwnLink]) -> Result<(), Error> {
        let refused = |cause| Error::refused("ip link delete group", cause);
        for link in links {
            let message = LinkUnspec::new_with_index(link.index)
                .append_extra_attribute(LinkAttribute::Group(GROUP))
                .build();
            match self.host.handle().link().change(message).execute().await.map_err(into_io) {
                Err(cause) if !is(&cause, Errno::ENODEV) => return Err(refused(cause)),
                _ => {}
            }
        }
        let is_meant = |link: &Link| links.iter().any(|meant| meant.index == link.index);
        let members = self.host.links().await?.into_iter().filter(|link| link.group == GROUP);
        let (meant, others): (Vec<Link>, Vec<Link>) = members.partition(is_meant);
        if meant.is_empty() || !others.is_empty() {
            return Err(refused(Errno::EBUSY.into()));
        }
        let mut request = self.host.handle().link().del(0);
        let message: &mut LinkMessage = request.message_mut();
        message.attributes.push(LinkAttribute::Group(GROUP));
        request.execute().await.map_err(|error| refused(into_io(error)))
    }
}
