//! Changes of neighbours and forwarding entries of tunnel devices, many at a time.

use std::io;

use futures_util::{StreamExt, stream};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use weir_common::network::Change;

use super::change::Run;
use super::routes::IN_FLIGHT;
use super::vxlan::{forwarding_entry, neighbour};
use crate::Kernel;
use crate::error::Error;
use crate::link::is;

impl Run<'_> {
    /// Carries out changes that are all of neighbours and forwarding entries.
    pub(super) async fn entries(&mut self, changes: &[Change]) {
        let mut requests = Vec::with_capacity(changes.len());
        for change in changes {
            match self.entry(change) {
                Ok(Some(message)) => requests.push((change, message)),
                Ok(None) => _ = self.left_out.insert(change.to_string()),
                Err(error) => self.failures.push((change.to_string(), error)),
            }
        }
        let kernel = self.kernel;
        let outcomes = stream::iter(requests)
            .map(|(change, message)| async move { (change, kernel.request_entry(message).await) });
        let mut outcomes = outcomes.buffered(IN_FLIGHT);
        while let Some((change, outcome)) = outcomes.next().await {
            if let Err(cause) = outcome {
                self.failures.push((change.to_string(), Error::refused(change, cause)));
            }
        }
    }

    /// The request that carries out a change; none if it needs a tunnel device and that is known
    /// to be missing, or what it takes away went with the device.
    fn entry(&mut self, change: &Change) -> Result<Option<RouteNetlinkMessage>, Error> {
        let (kind, is_removal) = match change {
            Change::AddForwarding(kind, ..) | Change::SetNeighbour(kind, ..) => (*kind, false),
            Change::RemoveForwarding(kind, ..) | Change::RemoveNeighbour(kind, _) => (*kind, true),
            _ => return Ok(None),
        };
        if self.unusable.contains(&kind) {
            return Ok(None);
        }
        let index = match self.index(kind.device()) {
            Err(Error::LinkMissing { .. }) if is_removal => return Ok(None),
            index => index?,
        };
        let message = match change {
            Change::AddForwarding(_, mac, node) | Change::RemoveForwarding(_, mac, node) => {
                forwarding_entry(index, *mac, *node)
            }
            Change::SetNeighbour(_, address, mac) => neighbour(index, *address, Some(*mac)),
            Change::RemoveNeighbour(_, address) => neighbour(index, *address, None),
            _ => return Ok(None),
        };
        Ok(Some(match is_removal {
            true => RouteNetlinkMessage::DelNeighbour(message),
            false => RouteNetlinkMessage::NewNeighbour(message),
        }))
    }
}

impl Kernel {
    /// What is to go and is not there is gone.
    async fn request_entry(&self, request: RouteNetlinkMessage) -> io::Result<()> {
        let is_removal = matches!(request, RouteNetlinkMessage::DelNeighbour(_));
        let flags = if is_removal { 0 } else { NLM_F_CREATE | NLM_F_REPLACE };
        match self.host.request(request, flags).await {
            Err(cause)
                if is_removal && (is(&cause, Errno::ENOENT) || is(&cause, Errno::ENODEV)) =>
            {
                Ok(())
            }
            outcome => outcome,
        }
    }
}
