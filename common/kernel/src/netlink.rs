//! A netlink connection to one network namespace.

use std::io;
use std::pin::pin;

use futures_util::{Stream, StreamExt};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, Socket, SocketAddr};
use rtnetlink::Handle;
use tokio::task::JoinHandle;

use crate::dump;
use crate::error::Error;

/// A connection, bound to the namespace that the thread was in when it was
/// opened.
#[derive(Debug)]
pub(crate) struct Netlink {
    handle: Handle,
    connection: JoinHandle<()>,
    /// The socket's number, which the kernel's notifications name as their cause.
    pub(crate) port: u32,
}

impl Netlink {
    /// Opens a connection to the thread's present namespace, with strict
    /// checking: the kernel then filters listings instead of sending all.
    pub(crate) fn open() -> Result<Self, Error> {
        let failed = |cause| Error::refused("open a netlink socket", cause);
        let (mut connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().map_err(failed)?;
        let address = connection.socket_mut().socket_mut().bind_auto().map_err(failed)?;
        let port = address.port_number();
        Ok(Self { handle, connection: tokio::spawn(connection), port })
    }

    /// The handle for requests that rtnetlink has a method for.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Asks for a change that rtnetlink has no method for, with these flags besides, and waits
    /// for the kernel's word.
    pub(crate) async fn request(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        collect(self.handle.clone().request(message).map_err(into_io)?).await.map(|_| ())
    }

    /// All that the kernel lists for `request`. rtnetlink's own listings drop
    /// the flag by which the kernel says that a listing is not of one moment,
    /// so this reads the messages itself and asks again.
    pub(crate) async fn dump(
        &self,
        request: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        for pause in dump::pauses() {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            if let Some(listing) = self.dump_once(request.clone()).await? {
                return Ok(listing);
            }
        }
        Err(dump::kept_changing())
    }

    async fn dump_once(
        &self,
        request: RouteNetlinkMessage,
    ) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        collect(self.handle.clone().request(message).map_err(into_io)?).await
    }
}

/// Asks for a change with these flags besides, on a thread and by a socket of their own, and waits
/// for the kernel's word. The kernel makes and deletes links within the system call and waits for
/// RCU there: other futures go on meanwhile.
pub(crate) async fn request_aside(request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut message = NetlinkMessage::from(request);
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    // The new thread is born in the namespace of this one.
    tokio::task::spawn_blocking(move || {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.send(&bytes, 0)?;
        let (answer, _) = socket.recv_from_full()?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer);
        match answer.map_err(io::Error::other)?.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            _ => Ok(()),
        }
    })
    .await?
}

/// What the answers to a listing come to; `None` if it is not of one moment, which any
/// of them may say.
async fn collect(
    answers: impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>>,
) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
    let mut answers = pin!(answers);
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

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, stream};
    use netlink_packet_core::{DoneMessage, ErrorMessage, NetlinkHeader};
    use netlink_packet_route::link::LinkMessage;
    use nix::errno::Errno;

    use super::*;

    type Answer = NetlinkMessage<RouteNetlinkMessage>;

    fn answer(payload: NetlinkPayload<RouteNetlinkMessage>) -> Answer {
        NetlinkMessage::new(NetlinkHeader::default(), payload)
    }

    /// Two links and the end of the listing.
    fn answers() -> [Answer; 3] {
        let link = |index| {
            let mut link = LinkMessage::default();
            link.header.index = index;
            answer(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)))
        };
        [link(1), link(2), answer(NetlinkPayload::Done(DoneMessage::default()))]
    }

    fn collected(answers: &[Answer]) -> io::Result<Option<usize>> {
        let outcome = collect(stream::iter(answers.to_vec())).now_or_never();
        Ok(outcome.expect("all answers are there")?.map(|listing| listing.len()))
    }

    #[test]
    fn a_listing_that_was_interrupted_anywhere_is_none() {
        assert_eq!(collected(&answers()).unwrap(), Some(2));
        for place in 0..3 {
            let mut answers = answers();
            answers[place].header.flags |= NLM_F_DUMP_INTR;
            assert_eq!(collected(&answers).unwrap(), None, "the flag is on message {place}");
        }
    }

    #[test]
    fn a_refusal_ends_a_listing() {
        let mut error = ErrorMessage::default();
        error.code = std::num::NonZeroI32::new(-(Errno::ENODEV as i32));
        let refused = [answers()[0].clone(), answer(NetlinkPayload::Error(error))];
        let cause = collected(&refused).unwrap_err();
        assert_eq!(cause.raw_os_error(), Some(Errno::ENODEV as i32));
    }
}
