//! What can go wrong between Weir and the kernel.

use std::io;
use std::path::PathBuf;

use weir_common::network::Side;
use weir_common::tunnel::TunnelKind;

/// A failed request to the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container's namespace is not there.
    #[error(
        "the network namespace {} is not there; check CNI_NETNS, or whether the container has \
         ended",
        path.display()
    )]
    NamespaceMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The path leads to something else.
    #[error(
        "{} is not a network namespace; CNI_NETNS must name one, such as /run/netns/NAME or \
         /proc/PID/ns/net",
        path.display()
    )]
    NotANamespace {
        /// The path.
        path: PathBuf,
    },
    /// The namespace cannot be opened or entered.
    #[error("the network namespace {} cannot be entered: {cause}", path.display())]
    Namespace {
        /// Where it is.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// Something was to be done in the container, but no container was opened.
    #[error("no container namespace is open")]
    NoContainer,
    /// Weir may not do it.
    #[error(
        "{action}: not permitted; run as root, with CAP_NET_ADMIN and CAP_SYS_ADMIN, and with \
         /proc/sys writable"
    )]
    Denied {
        /// What was to be done, in terms of `ip`.
        action: String,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// The container already has an interface of the wanted name.
    #[error(
        "interface {interface} already exists in the container and was left as it is; delete it, \
         or ask for another name by CNI_IFNAME"
    )]
    InterfaceExists {
        /// Its name.
        interface: String,
    },
    /// A link that is not Weir's, or another attachment's, has the name that
    /// Weir needs.
    #[error(
        "link {link} on the node ({kind}, alias {alias:?}) is not this attachment's and was left \
         as it is; look at it with \"ip -details link show {link}\" and delete or rename it"
    )]
    ForeignLink {
        /// Its name.
        link: String,
        /// Its kind, as `ip -details link` shows it.
        kind: String,
        /// Its alias; empty if it has none.
        alias: String,
    },
    /// A link is not there.
    #[error("link {link} is not there {side}")]
    LinkMissing {
        /// Where it should be.
        side: Side,
        /// Its name.
        link: String,
    },
    /// The kernel has no tunnels of a kind, and could not load what it needs for them.
    #[error(
        "the kernel has no {kind}, which a pool asks for ({field}); load it with \"modprobe \
         {module}\" (the module comes with the distribution's kernel package, but kernels for \
         clouds and containers may lack it), or set {field} to Never on every pool",
        field = kind.row().mode_field, module = kind.row().module
    )]
    NoTunnels {
        /// The kind.
        kind: TunnelKind,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// Something else has a tunnel device's name.
    #[error(
        "link {link} is {kind}, and not {wanted} as its name says, and was left as it is; look at \
         it with \"ip -details link show {link}\" and delete or rename it"
    )]
    NotATunnel {
        /// The name.
        link: String,
        /// The link's kind, as `ip -details link` shows it.
        kind: String,
        /// The kind that it should be of.
        wanted: &'static str,
    },
    /// Another device of VXLAN has the network identifier and the port.
    #[error(
        "{} has the VXLAN network identifier {vni} on UDP port {port}, so {device} cannot be \
         made; set vxlanVNI or vxlanPort in the spec of the FelixConfiguration \"default\" to \
         another number, the same for all nodes, or delete the other device if nothing uses it",
        named(other.as_deref(), "a device that was moved into another network namespace")
    )]
    VniTaken {
        /// The device that was to be made.
        device: &'static str,
        /// The one that has them; `None` if it is not in the node's network namespace.
        other: Option<String>,
        /// The network identifier.
        vni: u32,
        /// The UDP port.
        port: u16,
    },
    /// Something else has the UDP port of VXLAN.
    #[error(
        "{} has UDP port {port}, so {device} cannot be brought up; see \"ss -lunp sport = \
         {port}\", and end what has it, or set vxlanPort in the spec of the FelixConfiguration \
         \"default\" to another number, the same for all nodes",
        named(other.as_deref(), "another program")
    )]
    PortTaken {
        /// The device that was to be brought up.
        device: &'static str,
        /// The device of VXLAN that has the port; `None` if none is known to have it.
        other: Option<String>,
        /// The UDP port.
        port: u16,
    },
    /// There is another route to the same destination.
    #[error(
        "{action}: there is already a route to {destination}, by {owner}; if nothing uses it, \
         delete it with \"ip route delete {destination}\""
    )]
    RouteExists {
        /// What was to be done, in terms of `ip`.
        action: String,
        /// Where the route leads.
        destination: String,
        /// The link that it goes by, or its type.
        owner: String,
    },
    /// A kernel parameter cannot be read or written.
    #[error("{action}: /proc/sys/{key}: {cause}{hint}")]
    Sysctl {
        /// What was to be done.
        action: String,
        /// The parameter's path below `/proc/sys`.
        key: String,
        /// What the kernel said.
        #[source]
        cause: io::Error,
        /// What to do, where that is known.
        hint: &'static str,
    },
    /// The program that installs tables of nftables is missing.
    #[error(
        "{reason}, but the program nft was not found; install the package nftables, or {alternative}"
    )]
    NftMissing {
        /// What a table is needed for.
        reason: &'static str,
        /// How to do without it.
        alternative: &'static str,
    },
    /// The program that installs tables of nftables failed.
    #[error("{action} failed: {output}")]
    Nft {
        /// What was to be done.
        action: String,
        /// What nft said, or why it could not be run.
        output: String,
    },
    /// The program that installs tables of nftables does not come to an end.
    #[error(
        "{action}: the program nft took longer than {} s and was ended; see what holds it \
         (another program with large rule sets?) and try again", limit.as_secs()
    )]
    NftTooSlow {
        /// What was to be done.
        action: String,
        /// How long it was waited for.
        limit: std::time::Duration,
    },
    /// The kernel refused for another reason.
    #[error("{action}: {cause}")]
    Refused {
        /// What was to be done, in terms of `ip`.
        action: String,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
}

fn named(link: Option<&str>, unknown: &str) -> String {
    link.map_or_else(|| unknown.to_owned(), |link| format!("link {link}"))
}

impl Error {
    /// The error for `action`, which the kernel answered with `cause`.
    pub(crate) fn refused(action: impl ToString, cause: io::Error) -> Self {
        let action = action.to_string();
        match cause.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied { action, cause },
            _ => Self::Refused { action, cause },
        }
    }
}
