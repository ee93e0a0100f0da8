//! Sockets that the kernel tells by what happens.

use std::io;
use std::task::{Context, Poll};

use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};
use nix::errno::Errno;

use crate::link::is;

/// A socket that is told of what these groups are for.
pub(crate) fn listen(protocol: isize, groups: &[u32]) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.socket_mut().add_membership(*group)?;
    }
    Ok(socket)
}

/// Reads all that is there, and says whether something was lost. The context is woken
/// when there is more.
pub(crate) fn drain(
    socket: &TokioSocket,
    context: &mut Context<'_>,
    mut take_in: impl FnMut(&[u8]),
) -> io::Result<bool> {
    let mut overrun = false;
    loop {
        match socket.poll_recv_from_full(context) {
            Poll::Pending => return Ok(overrun),
            Poll::Ready(Ok((datagram, _))) => take_in(&datagram),
            Poll::Ready(Err(cause)) if is(&cause, Errno::ENOBUFS) => overrun = true,
            Poll::Ready(Err(cause)) => return Err(cause),
        }
    }
}
