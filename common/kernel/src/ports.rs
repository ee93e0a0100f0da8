//! Published ports: what is in the table for them, and who else listens on the node.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, setsockopt, socket, sockopt,
};
use std::os::fd::{AsRawFd, OwnedFd};
use weir_common::network::{
    AttachmentIdentity, PortChange, PortProtocol, PortTable, PortUse, PublishedPort, Side, Sysctl,
};

use crate::error::Error;
use crate::nfnetlink::{FAMILY_HEADER, attributes, find};
use crate::{Kernel, nft};

/// Numbers of `linux/netfilter/nf_tables.h`, and the type of a comment in what libnftnl keeps
/// with an element (`libnftnl/udata.h`).
mod abi {
    pub(super) const ELEMENTS: u16 = 3;
    pub(super) const KEY: u16 = 1;
    pub(super) const DATA: u16 = 2;
    pub(super) const USER_DATA: u16 = 6;
    pub(super) const VALUE: u16 = 1;
    pub(super) const COMMENT: u8 = 0;
}

/// The host's address, the protocol and the host's port.
type Key = (IpAddr, PortProtocol, u16);

impl Kernel {
    /// What the node publishes.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn published_ports(&self) -> Result<Vec<PublishedPort>, Error> {
        let mut published = Vec::new();
        for is_ipv4 in [true, false] {
            let [addresses, ports] = PortTable::maps(is_ipv4);
            let ports: BTreeMap<Key, (Vec<u8>, String)> = elements(&ports)?;
            for (key, (address, endpoint)) in elements(&addresses)? {
                let (host, protocol, host_port) = key;
                let port = ports.get(&key).and_then(|(port, _)| port.get(..2)?.try_into().ok());
                let Some((container, port)) = read_address(&address, is_ipv4).zip(port) else {
                    continue;
                };
                let container_port = u16::from_be_bytes(port);
                published.push(PublishedPort {
                    host,
                    protocol,
                    host_port,
                    container,
                    container_port,
                    endpoint,
                });
            }
        }
        Ok(published)
    }

    /// Carries out a change of what the node publishes, which is `published`, for the container
    /// of `identity`. The table is there as long as something is in it, and whole.
    ///
    /// # Errors
    /// The program nft is missing or refuses, as where another call has published the same port
    /// meanwhile; a parameter of the host's end cannot be set. Nothing is changed then.
    pub async fn change_ports(
        &self,
        identity: &AttachmentIdentity,
        change: &PortChange,
        published: &[PublishedPort],
    ) -> Result<(), Error> {
        let left: Vec<_> = change.left(published).into_iter().chain(&change.add).collect();
        let is_own = |port: &&&PublishedPort| port.endpoint == identity.container_id();
        let is_reached = left.iter().filter(is_own).any(|port| by_loopback(port.host));
        let parameter = |are_let_in| local_networks(&identity.host_interface(), are_let_in);
        // They are let in only while the table is there, which drops all but answers.
        if !is_reached || published.is_empty() {
            self.set_sysctl(&parameter(false))?;
        }
        if left.is_empty() {
            nft::remove::<PortTable>().await?;
        } else {
            nft::ensure(Some(&PortTable)).await?;
            if !change.is_empty() {
                let action = "nft add element inet weir-ports";
                nft::install::<PortTable>(&PortTable::change(change, published), action).await?;
            }
        }
        if is_reached {
            self.set_sysctl(&parameter(true))?;
        }
        Ok(())
    }

    /// What the node does with a port, as far as the kernel tells: nothing of SCTP.
    pub fn port_use(&self, port: &PublishedPort) -> PortUse {
        let kind = match port.protocol {
            PortProtocol::Tcp => SockType::Stream,
            PortProtocol::Udp => SockType::Datagram,
            PortProtocol::Sctp => return PortUse::Free,
        };
        match try_port(kind, SocketAddr::new(port.host, port.host_port)) {
            Err(Errno::EADDRINUSE) => PortUse::Listening,
            Err(Errno::EADDRNOTAVAIL) => PortUse::NotHere,
            _ => PortUse::Free,
        }
    }

    /// The program that listens on a port, as name and number of its process, where that can be
    /// seen.
    pub fn listener(&self, port: &PublishedPort) -> Option<String> {
        let protocol = port.protocol.name();
        let files = [
            format!("/proc/thread-self/net/{protocol}"),
            format!("/proc/thread-self/net/{protocol}6"),
        ];
        let tables = files.iter().filter_map(|file| fs::read_to_string(file).ok());
        let sockets: BTreeSet<String> =
            tables.flat_map(|table| listening(&table, port.host_port)).collect();
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let mut numbers = processes.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
        let number = numbers.find(|number| has_socket(*number, &sockets))?;
        let name = fs::read_to_string(format!("/proc/{number}/comm")).ok()?;
        Some(format!("{} (process {number})", name.trim_end()))
    }
}

/// Whether a port on this address of the node is reached from its loopback.
fn by_loopback(host: IpAddr) -> bool {
    host.is_ipv4() && (host.is_unspecified() || host.is_loopback())
}

/// Whether answers to the node's own 127.0.0.0/8 come in by a host end.
fn local_networks(host_end: &str, are_let_in: bool) -> Sysctl {
    Sysctl {
        side: Side::Host,
        key: format!("net/ipv4/conf/{host_end}/route_localnet"),
        value: u8::from(are_let_in).to_string(),
        of_veth: false,
        optional: true,
    }
}

/// The elements of a map, each with its value and its comment; none without the table.
fn elements(map: &str) -> Result<BTreeMap<Key, (Vec<u8>, String)>, Error> {
    let messages = match nft::elements(map) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => {
            let failed = |cause| Error::refused("nft list table inet weir-ports", cause);
            listed.map_err(failed)?
        }
    };
    let mut elements = BTreeMap::new();
    for body in messages {
        let body = body.get(FAMILY_HEADER..).unwrap_or_default();
        let listed = find(body, abi::ELEMENTS).unwrap_or_default();
        elements.extend(attributes(listed).filter_map(|(_, element)| read_element(element)));
    }
    Ok(elements)
}

fn read_element(element: &[u8]) -> Option<(Key, (Vec<u8>, String))> {
    let key = find(find(element, abi::KEY)?, abi::VALUE)?;
    let value = find(find(element, abi::DATA)?, abi::VALUE)?.to_vec();
    // Each part of a key takes whole words.
    let (address, rest) = key.split_at_checked(key.len().checked_sub(8)?)?;
    let host = read_address(address, address.len() == 4)?;
    let protocol = PortProtocol::of_number(*rest.first()?)?;
    let port = u16::from_be_bytes(rest.get(4..6)?.try_into().ok()?);
    let comment = comment(find(element, abi::USER_DATA).unwrap_or_default());
    Some(((host, protocol, port), (value, comment)))
}

fn read_address(bytes: &[u8], is_ipv4: bool) -> Option<IpAddr> {
    match is_ipv4 {
        true => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        false => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

/// The comment among what is kept with an element: kind, length and value of each.
fn comment(mut kept: &[u8]) -> String {
    while let [kind, length, rest @ ..] = kept {
        let (value, next) = rest.split_at_checked(usize::from(*length)).unwrap_or((rest, &[]));
        if *kind == abi::COMMENT {
            return String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
        }
        kept = next;
    }
    String::new()
}

/// Takes a port for a moment. One that a connection of the past has, not a program, is free.
fn try_port(kind: SockType, address: SocketAddr) -> Result<(), Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let probe: OwnedFd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if kind == SockType::Stream {
        setsockopt(&probe, sockopt::ReuseAddr, &true)?;
    }
    match address {
        SocketAddr::V4(address) => bind(probe.as_raw_fd(), &SockaddrIn::from(address)),
        SocketAddr::V6(address) => {
            setsockopt(&probe, sockopt::Ipv6V6Only, &true)?;
            bind(probe.as_raw_fd(), &SockaddrIn6::from(address))
        }
    }
}

/// The numbers of the sockets that listen on a port, in a table as `/proc/net/tcp` has it
/// (`proc_net_tcp(5)`).
fn listening(table: &str, port: u16) -> Vec<String> {
    // TCP_LISTEN, and TCP_CLOSE, as UDP has it of a socket without a peer.
    const STATES: [&str; 2] = ["0A", "07"];
    let suffix = format!(":{port:04X}");
    let number = |line: &str| {
        let mut fields = line.split_whitespace();
        let (local, state) = (fields.nth(1)?, fields.nth(1)?);
        let inode = fields.nth(5)?;
        (local.ends_with(&suffix) && STATES.contains(&state)).then(|| inode.to_owned())
    };
    table.lines().skip(1).filter_map(number).collect()
}

/// Whether a process has one of these sockets.
fn has_socket(process: u32, sockets: &BTreeSet<String>) -> bool {
    let Ok(files) = fs::read_dir(Path::new("/proc").join(process.to_string()).join("fd")) else {
        return false;
    };
    let targets = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    let mut names = targets.filter_map(|target| target.into_os_string().into_string().ok());
    names.any(|name| {
        let number = name.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        number.is_some_and(|number| sockets.contains(number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_sockets_names_those_that_listen_on_a_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0\n   \
                     1: 0100007F:1F90 0100007F:8000 01 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0\n   \
                     2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0\n";
        assert_eq!(listening(table, 8080), ["111"]);
        assert_eq!(listening(table, 8081), [""; 0]);
        assert_eq!(listening("", 80), [""; 0]);
    }

    #[test]
    fn a_comment_is_found_among_other_things_and_cut_short() {
        assert_eq!(comment(&[1, 2, 9, 9, 0, 3, b'e', b'p', 0]), "ep");
        assert_eq!(comment(&[0, 9, b'e']), "e");
        assert_eq!(comment(&[7]), "");
    }
}
