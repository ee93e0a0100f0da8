//! Messages to the kernel's netfilter (`linux/netfilter/nfnetlink.h`), as bytes.

use std::io;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use crate::dump;

/// The length of what precedes a message's attributes: family, version, resource id.
pub(crate) const FAMILY_HEADER: usize = 4;

/// The length of a netlink message's own header (`linux/netlink.h`).
const HEADER: usize = 16;
const TYPE_ERROR: u16 = 2;
const TYPE_DONE: u16 = 3;

/// The bits of an attribute's type that are not flags (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;

/// Room for a datagram of a listing, in bytes.
const LARGEST: usize = 64 << 10;

/// How long a listing may take. Two million connections take about as long.
const LONGEST: Duration = Duration::from_secs(2);

/// An attribute with this value, padded.
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut attribute = Vec::with_capacity(length.next_multiple_of(4));
    attribute.extend((length as u16).to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(length.next_multiple_of(4), 0);
    attribute
}

/// The attribute that names a table, a chain or a set.
pub(crate) fn name_attribute(kind: u16, name: &str) -> Vec<u8> {
    attribute(kind, &[name.as_bytes(), &[0]].concat())
}

/// The attributes that `bytes` consists of: the type of each without flags, and its value.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(word(bytes, 0)?), word(bytes, 2)? & TYPE_MASK);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of that type.
pub(crate) fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// All that the kernel lists for a request and that is to be kept, as the bodies of messages.
pub(crate) fn list(
    kind: u16,
    family: u8,
    attributes: &[u8],
    keep: impl Fn(&[u8]) -> bool,
) -> io::Result<Vec<Vec<u8>>> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    let request = message(kind, NLM_F_REQUEST | NLM_F_DUMP, family, attributes);
    let end = Instant::now() + LONGEST;
    dump::repeat(|| {
        socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
        let receive = || match Instant::now() < end {
            true => receive(&socket),
            false => Err(io::ErrorKind::TimedOut.into()),
        };
        read_answers(receive, &keep)
    })
}

/// Asks for one change after the other. A change of what is not there is none.
pub(crate) fn change(kind: u16, bodies: impl Iterator<Item = (u8, Vec<u8>)>) -> io::Result<()> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    for (family, attributes) in bodies {
        let request = message(kind, NLM_F_REQUEST | NLM_F_ACK, family, &attributes);
        socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
        let (answer, _) = socket.recv_from_full()?;
        let refused = match split_message(&answer) {
            Some((TYPE_ERROR, _, body, _)) => error_in(body),
            _ => Some(io::ErrorKind::InvalidData.into()),
        };
        match refused {
            Some(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
    }
    Ok(())
}

/// Receives a datagram of a listing. The kernel makes them as large as there is room, up to 32 KiB
/// (`netlink_dump` in `net/netlink/af_netlink.c`).
fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    let mut datagram = Vec::with_capacity(LARGEST);
    socket.recv_from(&mut datagram, 0)?;
    Ok(datagram)
}

/// Takes the first netlink message off `bytes`: its type, flags and body, and
/// what follows it.
pub(crate) fn split_message(bytes: &[u8]) -> Option<(u16, u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let body = bytes.get(HEADER..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((word(bytes, 4)?, word(bytes, 6)?, body, next))
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn message(kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    let length = HEADER + FAMILY_HEADER + attributes.len();
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, 0, 0, 0]);
    message.extend(attributes);
    message
}

/// Receives answers up to the end of the listing; `None` when the kernel says in any
/// of them that something changed meanwhile.
fn read_answers(
    mut receive: impl FnMut() -> io::Result<Vec<u8>>,
    keep: &impl Fn(&[u8]) -> bool,
) -> io::Result<Option<Vec<Vec<u8>>>> {
    let (mut answers, mut interrupted) = (Vec::new(), false);
    loop {
        let datagram = receive()?;
        let mut rest = datagram.as_slice();
        while let Some((kind, flags, body, next)) = split_message(rest) {
            rest = next;
            interrupted |= flags & NLM_F_DUMP_INTR != 0;
            match kind {
                TYPE_DONE => return Ok((!interrupted).then_some(answers)),
                TYPE_ERROR => {
                    return Err(error_in(body).unwrap_or(io::ErrorKind::InvalidData.into()));
                }
                _ if keep(body) => answers.push(body.to_vec()),
                _ => {}
            }
        }
    }
}

/// The error that a message of that kind tells of; `None` for an acknowledgement.
fn error_in(body: &[u8]) -> Option<io::Error> {
    match body.get(..4).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) => None,
        Some(code) => Some(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Some(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two answers and the end of the listing, with these flags, in two datagrams.
    fn answered(flags: [u16; 3]) -> Option<Vec<Vec<u8>>> {
        let first = [message(7, flags[0], 1, b"one!"), message(7, flags[1], 1, b"two!")].concat();
        let mut datagrams = [first, message(TYPE_DONE, flags[2], 0, &[])].into_iter();
        let receive = || datagrams.next().ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
        read_answers(receive, &|body| body.ends_with(b"!")).unwrap()
    }

    #[test]
    fn a_listing_that_was_interrupted_anywhere_is_none() {
        let whole = vec![b"\x01\0\0\0one!".to_vec(), b"\x01\0\0\0two!".to_vec()];
        assert_eq!(answered([0; 3]), Some(whole));
        for place in 0..3 {
            let mut flags = [0; 3];
            flags[place] = NLM_F_DUMP_INTR;
            assert_eq!(answered(flags), None, "the flag is on message {place}");
        }
    }

    #[test]
    fn what_is_not_kept_is_read_over() {
        let listing = [message(7, 0, 1, b"one!"), message(7, 0, 1, b"two!")].concat();
        let mut datagrams = [listing, message(TYPE_DONE, 0, 0, &[])].into_iter();
        let receive = || datagrams.next().ok_or_else(|| io::ErrorKind::UnexpectedEof.into());
        let kept = read_answers(receive, &|body| body.ends_with(b"two!")).unwrap();
        assert_eq!(kept, Some(vec![b"\x01\0\0\0two!".to_vec()]));
    }

    #[test]
    fn a_refusal_ends_a_listing() {
        let mut refusal = message(TYPE_ERROR, 0, 0, &[]);
        refusal[HEADER..].copy_from_slice(&(-13i32).to_ne_bytes());
        let cause = read_answers(|| Ok(refusal.clone()), &|_| true).unwrap_err();
        assert_eq!(cause.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn attributes_are_read_as_they_are_written_whatever_their_flags() {
        let nested = 0x8000;
        let bytes = [attribute(1, b"abcde"), attribute(nested | 2, &attribute(3, b"x"))].concat();
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!(read, [(1, b"abcde".as_slice()), (2, &attribute(3, b"x"))]);
        assert_eq!(find(find(&bytes, 2).unwrap(), 3), Some(b"x".as_slice()));
        // What is cut off ends them.
        assert_eq!(attributes(&bytes[..6]).count(), 0);
    }
}
