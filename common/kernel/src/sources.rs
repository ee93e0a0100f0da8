//! What containers may send.

use weir_common::link::SourceCheck;
use weir_common::network::{
    AllowedSources, AttachmentIdentity, Side, SourceFilter, Sysctl, allowed_sources,
};

use crate::error::Error;
use crate::link::Link;
use crate::{Kernel, nft};

impl Kernel {
    /// Sees to it that the filter of what containers send is installed. Where it was not,
    /// or not as it should be, it is told again what they are allowed.
    ///
    /// # Errors
    /// The program nft is missing or refuses, or the links cannot be listed.
    pub async fn ensure_source_filter(&self) -> Result<(), Error> {
        if self.has_source_filter().unwrap_or_default() {
            return Ok(());
        }
        nft::ensure(Some(&SourceFilter)).await?;
        let mut told = (!self.allows_more(None)).then(AllowedSources::new);
        loop {
            // A call may tell the filter of its container between a list and what follows
            // from it; what it told is seen when looking again.
            let allowed = allowed_sources(&self.attachment_states().await?);
            if told.as_ref() == Some(&allowed) {
                return Ok(());
            }
            self.fill_source_filter(&allowed).await?;
            told = Some(allowed);
        }
    }

    /// Tells the filter of what containers send what they are allowed. Nobody else may do
    /// so meanwhile.
    ///
    /// # Errors
    /// The links cannot be listed, or the program nft refuses.
    pub async fn fill_allowed_sources(&self) -> Result<(), Error> {
        self.fill_source_filter(&allowed_sources(&self.attachment_states().await?)).await
    }

    /// Lets the container of `identity` send what it is allowed: from the addresses of each
    /// of its host ends by all of them, and from the prefixes in their names. Nobody else
    /// may do so meanwhile.
    ///
    /// # Errors
    /// The links cannot be listed, a parameter not be set, or the program nft refuses.
    pub async fn allow_sources(&self, identity: &AttachmentIdentity) -> Result<(), Error> {
        let mut attachments = self.attachment_states().await?;
        let allowed = allowed_sources(&attachments);
        let own = attachments.iter().find(|it| it.identity == *identity).cloned();
        attachments.retain(|it| own.as_ref().is_some_and(|own| own.container() == it.container()));
        let is_allowed_no_more = allowed_sources(&attachments).is_empty();
        if is_allowed_no_more && !self.allows_more(Some(&identity.host_interface())) {
            return Ok(());
        }
        self.fill_source_filter(&allowed).await?;
        for attachment in attachments.iter().filter(|it| it.is_checked && it.routed().ipv4) {
            let host = attachment.identity.host_interface();
            if allowed.iter().any(|(end, prefix)| *end == host && prefix.addr().is_ipv4()) {
                self.set_sysctl(&unfiltered(&host))?;
            }
        }
        Ok(())
    }
}

/// Whether there are containers among those of these links whose sources are checked.
pub(crate) fn are_checked(links: &[Link]) -> bool {
    links.iter().any(|link| link.is_host_end() && link.source_check() == SourceCheck::Strict)
}

/// No reverse path filter: it does not know what else a container is allowed, and the
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
