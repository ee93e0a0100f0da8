//! What the kernel tells of parameters of links (`linux/netconf.h`).

use crate::nfnetlink::{FAMILY_HEADER, attributes, split_message};

/// Numbers of messages (`linux/rtnetlink.h`) and attributes (`linux/netconf.h`).
const NEW_NETCONF: u16 = 80;
const IFINDEX: u16 = 1;
const FORWARDING: u16 = 2;
const RP_FILTER: u16 = 3;
const PROXY_NEIGH: u16 = 5;
/// The place of a link's number where the parameters of all links are meant.
const ALL_LINKS: i32 = -1;

/// A parameter that containers need has got a value other than theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drift {
    /// Of the node.
    Node,
    /// Of the link of this number.
    Link(u32),
}

/// Whether a message is about parameters.
pub(crate) fn is_netconf(kind: u16) -> bool {
    kind == NEW_NETCONF || kind == NEW_NETCONF + 1
}

/// What the first message of `bytes` tells, if it tells of a parameter that has changed by
/// itself. A new link's are told all together, and its ADD sets them.
pub(crate) fn drift(bytes: &[u8]) -> Option<Drift> {
    let (kind, _, body, _) = split_message(bytes)?;
    let body = body.get(FAMILY_HEADER..).filter(|_| kind == NEW_NETCONF)?;
    let (mut link, mut changed) = (None, Vec::new());
    for (kind, value) in attributes(body) {
        let value = i32::from_ne_bytes(value.try_into().ok()?);
        match kind {
            IFINDEX => link = Some(value),
            kind => changed.push((kind, value)),
        }
    }
    let is_lost = match changed[..] {
        [(FORWARDING | PROXY_NEIGH, value)] => value == 0,
        // Which one is right depends on what the container may send.
        [(RP_FILTER, value)] => value != 1,
        _ => false,
    };
    match link.filter(|_| is_lost)? {
        ALL_LINKS => Some(Drift::Node),
        link => u32::try_from(link).ok().map(Drift::Link),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: &[(u16, i32)]) -> Vec<u8> {
        let mut body = vec![2, 0, 0, 0];
        for (kind, value) in attributes {
            body.extend(8u16.to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value.to_ne_bytes());
        }
        let mut message = (16 + body.len() as u32).to_ne_bytes().to_vec();
        message.extend(NEW_NETCONF.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }

    #[test]
    fn a_parameter_that_changes_by_itself_is_drift_and_a_new_link_is_not() {
        let told = |attributes: &[(u16, i32)]| drift(&message(attributes));
        assert_eq!(told(&[(IFINDEX, 7), (PROXY_NEIGH, 0)]), Some(Drift::Link(7)));
        assert_eq!(told(&[(IFINDEX, 7), (FORWARDING, 0)]), Some(Drift::Link(7)));
        assert_eq!(told(&[(IFINDEX, 7), (RP_FILTER, 2)]), Some(Drift::Link(7)));
        assert_eq!(told(&[(IFINDEX, -1), (FORWARDING, 0)]), Some(Drift::Node));
        assert_eq!(told(&[(IFINDEX, -2), (FORWARDING, 0)]), None, "the template of new links");
        assert_eq!(told(&[(IFINDEX, 7), (PROXY_NEIGH, 1)]), None);
        assert_eq!(told(&[(IFINDEX, 7), (FORWARDING, 0), (RP_FILTER, 0), (PROXY_NEIGH, 0)]), None);
        assert_eq!(drift(&message(&[])[..18]), None);
    }
}
