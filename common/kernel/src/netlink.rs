//! A netlink connection to one network namespace.

use std::io;

use futures_util::StreamExt;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::Handle;
use tokio::task::JoinHandle;

use crate::Error;

/// How often a listing is asked for again when the kernel says that something
/// changed meanwhile.
const DUMP_ATTEMPTS: usize = 10;

/// A connection, bound to the namespace that the thread was in when it was
/// opened.
#[derive(Debug)]
pub(crate) struct Netlink {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Netlink {
    /// Opens a connection to the thread's present namespace, with strict
    /// checking: the kernel then filters listings instead of sending all.
    pub(crate) fn open() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()
            .map_err(|cause| Error::refused("open a netlink socket", cause))?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// The handle for requests that rtnetlink has a method for.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// All that the kernel lists for `request`. rtnetlink's own listings drop
    /// the flag by which the kernel says that a listing is not of one moment,
    /// so this reads the messages itself and asks again.
    pub(crate) async fn dump(
        &self,
        request: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(listing) = self.dump_once(request.clone()).await? {
                return Ok(listing);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "the kernel's list kept changing while it was read; try again",
        ))
    }

    async fn dump_once(
        &self,
        request: RouteNetlinkMessage,
    ) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        let mut answers = self.handle.clone().request(message).map_err(into_io)?;
        let (mut listing, mut interrupted) = (Vec::new(), false);
        while let Some(answer) = answers.next().await {
            interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => listing.push(inner),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
        Ok((!interrupted).then_some(listing))
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The errno that rtnetlink's error carries, as an I/O error.
pub(crate) fn into_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        error => io::Error::other(error),
    }
}
