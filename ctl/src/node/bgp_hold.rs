//! How long BGP goes on after nothing asks for it any more. Times are given.
//!
//! A peering that is removed and written again, or a node that is relabelled in two steps, would
//! otherwise take the daemon down between the two, and the node's ranges from all its peers.

use std::time::Duration;

use tokio::time::Instant;
use weir_common::network::{BgpNeed, BgpPlan, Origin};

/// How long.
const HOLD: Duration = Duration::from_secs(60);

/// What of BGP is switched off on purpose: that ends at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwitchedOff {
    /// Nothing.
    Nothing,
    /// The mesh of all nodes.
    Mesh,
    /// All of it on this node.
    Everything,
}

impl SwitchedOff {
    /// Whether a need ends with it.
    fn ends(self, need: &BgpNeed) -> bool {
        match self {
            Self::Nothing => false,
            Self::Mesh => !matches!(need, BgpNeed::Peer(_)),
            Self::Everything => true,
        }
    }
}

/// The latest plan that asked for BGP, for as long as it counts.
#[derive(Debug, Default)]
pub struct BgpHold {
    latest: Option<(BgpNeed, BgpPlan)>,
    /// Since when nothing asks for BGP.
    since: Option<Instant>,
}

impl BgpHold {
    /// Why BGP counts as needed at this time if nothing asks for it (any more).
    pub fn need(&self, off: SwitchedOff, now: Instant) -> Option<&BgpNeed> {
        let is_over = self.due().is_some_and(|due| due <= now);
        let latest = self.latest.as_ref().filter(|_| !is_over);
        latest.map(|(need, _)| need).filter(|need| !off.ends(need))
    }

    /// The plan to follow: this one, or while BGP is held its rest with the sessions of the latest
    /// that asked for BGP. Pools and what is announced of them are always this one's.
    pub fn hold(&mut self, plan: BgpPlan, off: SwitchedOff, now: Instant) -> BgpPlan {
        if let Some(need) = &plan.need {
            (self.latest, self.since) = (Some((need.clone(), plan.clone())), None);
            return plan;
        }
        self.since = self.since.or_else(|| self.latest.is_some().then_some(now));
        let held = self.need(off, now).cloned();
        let Some((need, (_, latest))) = held.zip(self.latest.as_ref()) else {
            *self = Self::default();
            return plan;
        };
        let mut sessions = latest.sessions.clone();
        sessions.retain(|_, it| off == SwitchedOff::Nothing || it.origin != Origin::Mesh);
        let mut filters = latest.filters.clone();
        filters.extend(plan.filters);
        let static_routes = latest.static_routes.clone();
        BgpPlan { need: Some(need), sessions, filters, static_routes, ..plan }
    }

    /// When BGP ends, where it is held now.
    pub fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + HOLD)
    }
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;
    use weir_common::network::{BgpSession, ClusterState, Underlay, plan_bgp};

    use super::*;

    const NOTHING: SwitchedOff = SwitchedOff::Nothing;

    /// The plan of a node that nothing asks for BGP.
    fn idle() -> BgpPlan {
        plan_bgp("n1", &ClusterState::default(), &Underlay::default())
    }

    fn needing(need: BgpNeed, origins: &[Origin]) -> BgpPlan {
        let mut plan = BgpPlan { need: Some(need), ..idle() };
        for (number, origin) in (1..).zip(origins) {
            let address = ([10, 0, 0, number].into(), 179);
            let session = BgpSession::plain(origin.clone(), address, 64512, 64512);
            plan.sessions.insert(format!("s{number}"), session);
        }
        plan
    }

    fn by_peer() -> BgpPlan {
        let origins = [Origin::Mesh, Origin::Global("tor".to_owned())];
        needing(BgpNeed::Peer("tor".to_owned()), &origins)
    }

    fn by_mesh() -> BgpPlan {
        needing(BgpNeed::OtherSpeaker("n2".to_owned()), &[Origin::Mesh])
    }

    fn later(now: Instant, seconds: u64) -> Instant {
        now + Duration::from_secs(seconds)
    }

    #[test]
    fn what_never_was_needed_is_not_held() {
        let (mut hold, now) = (BgpHold::default(), Instant::now());
        assert_eq!(hold.need(NOTHING, now), None);
        assert_eq!(hold.hold(idle(), NOTHING, now), idle());
        assert_eq!(hold.due(), None);
    }

    #[test]
    fn the_sessions_are_held_for_a_minute_after_the_need() {
        let (mut hold, now) = (BgpHold::default(), Instant::now());
        assert_eq!(hold.hold(by_peer(), NOTHING, now), by_peer());
        assert_eq!(hold.due(), None);
        // However long ago the plan was made: its need ends only now.
        let end = later(now, 1000);
        assert_eq!(hold.need(NOTHING, end), by_peer().need.as_ref());
        for seconds in [0, 30, 59] {
            let then = later(end, seconds);
            assert_eq!(hold.hold(idle(), NOTHING, then), by_peer(), "after {seconds} s");
            assert_eq!(hold.need(NOTHING, then), by_peer().need.as_ref());
            assert_eq!(hold.due(), Some(later(end, 60)));
        }
        let over = later(end, 60);
        assert_eq!(hold.need(NOTHING, over), None);
        assert_eq!(hold.hold(idle(), NOTHING, over), idle());
        assert_eq!((hold.due(), hold.need(NOTHING, end)), (None, None), "it is forgotten");
    }

    #[test]
    fn a_need_that_comes_back_ends_the_hold() {
        let (mut hold, now) = (BgpHold::default(), Instant::now());
        hold.hold(by_peer(), NOTHING, now);
        hold.hold(idle(), NOTHING, later(now, 1));
        let then = later(now, 59);
        assert_eq!(hold.hold(by_mesh(), NOTHING, then), by_mesh(), "no session of the one before");
        assert_eq!(hold.due(), None);
        assert_eq!(hold.hold(idle(), NOTHING, later(now, 70)), by_mesh());
        assert_eq!(hold.due(), Some(later(now, 130)), "a minute begins again");
    }

    #[test]
    fn what_is_not_about_sessions_counts_at_once() {
        let (mut hold, now) = (BgpHold::default(), Instant::now());
        hold.hold(by_peer(), NOTHING, now);
        let mut tunnelled = idle();
        let pool: IpNet = "10.244.0.0/16".parse().expect("a prefix");
        tunnelled.of_agent.insert(pool);
        tunnelled.not_exported.insert(pool);
        let held = hold.hold(tunnelled.clone(), NOTHING, now);
        let BgpPlan { need, sessions, .. } = by_peer();
        assert_eq!(held, BgpPlan { need, sessions, ..tunnelled });
    }

    #[test]
    fn what_is_switched_off_is_not_held() {
        let now = Instant::now();
        let ended = |needed: BgpPlan, off| {
            let mut hold = BgpHold::default();
            hold.hold(needed, NOTHING, now);
            assert_eq!(hold.need(off, now).is_none(), hold.hold(idle(), off, now) == idle());
            hold.due().is_none()
        };
        assert!(ended(by_peer(), SwitchedOff::Everything));
        assert!(ended(by_mesh(), SwitchedOff::Everything));
        assert!(ended(by_mesh(), SwitchedOff::Mesh));
        assert!(!ended(by_peer(), SwitchedOff::Mesh), "a peering is no part of the mesh");
        // Nor is it where that comes later.
        let mut hold = BgpHold::default();
        hold.hold(by_mesh(), NOTHING, now);
        hold.hold(idle(), NOTHING, now);
        assert_eq!(hold.hold(idle(), SwitchedOff::Mesh, later(now, 5)), idle());
    }

    #[test]
    fn a_mesh_that_is_switched_off_leaves_the_other_sessions_held() {
        let (mut hold, now) = (BgpHold::default(), Instant::now());
        hold.hold(by_peer(), NOTHING, now);
        let held = hold.hold(idle(), SwitchedOff::Mesh, now);
        assert_eq!(held.sessions.keys().collect::<Vec<_>>(), ["s2"]);
    }
}
