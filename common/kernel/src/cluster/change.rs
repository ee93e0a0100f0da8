//! Carrying out changes.

use std::collections::{BTreeSet, HashMap};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use weir_common::network::{Change, RouteKind, Side, TUNNEL_ALIAS, TUNNEL_DEVICE};

use super::route_message::link_of;
use crate::Kernel;
use crate::error::Error;

impl Kernel {
    /// Carries out `changes` in order, going on past those that fail, and
    /// returns these with what they were (in terms of `ip`). Nothing is
    /// returned where the kernel already has what a change would make.
    ///
    /// Without a tunnel device (the kernel has no IPIP, or another program has
    /// its name) all that needs it is left out, and returned once.
    pub async fn change(&self, changes: &[Change]) -> Vec<(String, Error)> {
        self.run(changes).await.failures
    }

    pub(super) async fn run(&self, changes: &[Change]) -> Run<'_> {
        let mut run = Run::new(self);
        for part in changes.chunk_by(|one, next| is_route(one) && is_route(next)) {
            match part {
                [change] if !is_route(change) => {
                    if let Err(error) = run.single(change).await {
                        run.failures.push((change.to_string(), error));
                    }
                }
                routes => run.routes(routes).await,
            }
        }
        run
    }
}

fn is_route(change: &Change) -> bool {
    matches!(
        change,
        Change::AddRoute(..)
            | Change::ReplaceRoute(..)
            | Change::DeleteRoute(..)
            | Change::Announce(_)
            | Change::Withdraw(_)
    )
}

/// A series of changes under way.
pub(super) struct Run<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) failures: Vec<(String, Error)>,
    /// What was left out: there is no tunnel device, or nothing to be done.
    pub(super) left_out: BTreeSet<String>,
    /// The numbers of the links that were asked for.
    indices: HashMap<String, u32>,
    /// Whether it is known, and reported, that there is no tunnel device.
    no_tunnel: bool,
}

impl<'a> Run<'a> {
    fn new(kernel: &'a Kernel) -> Self {
        let (failures, left_out, indices) = Default::default();
        Self { kernel, failures, left_out, indices, no_tunnel: false }
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

    async fn single(&mut self, change: &Change) -> Result<(), Error> {
        if self.no_tunnel && is_of_tunnel(change) {
            self.left_out.insert(change.to_string());
            return Ok(());
        }
        match change {
            Change::CreateTunnel => {
                let outcome = self.kernel.create_tunnel().await;
                self.no_tunnel = outcome.is_err();
                outcome
            }
            Change::ClaimTunnel => {
                let index = self.tunnel()?;
                self.kernel.set_tunnel_alias(change, index, TUNNEL_ALIAS).await
            }
            Change::DisclaimTunnel => {
                let index = self.tunnel()?;
                self.kernel.set_tunnel_alias(change, index, "").await
            }
            Change::SetTunnelMtu(mtu) => {
                let index = self.tunnel()?;
                self.kernel.change_tunnel(change, index, |link| link.mtu(*mtu)).await
            }
            Change::SetTunnelUp => {
                let index = self.tunnel()?;
                self.kernel.change_tunnel(change, index, |link| link.up()).await
            }
            Change::SetTunnelDown => {
                let index = self.tunnel()?;
                self.kernel.change_tunnel(change, index, |link| link.down()).await
            }
            Change::AddTunnelAddress(address) => {
                let index = self.tunnel()?;
                self.kernel.add_tunnel_address(change, index, *address).await
            }
            Change::RemoveTunnelAddress(address) => {
                let index = self.tunnel()?;
                self.kernel.remove_tunnel_address(change, index, *address).await
            }
            Change::LoosenReversePath(link) => self.kernel.loosen_reverse_path(link),
            // In runs of their own.
            Change::AddRoute(..)
            | Change::ReplaceRoute(..)
            | Change::DeleteRoute(..)
            | Change::Announce(_)
            | Change::Withdraw(_) => Ok(()),
        }
    }

    /// The tunnel device's number.
    fn tunnel(&mut self) -> Result<u32, Error> {
        self.index(TUNNEL_DEVICE)
    }

    /// A link's number. That the tunnel device is missing is said once.
    fn index(&mut self, link: &str) -> Result<u32, Error> {
        if let Some(index) = self.indices.get(link) {
            return Ok(*index);
        }
        match if_nametoindex(link) {
            Ok(index) => {
                self.indices.insert(link.to_owned(), index);
                Ok(index)
            }
            Err(Errno::ENODEV) => {
                self.no_tunnel |= link == TUNNEL_DEVICE;
                Err(Error::LinkMissing { side: Side::Host, link: link.to_owned() })
            }
            Err(errno) => Err(Error::refused(format!("ip link show {link}"), errno.into())),
        }
    }

    /// The number of the link that a way goes by, where it goes by one;
    /// `Ok(None)` if it is known already that this is missing.
    pub(super) fn index_of(&mut self, way: &RouteKind) -> Result<Option<LinkIndex>, Error> {
        match link_of(way) {
            None => Ok(Some(None)),
            Some(TUNNEL_DEVICE) if self.no_tunnel => Ok(None),
            Some(link) => self.index(link).map(|index| Some(Some(index))),
        }
    }
}

/// The number of a link; none for ways that go by no link.
pub(super) type LinkIndex = Option<u32>;

fn is_of_tunnel(change: &Change) -> bool {
    match change {
        Change::LoosenReversePath(link) => link == TUNNEL_DEVICE,
        change => !is_route(change),
    }
}
