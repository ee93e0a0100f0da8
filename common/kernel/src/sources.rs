//! What containers may send.

use weir_common::link::SourceCheck;
use weir_common::network::{AttachmentIdentity, Side, SourceFilter, Sysctl, other_sources};

use crate::error::Error;
use crate::{Kernel, nft};

impl Kernel {
    /// Sees to it that the filter of what containers send is installed. Where it was not,
    /// or not as it should be, the containers with several host ends are told to it again.
    ///
    /// # Errors
    /// The program nft is missing or refuses, or the links cannot be listed.
    pub async fn ensure_source_filter(&self) -> Result<(), Error> {
        if self.has_source_filter().unwrap_or_default() {
            return Ok(());
        }
        nft::ensure(Some(&SourceFilter))?;
        self.fill_other_sources().await
    }

    /// Tells the filter of what containers send about the containers with several host
    /// ends. Nobody else may do so meanwhile.
    ///
    /// # Errors
    /// The links cannot be listed, or the program nft refuses.
    pub async fn fill_other_sources(&self) -> Result<(), Error> {
        let attachments = self.attachment_states().await?;
        self.fill_source_filter(&other_sources(&attachments))
    }

    /// Lets the container of `identity` send from the addresses of each of its host ends by
    /// all of them, if there are others. Nobody else may do so meanwhile.
    ///
    /// # Errors
    /// The links cannot be listed, a parameter not be set, or the program nft refuses.
    pub async fn join_sources(&self, identity: &AttachmentIdentity) -> Result<(), Error> {
        let mut attachments = self.attachment_states().await?;
        let sources = other_sources(&attachments);
        attachments.retain(|it| it.identity.container_id() == identity.container_id());
        if attachments.len() < 2 {
            return Ok(());
        }
        self.fill_source_filter(&sources)?;
        for attachment in attachments.iter().filter(|it| it.is_checked && it.routed().ipv4) {
            let host = attachment.identity.host_interface();
            self.set_sysctl(&unfiltered(&host))?;
        }
        Ok(())
    }

    /// Whether there are containers whose sources are checked.
    ///
    /// # Errors
    /// The links cannot be listed.
    pub async fn checks_sources(&self) -> Result<bool, Error> {
        let links = self.host.links().await?;
        Ok(links
            .iter()
            .any(|link| link.is_host_end() && link.source_check() == SourceCheck::Strict))
    }
}

/// No reverse path filter: it does not know which host ends are of one container, and the
/// loose one drops as much where the link has no address (`net/ipv4/fib_frontend.c`,
/// `__fib_validate_source`). The filter of sources does its work.
fn unfiltered(host: &str) -> Sysctl {
    Sysctl {
        side: Side::Host,
        key: format!("net/ipv4/conf/{host}/rp_filter"),
        value: "0".to_owned(),
        of_veth: true,
        optional: false,
    }
}
