//! Carrying out changes.

use std::collections::{BTreeSet, HashMap};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use weir_common::network::{Change, RouteKind, Side, TUNNEL_ALIAS};
use weir_common::tunnel::TunnelKind;

use super::route_message::link_of;
use crate::Kernel;
use crate::error::Error;

impl Kernel {
    /// Carries out `changes` in order, going on past those that fail, and
    /// returns these with what they were (in terms of `ip`). Nothing is
    /// returned where the kernel already has what a change would make, or lacks what it would
    /// take away.
    ///
    /// Without a tunnel device (the kernel has none of its kind, or another program has
    /// its name or its port) all that needs it is left out, and returned once.
    pub async fn change(&self, changes: &[Change]) -> Vec<(String, Error)> {
        self.run(changes).await.failures
    }

    pub(super) async fn run(&self, changes: &[Change]) -> Run<'_> {
        let mut run = Run::new(self);
        let is_one_batch =
            |one: &Change, next: &Change| batch(one).is_some() && batch(one) == batch(next);
        for part in changes.chunk_by(is_one_batch) {
            match batch(&part[0]) {
                Some(Batch::Routes) => run.routes(part).await,
                Some(Batch::Entries) => run.entries(part).await,
                None => {
                    let change = &part[0];
                    if let Err(error) = run.single(change).await {
                        run.failures.push((change.to_string(), error));
                    }
                }
            }
        }
        run
    }
}

/// What is asked of the kernel many at a time.
#[derive(PartialEq, Eq)]
enum Batch {
    Routes,
    /// Neighbours and forwarding entries.
    Entries,
}

fn batch(change: &Change) -> Option<Batch> {
    match change {
        Change::AddRoute(..)
        | Change::ReplaceRoute(..)
        | Change::DeleteRoute(..)
        | Change::Announce(_)
        | Change::Withdraw(_) => Some(Batch::Routes),
        Change::AddForwarding(..)
        | Change::RemoveForwarding(..)
        | Change::SetNeighbour(..)
        | Change::RemoveNeighbour(..) => Some(Batch::Entries),
        _ => None,
    }
}

/// A series of changes under way.
pub(super) struct Run<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) failures: Vec<(String, Error)>,
    /// What was left out: there is no tunnel device, or nothing to be done.
    pub(super) left_out: BTreeSet<String>,
    /// The numbers of the links that were asked for.
    indices: HashMap<String, u32>,
    /// The kinds of tunnels of which it is known, and reported, that there is no device that can
    /// be used.
    pub(super) unusable: BTreeSet<TunnelKind>,
}

impl<'a> Run<'a> {
    fn new(kernel: &'a Kernel) -> Self {
        let (failures, left_out, indices, unusable) = Default::default();
        Self { kernel, failures, left_out, indices, unusable }
    }

    /// Those of the changes that were made.
    pub(super) fn made(&self, mut changes: Vec<Change>) -> Vec<Change> {
        let failed: BTreeSet<&str> = self.failures.iter().map(|(what, _)| what.as_str()).collect();
        changes.retain(|change| {
            let what = change.to_string();
            !self.left_out.contains(&what) && !failed.contains(what.as_str())
        });
        changes
    }

    /// Carries out a change of a tunnel device or a parameter.
    async fn single(&mut self, change: &Change) -> Result<(), Error> {
        let kind = tunnel_of(change);
        if kind.is_some_and(|kind| self.unusable.contains(&kind)) {
            self.left_out.insert(change.to_string());
            return Ok(());
        }
        let outcome = match self.try_single(change).await {
            // It went with the device.
            Err(Error::LinkMissing { .. }) if takes_away(change) => Ok(()),
            outcome => outcome,
        };
        if outcome.is_err() && decides(change) {
            self.unusable.extend(kind);
        }
        outcome
    }

    async fn try_single(&mut self, change: &Change) -> Result<(), Error> {
        match change {
            Change::CreateTunnel(kind, vxlan) => {
                self.indices.remove(kind.device());
                self.kernel.create_tunnel(change, *kind, vxlan.as_ref()).await
            }
            Change::DeleteTunnel(kind) => {
                self.indices.remove(kind.device());
                self.kernel.delete_tunnel(*kind).await
            }
            Change::ClaimTunnel(kind) => {
                let index = self.index(kind.device())?;
                self.kernel.set_tunnel_alias(change, index, TUNNEL_ALIAS).await
            }
            Change::DisclaimTunnel(kind) => {
                let index = self.index(kind.device())?;
                self.kernel.set_tunnel_alias(change, index, "").await
            }
            Change::SetTunnelMtu(kind, mtu) => {
                let index = self.index(kind.device())?;
                self.kernel.change_tunnel(change, index, |link| link.mtu(*mtu)).await
            }
            Change::SetTunnelUp(kind) => {
                let index = self.index(kind.device())?;
                self.kernel.bring_tunnel_up(change, *kind, index).await
            }
            Change::SetTunnelDown(kind) => {
                let index = self.index(kind.device())?;
                self.kernel.change_tunnel(change, index, |link| link.down()).await
            }
            Change::AddTunnelAddress(kind, address) => {
                let index = self.index(kind.device())?;
                self.kernel.add_tunnel_address(change, index, *address).await
            }
            Change::RemoveTunnelAddress(kind, address) => {
                let index = self.index(kind.device())?;
                self.kernel.remove_tunnel_address(change, index, *address).await
            }
            Change::LoosenReversePath(link) => self.kernel.loosen_reverse_path(link),
            // In batches of their own.
            Change::AddRoute(..)
            | Change::ReplaceRoute(..)
            | Change::DeleteRoute(..)
            | Change::Announce(_)
            | Change::Withdraw(_)
            | Change::AddForwarding(..)
            | Change::RemoveForwarding(..)
            | Change::SetNeighbour(..)
            | Change::RemoveNeighbour(..) => Ok(()),
        }
    }

    /// A link's number. That a tunnel device is missing is said once.
    pub(super) fn index(&mut self, link: &str) -> Result<u32, Error> {
        if let Some(index) = self.indices.get(link) {
            return Ok(*index);
        }
        match if_nametoindex(link) {
            Ok(index) => {
                self.indices.insert(link.to_owned(), index);
                Ok(index)
            }
            Err(Errno::ENODEV) => {
                self.unusable.extend(TunnelKind::of_device(link));
                Err(Error::LinkMissing { side: Side::Host, link: link.to_owned() })
            }
            Err(errno) => Err(Error::refused(format!("ip link show {link}"), errno.into())),
        }
    }

    /// The number of the link that a way goes by, where it goes by one;
    /// `Ok(None)` if it is known already that this is a tunnel device that is missing.
    pub(super) fn index_of(&mut self, way: &RouteKind) -> Result<Option<LinkIndex>, Error> {
        if way.tunnel_kind().is_some_and(|kind| self.unusable.contains(&kind)) {
            return Ok(None);
        }
        match link_of(way) {
            None => Ok(Some(None)),
            Some(link) => self.index(link).map(|index| Some(Some(index))),
        }
    }
}

/// The number of a link; none for ways that go by no link.
pub(super) type LinkIndex = Option<u32>;

/// The kind of tunnel whose device a change is of.
fn tunnel_of(change: &Change) -> Option<TunnelKind> {
    match change {
        Change::CreateTunnel(kind, _)
        | Change::DeleteTunnel(kind)
        | Change::ClaimTunnel(kind)
        | Change::DisclaimTunnel(kind)
        | Change::SetTunnelMtu(kind, _)
        | Change::AddTunnelAddress(kind, _)
        | Change::RemoveTunnelAddress(kind, _)
        | Change::SetTunnelUp(kind)
        | Change::SetTunnelDown(kind)
        | Change::AddForwarding(kind, ..)
        | Change::RemoveForwarding(kind, ..)
        | Change::SetNeighbour(kind, ..)
        | Change::RemoveNeighbour(kind, _) => Some(*kind),
        Change::LoosenReversePath(link) => TunnelKind::of_device(link),
        Change::AddRoute(..)
        | Change::ReplaceRoute(..)
        | Change::DeleteRoute(..)
        | Change::Announce(_)
        | Change::Withdraw(_) => None,
    }
}

/// Whether a change asks for nothing where the tunnel device has gone.
fn takes_away(change: &Change) -> bool {
    matches!(
        change,
        Change::DisclaimTunnel(_) | Change::SetTunnelDown(_) | Change::RemoveTunnelAddress(..)
    )
}

/// Whether all that needs the tunnel device fails once this change of it has failed.
fn decides(change: &Change) -> bool {
    matches!(change, Change::CreateTunnel(..) | Change::DeleteTunnel(_) | Change::SetTunnelUp(_))
}
