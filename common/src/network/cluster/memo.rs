//! What is left to the next ADD or agent about the node's part in the cluster.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::{ClusterPlan, Follower, Inventory, Seen};
use crate::datastore::Revision;

/// The form of the memo. A memo of another one is passed over.
const VERSION: u32 = 2;

/// From `weir-ipam` to `weir`: what there is in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNotice {
    /// This node's name.
    pub node: String,
    /// Up to where the inventory goes.
    pub seen: Seen,
    /// Whether the datastore has all that it should have from this node. If not,
    /// the next ADD tries again.
    pub settled: bool,
    /// Whether borrowed addresses are missing from the inventory, because there are
    /// too many blocks to look for them.
    pub without_borrowed: bool,
    /// What there is.
    pub inventory: Inventory,
}

/// Whether a node should have its tunnel device in service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TunnelNeed {
    /// No pool needs it, as far as is known.
    #[default]
    None,
    /// It should be, but has not been given an address.
    Unassigned,
    /// It should be, with this address.
    Assigned(Ipv4Addr),
}

impl TunnelNeed {
    /// What a plan comes to.
    pub fn of(plan: &ClusterPlan) -> Self {
        match &plan.tunnel {
            None => Self::None,
            Some(tunnel) => tunnel.address.map_or(Self::Unassigned, Self::Assigned),
        }
    }

    /// Reads what [`TunnelNeed`] writes as text; anything else is no need.
    pub fn read(text: &str) -> Self {
        match text {
            "unassigned" => Self::Unassigned,
            text => text.parse().map_or(Self::None, Self::Assigned),
        }
    }
}

impl fmt::Display for TunnelNeed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => formatter.pad("none"),
            Self::Unassigned => formatter.pad("unassigned"),
            Self::Assigned(address) => address.fmt(formatter),
        }
    }
}

/// What the node was made last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeMemo {
    version: u32,
    boot_id: Option<String>,
    /// Which datastore was read for it ([`Configuration::place`]): two networks of a
    /// node may have different ones, whose revisions have nothing to do with each
    /// other.
    ///
    /// [`Configuration::place`]: crate::datastore::Configuration::place
    pub datastore: String,
    /// Up to where it was read.
    pub revision: Revision,
    /// The same, to ask whether anything changed since; none when not everything
    /// could be done, so that it is tried again.
    pub seen: Option<Seen>,
    /// The MTU in bytes for containers, where the cluster decides it.
    pub pod_mtu: Option<u32>,
    /// Whether the tunnel device should be in service.
    pub tunnel: TunnelNeed,
}

impl NodeMemo {
    /// The memo of a plan that rests on what was read of `datastore` up to
    /// `revision`.
    pub fn new(
        datastore: &str,
        revision: Revision,
        boot_id: Option<&str>,
        plan: &ClusterPlan,
    ) -> Self {
        Self {
            version: VERSION,
            boot_id: boot_id.map(str::to_owned),
            datastore: datastore.to_owned(),
            revision,
            seen: None,
            pod_mtu: None,
            tunnel: TunnelNeed::of(plan),
        }
    }

    /// Reads a memo, or its first line alone; `None` for one of another boot than
    /// `boot_id`, since a reboot clears the kernel, and for what is none.
    pub fn read(text: &str, boot_id: Option<&str>) -> Option<Self> {
        let memo: Self = serde_json::from_str(text.lines().next()?).ok()?;
        (memo.version == VERSION && memo.boot_id.as_deref() == boot_id).then_some(memo)
    }

    /// As [`NodeMemo::read`], with what was known of the cluster.
    pub fn read_whole(text: &str, boot_id: Option<&str>) -> Option<(Self, Follower)> {
        let memo = Self::read(text, boot_id)?;
        Some((memo, serde_json::from_str(text.lines().nth(1)?).ok()?))
    }

    /// The text of a memo: the short part on the first line, for most ADDs need no
    /// more, and what is known of the cluster on the second.
    pub fn text(&self, follower: &Follower) -> String {
        // Plain data; what cannot be written reads back as no memo.
        let line = |json: Result<String, _>| json.unwrap_or_default() + "\n";
        line(serde_json::to_string(self)) + &line(serde_json::to_string(follower))
    }

    /// Whether another ADD has made the node newer meanwhile than a listing of
    /// revision `listed` would, when the memo was of revision `before` before that
    /// was read. A listing below `before` is of a datastore that was restored, and
    /// not overtaken.
    pub fn overtakes(&self, before: Revision, listed: Revision) -> bool {
        let is_newer = self.revision > listed && listed >= before;
        // Of ADDs that began together one does the work of all.
        let is_same = self.revision == listed && listed > before && self.seen.is_some();
        is_newer || is_same
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Underlay, plan_cluster};

    fn memo(revision: i64) -> NodeMemo {
        let plan = plan_cluster("n1", &Inventory::default(), &Underlay::default());
        NodeMemo {
            seen: Some(Seen::default()),
            ..NodeMemo::new("here", Revision(revision), Some("boot"), &plan)
        }
    }

    #[test]
    fn it_is_read_back_under_the_same_boot_alone() {
        let memo = NodeMemo { tunnel: TunnelNeed::Unassigned, pod_mtu: Some(1480), ..memo(7) };
        let mut follower = Follower::default();
        let seen = Seen { revision: Revision(7), ..Seen::default() };
        follower.relist(Inventory::default(), &seen);
        let text = memo.text(&follower);
        assert_eq!(NodeMemo::read(&text, Some("boot")), Some(memo.clone()));
        let (again, known) = NodeMemo::read_whole(&text, Some("boot")).unwrap();
        assert_eq!((again, known.revision()), (memo, Revision(7)));
        for boot in [Some("other"), None] {
            assert_eq!(NodeMemo::read(&text, boot), None);
        }
        let version = |number: u32| format!("\"version\":{number}");
        let newer = text.replace(&version(VERSION), &version(VERSION + 1));
        assert_eq!(NodeMemo::read(&newer, Some("boot")), None);
        for damaged in ["", "nonsense", text.lines().next().unwrap()] {
            assert!(NodeMemo::read_whole(damaged, Some("boot")).is_none());
        }
    }

    #[test]
    fn an_older_listing_gives_way_and_a_restored_datastore_does_not() {
        // Another ADD was faster.
        assert!(memo(9).overtakes(Revision(5), Revision(8)));
        assert!(!memo(8).overtakes(Revision(5), Revision(9)));
        assert!(!memo(8).overtakes(Revision(8), Revision(8)));
        // Another one has done the same.
        assert!(memo(8).overtakes(Revision(5), Revision(8)));
        let unfinished = NodeMemo { seen: None, ..memo(8) };
        assert!(!unfinished.overtakes(Revision(5), Revision(8)));
        // The datastore went back to 3.
        assert!(!memo(9).overtakes(Revision(9), Revision(3)));
    }

    #[test]
    fn the_need_is_read_back() {
        let assigned = TunnelNeed::Assigned(Ipv4Addr::new(10, 0, 0, 1));
        for need in [TunnelNeed::None, TunnelNeed::Unassigned, assigned] {
            assert_eq!(TunnelNeed::read(need.to_string().trim()), need);
            assert_eq!(format!("{need:<15}").len(), 15);
        }
        assert_eq!(TunnelNeed::read(""), TunnelNeed::None);
    }
}
