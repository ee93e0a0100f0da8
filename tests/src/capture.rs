//! Sees the packets on an interface.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{ETH_P_IP, ETH_P_IPV6};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
};

use crate::place::Place;

/// Room for what is captured and not yet looked at, in bytes.
const ROOM: usize = 64 << 20;
/// The largest IP packet, in bytes.
const LARGEST: usize = 65_535;

/// IP protocol 1, ICMP.
pub const ICMP: u8 = 1;
/// IP protocol 4, an IPv4 packet within an IPv4 packet (RFC 2003).
pub const IPIP: u8 = 4;

/// IP protocol 17, UDP.
pub const UDP: u8 = 17;
/// IP protocol 58, ICMPv6.
pub const ICMPV6: u8 = 58;

/// The UDP port of VXLAN (RFC 7348), as Calico has it.
pub const VXLAN_PORT: u16 = 4789;
/// The headers of UDP and VXLAN, and of the Ethernet frame in it, in bytes.
const VXLAN_HEADERS: usize = 8 + 8 + 14;

/// What an IP packet says of itself in its header (RFC 791, 3.1; RFC 8200, 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Header {
    /// From where.
    pub source: IpAddr,
    /// To where.
    pub destination: IpAddr,
    /// What is in it, [`ICMP`], [`IPIP`] or another of IANA's numbers; of IPv6 what follows
    /// its header.
    pub protocol: u8,
}

/// An IP packet as it was on the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its header.
    pub outer: Header,
    /// The header of the packet that it carries, if it is of [`IPIP`] or of VXLAN.
    pub inner: Option<Header>,
    /// The port that it is from, if it is of [`UDP`].
    pub source_port: Option<u16>,
    /// Its length with the header, in bytes. TCP's can be longer than the
    /// link's MTU: a veth need not cut them.
    pub length: usize,
    /// Whether it is a fragment, of IPv4.
    pub is_fragment: bool,
}

impl Header {
    /// A header.
    pub fn new(source: impl Into<IpAddr>, destination: impl Into<IpAddr>, protocol: u8) -> Self {
        Self { source: source.into(), destination: destination.into(), protocol }
    }
}

impl Packet {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (outer, content) = header(bytes)?;
        let inner = match outer.protocol {
            IPIP => header(content),
            UDP if content.get(2..4) == Some(&VXLAN_PORT.to_be_bytes()) => {
                content.get(VXLAN_HEADERS..).and_then(header)
            }
            _ => None,
        };
        let port = content.first_chunk().map(|port| u16::from_be_bytes(*port));
        let flags_and_offset = u16::from_be_bytes([bytes[6], bytes[7]]);
        Some(Self {
            outer,
            inner: inner.map(|(inner, _)| inner),
            source_port: port.filter(|_| outer.protocol == UDP),
            length: bytes.len(),
            // All but "reserved" and "don't fragment".
            is_fragment: outer.source.is_ipv4() && flags_and_offset & 0x3fff != 0,
        })
    }

    /// The header of the packet that somebody sent first, before any tunnel.
    pub fn original(&self) -> Header {
        self.inner.unwrap_or(self.outer)
    }
}

/// Takes a header off an IP packet.
fn header(bytes: &[u8]) -> Option<(Header, &[u8])> {
    if bytes.first()? >> 4 == 6 {
        let (header, content) = bytes.split_at_checked(40)?;
        let address = |at| <[u8; 16]>::try_from(&header[at..at + 16]).ok().map(IpAddr::from);
        let header = Header { source: address(8)?, destination: address(24)?, protocol: header[6] };
        return Some((header, content));
    }
    let length = usize::from(bytes.first()? & 0x0f) * 4;
    let (header, content) = bytes.split_at_checked(length.max(20))?;
    let address = |at: usize| <[u8; 4]>::try_from(&header[at..at + 4]).ok().map(IpAddr::from);
    let header = Header { source: address(12)?, destination: address(16)?, protocol: header[9] };
    Some((header, content))
}

/// Captures the IP packets that an interface sends and receives, from
/// [`Capture::start`] until it is dropped.
///
/// The kernel puts a packet here before it hands it on: when an answer has
/// come, its request has been captured. So there is nothing to wait for.
pub struct Capture {
    socket: OwnedFd,
    interface: usize,
}

impl Capture {
    /// Begins to capture on this interface of a node or container.
    pub fn start(place: &impl Place, interface: &str) -> Self {
        place.enter(|| {
            let index = if_nametoindex(interface)
                .unwrap_or_else(|error| panic!("{}: {interface}: {error}", place.name()));
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            // Only "all protocols" is shown what leaves, too.
            let protocol = SockProtocol::EthAll;
            let socket = socket(AddressFamily::Packet, SockType::Datagram, flags, protocol)
                .expect("opening a packet socket");
            setsockopt(&socket, RcvBufForce, &ROOM).expect("making room for packets");
            Self { socket, interface: index as usize }
        })
    }

    /// The packets since the start or since the last call of this, in order.
    pub fn packets(&self) -> Vec<Packet> {
        let mut buffer = vec![0; LARGEST];
        let mut packets = Vec::new();
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                Ok((length, from)) => {
                    let from = from.expect("a packet socket says where it saw a packet");
                    if from.ifindex() == self.interface && is_ip(&from) {
                        packets.extend(Packet::parse(&buffer[..length]));
                    }
                }
                Err(Errno::EAGAIN) => return packets,
                // A note that the interface went down or away.
                Err(Errno::ENETDOWN) => {}
                Err(error) => panic!("reading a packet socket: {error}"),
            }
        }
    }

    /// The headers with which packets from `source` to `destination` were on
    /// the link, since the start or since the last look: their own, or those of
    /// a tunnel that carried them.
    pub fn headers_of(
        &self,
        source: impl Into<IpAddr>,
        destination: impl Into<IpAddr>,
    ) -> BTreeSet<Header> {
        let (source, destination) = (source.into(), destination.into());
        let wanted = |packet: &Packet| {
            let original = packet.original();
            (original.source, original.destination) == (source, destination)
        };
        self.packets().into_iter().filter(wanted).map(|packet| packet.outer).collect()
    }
}

/// Whether a packet is an IP packet by what carried it.
fn is_ip(from: &LinkAddr) -> bool {
    [ETH_P_IP, ETH_P_IPV6].contains(&i32::from(u16::from_be(from.protocol())))
}
