//! What BIRD says of itself and of its sessions.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::reply::{Reply, ReplyLine};

/// How the daemon is (`show status`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonStatus {
    /// Its version, as `2.0.12`.
    pub version: String,
    /// Its router id.
    pub router_id: String,
    /// When it started, in the node's local time.
    pub last_boot: String,
    /// When it last took a configuration.
    pub last_configured: String,
    /// Whether it still waits for peers after a restart.
    pub is_recovering: bool,
}

impl DaemonStatus {
    /// Reads the reply to `show status`.
    pub fn of(reply: &Reply) -> Self {
        let after = |prefix: &str| {
            let mut lines = reply.lines.iter();
            let text = lines.find_map(|line| line.text.strip_prefix(prefix));
            text.unwrap_or_default().trim().to_owned()
        };
        Self {
            version: after("BIRD "),
            router_id: after("Router ID is "),
            last_boot: after("Last reboot on "),
            last_configured: after("Last reconfiguration on "),
            is_recovering: reply.with_code(24).next().is_some(),
        }
    }
}

/// The state of a protocol, as BIRD has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolState {
    /// It works.
    Up,
    /// It begins; a session that is not Established.
    Start,
    /// It is ending.
    Stop,
    /// It does nothing.
    Down,
}

impl ProtocolState {
    /// BIRD's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Down => "down",
        }
    }

    fn of(word: &str) -> Option<Self> {
        match word {
            "up" => Some(Self::Up),
            "start" => Some(Self::Start),
            "stop" | "flush" => Some(Self::Stop),
            "down" => Some(Self::Down),
            _ => None,
        }
    }
}

/// The state of a session (RFC 4271, 8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BgpState {
    /// It does not try.
    Idle,
    /// It connects.
    Connect,
    /// It waits to be connected to, or before it connects again.
    Active,
    /// It is connected, and has said who it is.
    OpenSent,
    /// The peer has, too.
    OpenConfirm,
    /// It is up.
    Established,
    /// It is ending.
    Close,
}

impl BgpState {
    /// The word of the RFC and of CalicoNodeStatus.
    pub fn word(self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Connect => "Connect",
            Self::Active => "Active",
            Self::OpenSent => "OpenSent",
            Self::OpenConfirm => "OpenConfirm",
            Self::Established => "Established",
            Self::Close => "Close",
        }
    }

    fn of(word: &str) -> Option<Self> {
        match word {
            "Idle" | "Down" => Some(Self::Idle),
            "Connect" => Some(Self::Connect),
            "Active" => Some(Self::Active),
            "OpenSent" => Some(Self::OpenSent),
            "OpenConfirm" => Some(Self::OpenConfirm),
            "Established" => Some(Self::Established),
            "Close" => Some(Self::Close),
            _ => None,
        }
    }
}

/// How a protocol is (`show protocols all`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolStatus {
    /// Its name.
    pub name: String,
    /// What it is, as `BGP`, `Kernel`.
    pub kind: String,
    /// Its state.
    pub state: ProtocolState,
    /// Since when, in the node's local time.
    pub since: String,
    /// BIRD's summary: a session's state, and its last error.
    pub info: String,
    /// The state of a session.
    pub bgp_state: Option<BgpState>,
    /// The peer's address.
    pub neighbour: Option<IpAddr>,
    /// The peer's AS number.
    pub neighbour_as: Option<u32>,
    /// What went wrong last, as `Received: Bad peer AS`.
    pub last_error: Option<String>,
    /// Its routes by family: `ipv4` or `ipv6`.
    pub channels: BTreeMap<String, ChannelStatus>,
}

/// How many routes a session has in one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelStatus {
    /// Taken from the peer.
    pub imported: u64,
    /// Told to it.
    pub exported: u64,
    /// Taken from it, and the best that there are.
    pub preferred: u64,
}

/// Reads the reply to `show protocols all`. What is not understood is passed over: another
/// version may say more.
pub fn protocols(reply: &Reply) -> Vec<ProtocolStatus> {
    let mut protocols: Vec<ProtocolStatus> = Vec::new();
    let mut channel = None;
    for ReplyLine { code, text } in &reply.lines {
        match code {
            1002 => {
                protocols.extend(row(text));
                channel = None;
            }
            1006 => {
                let Some(protocol) = protocols.last_mut() else { continue };
                detail(protocol, &mut channel, text.trim());
            }
            _ => {}
        }
    }
    protocols
}

/// A row of the table: name, protocol, table, state, since (date and time), info.
fn row(text: &str) -> Option<ProtocolStatus> {
    let mut words = text.split_whitespace();
    let (name, kind, _table) = (words.next()?, words.next()?, words.next()?);
    let state = ProtocolState::of(words.next()?)?;
    let (date, time) = (words.next()?, words.next()?);
    Some(ProtocolStatus {
        name: name.to_owned(),
        kind: kind.to_owned(),
        state,
        since: format!("{date} {time}"),
        info: words.collect::<Vec<_>>().join(" "),
        bgp_state: None,
        neighbour: None,
        neighbour_as: None,
        last_error: None,
        channels: BTreeMap::new(),
    })
}

fn detail(protocol: &mut ProtocolStatus, channel: &mut Option<String>, text: &str) {
    if let Some(name) = text.strip_prefix("Channel ") {
        protocol.channels.insert(name.to_owned(), ChannelStatus::default());
        *channel = Some(name.to_owned());
        return;
    }
    let Some((key, value)) = text.split_once(':') else { return };
    let value = value.trim();
    match key {
        "BGP state" => protocol.bgp_state = BgpState::of(value),
        // Behind a `%` is the interface.
        "Neighbor address" => {
            protocol.neighbour = value.split('%').next().and_then(|it| it.parse().ok())
        }
        "Neighbor AS" => protocol.neighbour_as = value.parse().ok(),
        "Last error" => protocol.last_error = Some(value.to_owned()),
        "Routes" => {
            let channel = channel.as_ref().and_then(|name| protocol.channels.get_mut(name));
            if let Some(channel) = channel {
                *channel = counts(value);
            }
        }
        _ => {}
    }
}

/// `2 imported, 0 exported, 1 preferred`.
fn counts(text: &str) -> ChannelStatus {
    let mut counts = ChannelStatus::default();
    for part in text.split(',') {
        let Some((count, word)) = part.trim().split_once(' ') else { continue };
        let Ok(count) = count.parse() else { continue };
        match word {
            "imported" => counts.imported = count,
            "exported" => counts.exported = count,
            "preferred" => counts.preferred = count,
            _ => {}
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::super::reply::ReplyParser;
    use super::*;

    fn reply(text: &str) -> Reply {
        let mut parser = ReplyParser::default();
        for line in text.lines() {
            parser.push(line).unwrap();
        }
        parser.finish()
    }

    #[test]
    fn a_status_is_read() {
        let text = "1000-BIRD 2.0.12\n1011-Router ID is 10.0.1.11\n Hostname is n1\n \
                    Current server time is 2026-11-28 23:04:10.543\n \
                    Last reboot on 2026-11-28 23:04:03.538\n \
                    Last reconfiguration on 2026-11-28 23:04:05.538\n\
                    0024-Graceful restart recovery in progress\n   Waiting for 1 channels to \
                    recover\n0013 Daemon is up and running";
        let status = DaemonStatus::of(&reply(text));
        assert_eq!(status.version, "2.0.12");
        assert_eq!(status.router_id, "10.0.1.11");
        assert_eq!(status.last_boot, "2026-11-28 23:04:03.538");
        assert_eq!(status.last_configured, "2026-11-28 23:04:05.538");
        assert!(status.is_recovering);
    }

    #[test]
    fn sessions_are_read_with_their_counts_and_errors() {
        let text = "2002-Name       Proto      Table      State  Since         Info\n\
            1002-device1    Device     ---        up     2026-11-28 23:04:03  \n\
            1006-\n\
            1002-Mesh_10_0_1_12 BGP        ---        up     2026-11-28 23:04:07  Established   \n\
            1006-  BGP state:          Established\n\
            \x20    Neighbor address: 10.0.1.12\n\
            \x20    Neighbor AS:      64512\n\
            \x20  Channel ipv4\n\
            \x20    State:          UP\n\
            \x20    Routes:         2 imported, 3 filtered, 7 exported, 1 preferred\n\
            1002-Node_fd00__9 BGP        ---        start  2026-11-28 23:04:03  Active        \
            Received: Bad peer AS\n\
            1006-  BGP state:          Active\n\
            \x20    Neighbor address: fd00::9\n\
            \x20    Neighbor AS:      4200000000\n\
            \x20    Last error:       Received: Bad peer AS\n\
            \x20  Channel ipv6\n\
            \x20    State:          DOWN\n\
            0000 ";
        let all = protocols(&reply(text));
        let names: Vec<&str> = all.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["device1", "Mesh_10_0_1_12", "Node_fd00__9"]);
        let (mesh, node) = (&all[1], &all[2]);
        assert_eq!((mesh.state, mesh.since.as_str()), (ProtocolState::Up, "2026-11-28 23:04:07"));
        assert_eq!(mesh.bgp_state, Some(BgpState::Established));
        assert_eq!(mesh.neighbour, Some("10.0.1.12".parse().unwrap()));
        let counts = ChannelStatus { imported: 2, exported: 7, preferred: 1 };
        assert_eq!(mesh.channels["ipv4"], counts);
        assert_eq!(node.info, "Active Received: Bad peer AS");
        assert_eq!(node.last_error.as_deref(), Some("Received: Bad peer AS"));
        assert_eq!(
            (node.bgp_state, node.neighbour_as),
            (Some(BgpState::Active), Some(4_200_000_000))
        );
        assert_eq!(node.channels["ipv6"], ChannelStatus::default());
    }
}
