//! Decides when a node's registered address must change.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::ipam::Family;
use crate::network::{
    AutodetectionMethod, Detected, NodeInterface, NotDetected, is_global_unicast,
};

/// How long another address must have been the one that is found before the node is
/// registered with it: a lease that is renewed moves no routes of the cluster.
pub const STEADY_TIME: Duration = Duration::from_secs(3);

/// How long the registered address must have been gone from the node before one that
/// does not follow it (of another link) takes its place. A link that goes down loses
/// its IPv6 addresses in the kernel, and the IPv4 ones to some network managers.
pub const GRACE_TIME: Duration = Duration::from_secs(60);

/// How an address of the node is found.
#[derive(Clone, Debug)]
pub struct Detection {
    /// By this method.
    pub method: AutodetectionMethod,
    /// Whether the address that the node is registered with comes first, as long as
    /// the node has it, whatever the method says of it: other nodes must not be routed
    /// to a bridge of containers that another program has just made. (Calico, without
    /// `IP`: `node/pkg/lifecycle/startup`.)
    pub keeps_registered: bool,
}

/// A node's address of one family over time. Times are given to it, as what has passed
/// since any one moment.
#[derive(Clone, Debug)]
pub struct OwnAddress {
    family: Family,
    detection: Detection,
    /// Whether it waits at all.
    is_patient: bool,
    /// The right address that the node was last registered with, and the link that has it.
    own: Option<Detected>,
    /// The addresses that this machine has written, or wanted to: the datastore may tell of
    /// an earlier one until it tells of the last.
    written: BTreeSet<IpNet>,
    /// Whether the datastore went back in time since, so that an older address in it is
    /// not another host's.
    went_back: bool,
    /// What else is found, and since when.
    found: Option<(IpNet, Duration)>,
    /// The registered address that the node does not have, and since when.
    gone: Option<(IpNet, Duration)>,
}

/// What to do about a node's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressDecision {
    /// Nothing: the node is registered with this one.
    Keep(IpNet),
    /// Register the node with this one.
    Register(Detected),
    /// Nothing but to tell of it: the node was registered with `own`, which it still has,
    /// and another host or program has written `registered`, which it does not have.
    Contested {
        /// The address in the datastore.
        registered: IpNet,
        /// This machine's.
        own: IpNet,
    },
    /// Look again at this time, when the address that was found may be steady.
    Unsteady(Duration),
    /// Look again at this time: the registered address is gone, and may come back.
    Gone {
        /// The registered address.
        registered: IpNet,
        /// What takes its place then.
        next: Detected,
        /// The time.
        until: Duration,
    },
}

impl OwnAddress {
    /// Of a family, found like this. One that is not `is_patient` waits for nothing.
    pub fn new(family: Family, detection: Detection, is_patient: bool) -> Self {
        let (own, written, found, gone) = (None, BTreeSet::new(), None, None);
        Self { family, detection, is_patient, own, written, went_back: false, found, gone }
    }

    /// The datastore went back in time: what it says of this node may be old.
    pub fn datastore_went_back(&mut self) {
        self.went_back = true;
    }

    /// The family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The address towards which the kernel is to be asked what it sends from.
    pub fn destination(&self) -> Option<IpAddr> {
        self.detection.method.destination(self.family())
    }

    /// Decides what to do at the time `now`, where the datastore has the node
    /// `registered` like this, and the node has these `interfaces`. `source` is as for
    /// [`AutodetectionMethod::detect`].
    ///
    /// - The registered address stays while the node has it, unless the method asks for
    ///   another one; also while its link is down.
    /// - A node without an address gets the one back that it had, if it still has that.
    ///   Where another host or program wrote another one, nothing is written.
    /// - Else the address that is found takes its place: after three seconds if it follows
    ///   the registered one, which is to say on the same link, or in its subnet where the
    ///   link is not known; else after the registered one has been gone for
    ///   [`GRACE_TIME`]. A first address, and one that was given, is registered at once.
    ///
    /// # Errors
    /// [`NotDetected`] when no address is found. What is registered then stays.
    pub fn decide(
        &mut self,
        registered: Option<IpNet>,
        interfaces: &[NodeInterface],
        source: Option<IpAddr>,
        now: Duration,
    ) -> Result<AddressDecision, NotDetected> {
        let decision = self.next(registered, interfaces, source, now)?;
        if let AddressDecision::Register(address) = &decision {
            self.written.insert(address.address);
        }
        Ok(decision)
    }

    fn next(
        &mut self,
        registered: Option<IpNet>,
        interfaces: &[NodeInterface],
        source: Option<IpAddr>,
        now: Duration,
    ) -> Result<AddressDecision, NotDetected> {
        let keep = |address: IpNet| self.keep(address, interfaces, source);
        if let Some(kept) = registered.and_then(keep) {
            let decision = match registered == Some(kept.address) {
                true => AddressDecision::Keep(kept.address),
                false => AddressDecision::Register(kept.clone()),
            };
            (self.own, self.found, self.gone) = (Some(kept), None, None);
            self.went_back = false;
            return Ok(decision);
        }
        if let Some(own) = self.own.as_ref().and_then(|own| keep(own.address)) {
            (self.found, self.gone) = (None, None);
            let is_written = |registered| self.written.contains(&registered);
            let is_own = registered.is_some_and(is_written) || self.went_back;
            return Ok(match registered.filter(|_| !is_own) {
                Some(registered) => AddressDecision::Contested { registered, own: own.address },
                None => AddressDecision::Register(own),
            });
        }
        let is_there =
            |it: &IpNet| interfaces.iter().any(|interface| interface.find(it.addr()).is_some());
        self.gone = registered.filter(|it| !is_there(it)).map(|it| match self.gone {
            Some((gone, since)) if gone == it => (it, since),
            _ => (it, now),
        });
        let found = self.detection.method.detect(self.family, interfaces, source)?;
        let since = match self.found {
            Some((address, since)) if address == found.address => since,
            _ => now,
        };
        self.found = Some((found.address, since));
        Ok(self.judge(found, since, now))
    }

    /// What comes of an address that has been found since then, while the registered
    /// one cannot stay.
    fn judge(&self, found: Detected, since: Duration, now: Duration) -> AddressDecision {
        let is_given = matches!(self.detection.method, AutodetectionMethod::Address(..));
        if !self.is_patient || is_given {
            return AddressDecision::Register(found);
        }
        if let Some((registered, gone)) = self.gone
            && !self.follows(&found, registered)
        {
            let until = (gone + GRACE_TIME).max(since + STEADY_TIME);
            return match now >= until {
                true => AddressDecision::Register(found),
                false => AddressDecision::Gone { registered, next: found, until },
            };
        }
        let until = since + STEADY_TIME;
        if self.own.is_none() || now >= until {
            AddressDecision::Register(found)
        } else {
            AddressDecision::Unsteady(until)
        }
    }

    /// Whether an address takes the place of `registered` on its link.
    fn follows(&self, found: &Detected, registered: IpNet) -> bool {
        match &self.own {
            Some(own) if own.address.addr() == registered.addr() && own.interface.is_some() => {
                own.interface == found.interface
            }
            _ => registered.contains(&found.address.addr()),
        }
    }

    /// The address as it is to be registered, if the node keeps it.
    fn keep(
        &self,
        address: IpNet,
        interfaces: &[NodeInterface],
        source: Option<IpAddr>,
    ) -> Option<Detected> {
        if !self.detection.keeps_registered {
            return self.detection.method.keep(address.addr(), interfaces, source);
        }
        let holder = interfaces.iter().find(|interface| interface.find(address.addr()).is_some());
        let holder = holder.filter(|_| is_global_unicast(address.addr()))?;
        Some(Detected { address, interface: Some(holder.name.clone()) })
    }
}
