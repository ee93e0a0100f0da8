//! What keeps containers that are attached from their network.

use std::fmt;
use std::net::IpAddr;

use super::{AttachmentIdentity, NodeState};

/// An attachment as the node's kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachmentState {
    /// Which it is.
    pub identity: AttachmentIdentity,
    /// Whether the host's end is up.
    pub up: bool,
    /// Whether the container's end is up: without, nothing is expected to pass.
    /// An ADD gives the container's end its routes right after.
    pub carrier: bool,
    /// The addresses that the node routes to it.
    pub addresses: Vec<IpAddr>,
}

/// Something that keeps containers from their network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The node does not forward what comes from and goes to them.
    NotForwarding {
        /// The kernel's parameter.
        parameter: &'static str,
    },
    /// The host's end of a veth is down.
    LinkDown(AttachmentIdentity),
    /// No route leads to the container.
    RouteMissing(AttachmentIdentity),
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotForwarding { parameter } => write!(
                formatter,
                "containers are attached but the node does not forward; run: sysctl -w \
                 {parameter}=1, and look for what switched it off"
            ),
            Self::LinkDown(identity) => {
                let (link, container) = (identity.host_interface(), identity.container_id());
                write!(
                    formatter,
                    "link {link} of container {container} is down; delete and add the container \
                     again"
                )
            }
            Self::RouteMissing(identity) => {
                let (link, container) = (identity.host_interface(), identity.container_id());
                write!(
                    formatter,
                    "no route leads to container {container} by link {link}; delete and add the \
                     container again"
                )
            }
        }
    }
}

/// What keeps these attachments from their network, on a node in this state.
pub fn troubles(attachments: &[AttachmentState], node: &NodeState) -> Vec<Trouble> {
    let has = |is_v4: bool| {
        let mut addresses = attachments.iter().flat_map(|attachment| &attachment.addresses);
        addresses.any(|address| address.is_ipv4() == is_v4)
    };
    let mut troubles = Vec::new();
    if has(true) && !node.ipv4_forwarding {
        troubles.push(Trouble::NotForwarding { parameter: "net.ipv4.ip_forward" });
    }
    if has(false) && !node.ipv6_forwarding {
        troubles.push(Trouble::NotForwarding { parameter: "net.ipv6.conf.all.forwarding" });
    }
    troubles.extend(attachments.iter().filter_map(|attachment| {
        let identity = || attachment.identity.clone();
        if !attachment.up {
            Some(Trouble::LinkDown(identity()))
        } else if attachment.carrier && attachment.addresses.is_empty() {
            Some(Trouble::RouteMissing(identity()))
        } else {
            None
        }
    }));
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(addresses: &[&str]) -> AttachmentState {
        AttachmentState {
            identity: AttachmentIdentity::new("pods", "c1", "eth0").unwrap(),
            up: true,
            carrier: true,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        }
    }

    fn texts(attachment: AttachmentState, node: &NodeState) -> String {
        let troubles = troubles(&[attachment], node);
        troubles.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn each_trouble_is_told_apart() {
        let forwarding =
            NodeState { ipv4_forwarding: true, ipv6_forwarding: true, ..NodeState::default() };
        let whole = attachment(&["10.0.0.1", "fd00::1"]);
        assert_eq!(texts(whole.clone(), &forwarding), "");
        assert_eq!(troubles(&[], &NodeState::default()), []);
        let off = texts(whole.clone(), &NodeState::default());
        assert!(
            off.contains("net.ipv4.ip_forward") && off.contains("net.ipv6.conf.all.forwarding")
        );
        let four = texts(attachment(&["10.0.0.1"]), &NodeState::default());
        assert!(!four.contains("ipv6"), "{four}");
        let down = texts(AttachmentState { up: false, ..whole.clone() }, &forwarding);
        assert!(down.contains("is down") && down.contains("c1"), "{down}");
        let lost = texts(attachment(&[]), &forwarding);
        assert!(lost.contains("no route") && lost.contains("weir"), "{lost}");
        // An ADD that waits for its addresses, or a container that was switched off.
        let waiting = AttachmentState { carrier: false, ..attachment(&[]) };
        assert_eq!(texts(waiting, &forwarding), "");
    }
}
