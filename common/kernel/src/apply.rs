//! Carrying out a plan, and taking it back.

use std::collections::HashMap;
use std::fmt;
use std::io;

use netlink_packet_route::route::RouteMessage;
use weir_common::network::{AttachmentIdentity, Before, NatTable, Side, Step, Undo};

use crate::error::Error;
use crate::netlink::Netlink;
use crate::{Kernel, nft};

/// Is asked before and after every step of a plan, and may stop it there as if
/// the step had failed: for tests of the undo.
pub trait Checkpoint {
    /// Before the step at `position` (from 0) is carried out.
    ///
    /// # Errors
    /// The plan is to fail here, with the step not done.
    fn before(&mut self, position: usize, step: &Step) -> io::Result<()>;

    /// After it was carried out.
    ///
    /// # Errors
    /// The plan is to fail here, with the step done.
    fn after(&mut self, position: usize, step: &Step) -> io::Result<()>;
}

/// Lets everything pass.
struct Pass;

impl Checkpoint for Pass {
    fn before(&mut self, _: usize, _: &Step) -> io::Result<()> {
        Ok(())
    }

    fn after(&mut self, _: usize, _: &Step) -> io::Result<()> {
        Ok(())
    }
}

/// What was done, so that it can be taken back when a later part of the call
/// fails.
#[derive(Debug, Default)]
#[must_use = "what was applied stays unless it is undone"]
pub struct Applied {
    undos: Vec<Undo>,
    /// Routes of the cluster that routes to the container have replaced.
    replaced: Vec<RouteMessage>,
    host_link: Option<String>,
    indices: Indices,
}

/// A plan that failed on the way. What had been done is taken back already.
#[derive(Debug)]
pub struct ApplyError {
    /// The step that failed, in terms of `ip`.
    pub step: String,
    /// Why.
    pub cause: Error,
    /// What could not be taken back; empty if all is as it was.
    pub left: Vec<Error>,
}

impl fmt::Display for ApplyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(formatter)?;
        for error in &self.left {
            write!(formatter, "; and it could not be undone: {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ApplyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.cause)
    }
}

impl Kernel {
    /// Carries out `steps` in order.
    ///
    /// # Errors
    /// The first step that fails; those before it are undone, in reverse order
    /// and past further errors.
    pub async fn apply(&self, steps: &[Step]) -> Result<Applied, Box<ApplyError>> {
        self.apply_with(steps, &mut Pass).await
    }

    /// Carries out `steps` after others that were `applied` before.
    ///
    /// # Errors
    /// As [`Kernel::apply`]; what was applied before is undone too.
    pub async fn apply_after(
        &self,
        applied: Applied,
        steps: &[Step],
    ) -> Result<Applied, Box<ApplyError>> {
        self.carry_out_all(applied, steps, &mut Pass).await
    }

    /// As [`Kernel::apply`], asking `checkpoint` around every step.
    ///
    /// # Errors
    /// As [`Kernel::apply`], and where `checkpoint` says so.
    pub async fn apply_with(
        &self,
        steps: &[Step],
        checkpoint: &mut impl Checkpoint,
    ) -> Result<Applied, Box<ApplyError>> {
        self.carry_out_all(Applied::default(), steps, checkpoint).await
    }

    async fn carry_out_all(
        &self,
        mut applied: Applied,
        steps: &[Step],
        checkpoint: &mut impl Checkpoint,
    ) -> Result<Applied, Box<ApplyError>> {
        for (position, step) in steps.iter().enumerate() {
            let outcome = self.checked_step(position, step, checkpoint, &mut applied).await;
            if let Err(cause) = outcome {
                let left = self.undo(applied).await;
                return Err(Box::new(ApplyError { step: step.to_string(), cause, left }));
            }
        }
        Ok(applied)
    }

    /// Takes back what was applied, last things first, going on past errors,
    /// and returns these. What other attachments of the node rely on too
    /// (forwarding, NAT) is taken back only if there are none.
    pub async fn undo(&self, applied: Applied) -> Vec<Error> {
        let mut errors = Vec::new();
        if applied.undos.is_empty() {
            return errors;
        }
        // A socket of its own: the one that was used may be what failed.
        let host = match Netlink::open() {
            Ok(host) => host,
            Err(error) => return vec![error],
        };
        for undo in applied.undos.iter().rev() {
            let outcome = match is_needed(&host, undo, applied.host_link.as_deref()).await {
                Ok(true) => Ok(()),
                Ok(false) => self.take_back(&host, undo).await,
                Err(error) => Err(error),
            };
            errors.extend(outcome.err());
        }
        // Their place is free once the veth is gone.
        for route in &applied.replaced {
            errors.extend(host.put_back(route).await.err());
        }
        errors
    }

    async fn checked_step(
        &self,
        position: usize,
        step: &Step,
        checkpoint: &mut impl Checkpoint,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let stopped = |cause| Error::refused(step, cause);
        checkpoint.before(position, step).map_err(stopped)?;
        if let Step::CreateVeth(veth) = step {
            // Those of a link that it takes the place of are void.
            applied.indices = Indices::default();
            applied.host_link = Some(veth.identity.host_interface());
        }
        let before = self.carry_out(step, &mut applied.indices, &mut applied.replaced).await?;
        applied.undos.extend(step.undo(before));
        checkpoint.after(position, step).map_err(stopped)
    }

    async fn carry_out(
        &self,
        step: &Step,
        indices: &mut Indices,
        replaced: &mut Vec<RouteMessage>,
    ) -> Result<Before, Error> {
        match step {
            Step::CreateVeth(veth) => self.create_veth(veth).await?,
            Step::SetAlias { link, alias } => {
                let index = indices.of(self, Side::Host, link)?;
                self.set_alias(step, index, alias).await?;
            }
            Step::AddNames { link, names } => {
                let index = indices.of(self, Side::Host, link)?;
                self.add_names(step, index, names).await?;
            }
            Step::SetSysctl(sysctl) => return self.set_sysctl(sysctl),
            Step::SetMac { link, mac } => {
                self.set_mac(step, indices.of(self, Side::Host, link)?, *mac).await?;
            }
            Step::SetLinkUp { side, link } => {
                self.set_up(step, *side, indices.of(self, *side, link)?).await?;
            }
            Step::AddAddress { side, link, address, scope } => {
                let index = indices.of(self, *side, link)?;
                self.add_address(step, *side, index, (*address, *scope)).await?;
            }
            Step::AddNeighbour { side, link, address, mac } => {
                let index = indices.of(self, *side, link)?;
                self.add_neighbour(step, (*side, index), *address, *mac).await?;
            }
            Step::AddRoute { side, link, route } => {
                let index = indices.of(self, *side, link)?;
                replaced.extend(self.add_route(step, (*side, index), route).await?);
            }
            Step::EnsureNat(table) => return nft::ensure(table.as_ref()).await,
        }
        Ok(Before::Absent)
    }

    async fn take_back(&self, host: &Netlink, undo: &Undo) -> Result<(), Error> {
        match undo {
            Undo::DeleteLink { link } => match host.link_by_name(link).await? {
                Some(found) => host.delete_link(found.index, link).await,
                None => Ok(()),
            },
            Undo::RestoreSysctl { side, key, value } => self.restore_sysctl(*side, key, value),
            Undo::RestoreNat { listing } => nft::restore::<NatTable>(listing.as_deref()).await,
        }
    }
}

/// Whether another attachment than that of `own_link` relies on what `undo` would
/// take back.
async fn is_needed(host: &Netlink, undo: &Undo, own_link: Option<&str>) -> Result<bool, Error> {
    if !undo.is_shared() {
        return Ok(false);
    }
    let links = host.links().await?;
    Ok(links.iter().any(|link| {
        Some(link.name.as_str()) != own_link
            && link.alias.as_deref().and_then(AttachmentIdentity::from_alias).is_some()
    }))
}

/// The numbers of the links that a plan names, each looked up once.
#[derive(Debug, Default)]
struct Indices(HashMap<(Side, String), u32>);

impl Indices {
    fn of(&mut self, kernel: &Kernel, side: Side, link: &str) -> Result<u32, Error> {
        if let Some(index) = self.0.get(&(side, link.to_owned())) {
            return Ok(*index);
        }
        let index = kernel.index(side, link)?;
        self.0.insert((side, link.to_owned()), index);
        Ok(index)
    }
}
