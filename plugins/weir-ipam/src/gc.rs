//! GC: give back the addresses of attachments that are gone.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use weir_common::cni::{Code, Error};
use weir_common::ipam::collect::{AttachmentName, CollectScope, Rule, collect};
use weir_common::network::AttachmentIdentity;
use weir_kernel::{Kernel, OwnLink, has_link};
use weir_process::{AttachmentLocks, LockError, within_ipam};

use crate::{Ipam, evidence};

/// The attachments of a network that a call gives up. Their locks are held until this is
/// dropped, so that no ADD begins meanwhile.
#[derive(Debug)]
pub struct Claims {
    network: String,
    locks: AttachmentLocks,
}

impl Claims {
    /// Of this network; `locks` are to hold them.
    pub fn new(network: &str, locks: AttachmentLocks) -> Self {
        Self { network: network.to_owned(), locks }
    }

    /// Claims the attachment with the host's end of this name; not if a call is at work on
    /// it.
    ///
    /// # Errors
    /// Its lock cannot be taken, whoever has it.
    pub fn claim_link(&self, host_interface: &str) -> Result<bool, LockError> {
        match AttachmentIdentity::lock_number_of(host_interface) {
            Some(number) => self.locks.try_take(number),
            None => Ok(false),
        }
    }

    /// Claims the links that ADDs left half-made because they were killed, of those that are `meant`
    /// by their names: they have no alias, and the node routes nothing to them. One without alias
    /// to which it routes is a living container's, of whichever network, that somebody took the
    /// alias from.
    ///
    /// # Errors
    /// The kernel refuses the list; a lock cannot be taken, whoever has it.
    pub async fn claim_unfinished(
        &self,
        kernel: &Kernel,
        meant: impl Fn(&str) -> bool,
    ) -> Result<Vec<OwnLink>, Error> {
        let mut claimed = Vec::new();
        for link in unfinished(kernel).await? {
            if meant(link.name()) && self.claim_link(link.name())? {
                claimed.push(link);
            }
        }
        if !claimed.is_empty() {
            // An ADD may have finished one before it was claimed.
            let left = unfinished(kernel).await?;
            claimed.retain(|link| left.contains(link));
        }
        let mut half_made = Vec::new();
        for link in claimed {
            let routed = kernel.addresses_of(std::slice::from_ref(&link)).await;
            if routed.map_err(of_kernel)?.is_empty() {
                half_made.push(link);
            }
        }
        Ok(half_made)
    }

    /// Claims an attachment whose addresses are to be given back; not if a call is at work
    /// on it, or it has a link: that of an ADD which came to its end since the links were
    /// looked at.
    pub fn claim(&self, attachment: &AttachmentName) -> bool {
        self.try_claim(attachment).unwrap_or_else(|error| {
            let AttachmentName { container_id, interface } = attachment;
            tracing::warn!(%error, container_id, interface, "the attachment is passed over");
            false
        })
    }

    fn try_claim(&self, attachment: &AttachmentName) -> Result<bool, Error> {
        let AttachmentName { container_id, interface } = attachment;
        // No call of `weir` can be at work on what its names are too long for.
        let identity = AttachmentIdentity::new(self.network.as_str(), container_id, interface);
        let Ok(identity) = identity else { return Ok(true) };
        let host_interface = identity.host_interface();
        Ok(self.claim_link(&host_interface)? && !has_link(&host_interface).map_err(of_kernel)?)
    }
}

fn of_kernel(error: weir_kernel::Error) -> Error {
    Error::caused(Code::Kernel, &error)
}

async fn unfinished(kernel: &Kernel) -> Result<Vec<OwnLink>, Error> {
    let made = kernel.made_links().await.map_err(of_kernel)?;
    Ok(made.into_iter().filter(|made| made.identity.is_none()).map(|made| made.link).collect())
}

/// Removes the links that ADDs left half-made ([`Claims::claim_unfinished`]): as long as one is
/// there, its addresses are not given back.
///
/// # Errors
/// All that failed, as one, after every link has been tried.
pub async fn remove_unfinished(kernel: &Kernel, claims: &Claims) -> Result<(), Error> {
    let links = claims.claim_unfinished(kernel, |_| true).await?;
    let failed = kernel.remove_links(&links).await;
    let is_left = |place: &usize| failed.iter().any(|(failed, _)| failed == place);
    for (_, link) in links.iter().enumerate().filter(|(place, _)| !is_left(place)) {
        tracing::warn!(host_interface = link.name(), "removed: whoever made it did not finish");
    }
    Error::joined(failed.into_iter().map(|(_, error)| of_kernel(error))).map_or(Ok(()), Err)
}

impl Ipam<'_> {
    /// Gives back what the runtime's list of `valid` attachments does not have, or, without
    /// a list, what is proved dead: of this network and this host. What cannot be claimed
    /// is passed over. Answers the addresses, and all that failed, after everything has been
    /// tried.
    ///
    /// # Errors
    /// The host's lock cannot be had; time is up.
    pub async fn gc(
        &self,
        valid: Option<&BTreeSet<AttachmentName>>,
        claims: &Claims,
    ) -> Result<(Vec<IpAddr>, Option<Error>), Error> {
        let _lock = self.lock().await?;
        let giving_back = self.give_back(valid, claims);
        within_ipam("giving back what is not in use", self.limit, giving_back).await
    }

    async fn give_back(
        &self,
        valid: Option<&BTreeSet<AttachmentName>>,
        claims: &Claims,
    ) -> Result<(Vec<IpAddr>, Option<Error>), Error> {
        let rule = match valid {
            Some(valid) => Rule::Listed(valid.clone()),
            None => Rule::Proved(evidence::gather(self.call, Timestamp::now()).await?),
        };
        let collection = self.collection(rule);
        let claim = |attachment: &AttachmentName| claims.claim(attachment);
        let collecting =
            collect(self.datastore.as_ref(), &collection, CollectScope::AllBlocks, &claim);
        let collected = collecting.await;
        self.log_collected(&collected, "its attachment is gone");
        if let Err(error) = self.datastore.maintain().await {
            tracing::debug!(%error, "the datastore is put in order by a later call");
        }
        let errors = collected.errors.into_iter().map(Error::from);
        let addresses = collected.released.into_iter().map(|(address, _)| address).collect();
        Ok((addresses, Error::joined(errors)))
    }
}
