//! The sandbox of an attachment's container, recorded in a name of its host end.

use weir_common::network::{AttachmentIdentity, Sandbox, Side};

use crate::Kernel;
use crate::error::Error;
use crate::link::Link;
use crate::netlink::into_io;

impl Kernel {
    /// Records the sandbox that the container of `identity` is in, in place of what is recorded;
    /// with `None`, that it is in none.
    ///
    /// # Errors
    /// [`Error::LinkMissing`] when the attachment has no host end; the link of that name is not
    /// this attachment's; or the kernel refuses.
    pub async fn record_sandbox(
        &self,
        identity: &AttachmentIdentity,
        sandbox: Option<&Sandbox>,
    ) -> Result<(), Error> {
        let name = identity.host_interface();
        let missing = || Error::LinkMissing { side: Side::Host, link: name.clone() };
        let link = self.host.link_by_name(&name).await?.ok_or_else(missing)?;
        if !link.belongs_to(identity) {
            return Err(link.foreign());
        }
        let wanted = sandbox.map(Sandbox::name);
        let recorded = link.other_names.iter().map(String::as_str);
        let recorded = recorded.filter(|name| Sandbox::of_name(name).is_some());
        let (present, stale): (Vec<&str>, Vec<&str>) =
            recorded.partition(|name| wanted.as_deref() == Some(name));
        self.drop_names(&link, &stale).await?;
        let Some(wanted) = wanted.filter(|_| present.is_empty()) else { return Ok(()) };
        // Where an endpoint that has left without a word still has it.
        if let Some(other) = self.host.link_by_other_name(&wanted).await?
            && other.is_host_end()
        {
            self.drop_names(&other, &[&wanted]).await?;
        }
        let request = self.host.handle().link().property_add(link.index).alt_ifname(&[&wanted]);
        let action = || format!("ip link property add dev {name} altname {wanted}");
        request.execute().await.map_err(|it| Error::refused(action(), into_io(it)))
    }

    /// Whether a host end records this sandbox.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn has_sandbox(&self, sandbox: &Sandbox) -> Result<bool, Error> {
        Ok(self.host.link_by_other_name(&sandbox.name()).await?.is_some())
    }

    async fn drop_names(&self, link: &Link, names: &[&str]) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        let request = self.host.handle().link().property_del(link.index).alt_ifname(names);
        let action = || {
            format!("ip link property del dev {} altname {}", link.name, names.join(" altname "))
        };
        request.execute().await.map_err(|it| Error::refused(action(), into_io(it)))
    }
}
