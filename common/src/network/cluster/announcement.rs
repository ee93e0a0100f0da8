//! Who announces a range by BGP, or why nobody does.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::plan::{Planner, host_of};

/// Why a range is not announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence<'a> {
    /// It is neither a block with an affinity nor an address in use away from its block's node.
    NoBlock,
    /// A block of which several hosts say that it is theirs.
    Contested,
    /// A node's address lies in it: what others learned by BGP would cut them off from that node.
    NodeInside,
    /// A next hop of this node lies in it, likewise.
    NextHopInside,
    /// An address that its node announces with this block.
    WithBlock(IpNet),
    /// It is in no pool.
    NoPool,
    /// This pool is not announced.
    NotExported(&'a str),
}

impl<'a> Planner<'a> {
    /// Whether this node announces a range where it needs BGP: a block of its own, or an address
    /// in use here that no such block contains.
    pub(super) fn is_announced(&self, range: IpNet) -> bool {
        // Most ranges are other nodes', and it costs more to look for nodes in them.
        self.host(range).is_some_and(|host| host == self.node) && self.announcer(range).is_ok()
    }

    /// The node that announces a range where it needs BGP. Of another node's links nothing is
    /// known here.
    pub(super) fn announcer(&self, range: IpNet) -> Result<&'a String, Silence<'a>> {
        let host = match self.borrower(range) {
            Some((block, host)) if block != range && self.announcer_of_block(block) == Ok(host) => {
                return Err(Silence::WithBlock(block));
            }
            Some((_, host)) => host,
            None => self.announcer_of_block(range)?,
        };
        match self.state.pool_of(range) {
            None => Err(Silence::NoPool),
            Some((name, pool)) if !pool.is_exported => Err(Silence::NotExported(name)),
            Some(_) => Ok(host),
        }
    }

    fn announcer_of_block(&self, block: IpNet) -> Result<&'a String, Silence<'a>> {
        let hosts = self.state.blocks.get(&block).ok_or(Silence::NoBlock)?;
        let host = host_of(block, hosts, self.state).ok_or(Silence::Contested)?;
        if self.has_peer_in(block) {
            return Err(Silence::NodeInside);
        }
        if host == self.node && self.underlay.has_hosts_in(block) {
            return Err(Silence::NextHopInside);
        }
        Ok(host)
    }

    /// The node that a range is on.
    pub(super) fn host(&self, range: IpNet) -> Option<&'a String> {
        let of_block = || host_of(range, self.state.blocks.get(&range)?, self.state);
        self.borrower(range).map(|(_, host)| host).or_else(of_block)
    }

    /// The node that uses a single address of another node's block, and that block.
    pub(super) fn borrower(&self, range: IpNet) -> Option<(IpNet, &'a String)> {
        let borrowed: &'a BTreeMap<_, _> = &self.state.borrowed;
        if borrowed.is_empty() || range.prefix_len() < range.max_prefix_len() {
            return None;
        }
        let mut around = std::iter::successors(Some(range), IpNet::supernet);
        around.find_map(|block| Some((block, borrowed.get(&block)?.get(&range.addr())?)))
    }
}
