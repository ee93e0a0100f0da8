//! What an audit finds.

use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::kind::{DamageKind, RestsOn};
use super::node::Attached;
use super::release_one::SeenAddress;
use crate::datastore::keys;
use crate::ipam::Allocation;
use crate::printable::printable;

/// One piece of damage: what is wrong, in words and in facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The kind of damage.
    pub kind: DamageKind,
    /// The damaged keys, the first of which tells findings of a kind apart.
    pub keys: Vec<String>,
    /// The addresses in use concerned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<SeenAddress>,
    /// The handle concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// The host concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The block concerned, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<IpNet>,
    /// What is wrong, as a sentence without its full stop.
    pub problem: String,
    /// What a repair does, in the imperative.
    pub remedy: String,
    /// Whether a repair changes anything about it.
    pub safe: bool,
    /// Why it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
    /// The attachment in this node's kernel, with the addresses to record for it.
    #[serde(skip)]
    pub attachment: Option<Attached>,
    /// The other blocks whose values it rests on.
    #[serde(skip)]
    pub(super) rests_on_blocks: Vec<IpNet>,
    /// The addresses that must not become free, since they may be in use.
    #[serde(skip)]
    pub(super) doubtful: Vec<IpAddr>,
    /// Whether it is about one part of a block that a busy node changes all the time. An
    /// address is then told by its sequence number.
    #[serde(skip)]
    pub(super) in_busy_block: bool,
}

impl Finding {
    /// A finding about a key.
    pub(super) fn new(kind: DamageKind, key: String, problem: String, remedy: &str) -> Self {
        Self {
            kind,
            keys: vec![key],
            host: None,
            block: None,
            handle: None,
            addresses: Vec::new(),
            problem: printable(&problem).into_owned(),
            remedy: printable(remedy).into_owned(),
            safe: true,
            obstacle: None,
            attachment: None,
            rests_on_blocks: Vec::new(),
            doubtful: Vec::new(),
            in_busy_block: false,
        }
    }

    /// A finding about one address in use.
    pub(super) fn of_address(
        kind: DamageKind,
        allocation: &Allocation,
        problem: String,
        remedy: &str,
    ) -> Self {
        Self {
            host: allocation.node().map(str::to_owned),
            block: Some(allocation.block),
            handle: allocation.handle.as_deref().map(str::to_owned),
            addresses: vec![allocation.into()],
            in_busy_block: true,
            ..Self::new(kind, keys::block(allocation.block), problem, remedy)
        }
    }

    /// A finding about a handle.
    pub(super) fn of_handle(
        kind: DamageKind,
        handle: &str,
        rests_on_blocks: Vec<IpNet>,
        problem: String,
        remedy: &str,
    ) -> Self {
        let handle = handle.to_owned();
        let finding = Self::new(kind, keys::handle(&handle), problem, remedy);
        Self { handle: Some(handle), rests_on_blocks, ..finding }
    }

    /// A finding about a host's affinity to a block, present or not.
    pub(super) fn of_affinity(
        kind: DamageKind,
        host: &str,
        block: IpNet,
        problem: String,
        remedy: &str,
    ) -> Self {
        let finding = Self::new(kind, keys::affinity(host, block), problem, remedy);
        Self { host: Some(host.to_owned()), block: Some(block), ..finding }
    }

    /// A finding about a block, which belongs to this host, if to any.
    pub(super) fn of_block(
        kind: DamageKind,
        host: Option<&str>,
        block: IpNet,
        problem: String,
        remedy: &str,
    ) -> Self {
        let finding = Self::new(kind, keys::block(block), problem, remedy);
        Self { host: host.map(str::to_owned), block: Some(block), ..finding }
    }

    /// The same, which a repair leaves alone for this reason, if for any.
    pub(super) fn left(self, obstacle: Option<String>) -> Self {
        let obstacle = obstacle.map(|obstacle| printable(&obstacle).into_owned());
        Self { safe: obstacle.is_none(), obstacle, ..self }
    }

    /// Whether it rests on what this node's kernel has, so that the kernel must
    /// be read again before it is repaired.
    pub fn rests_on_kernel(&self) -> bool {
        self.kind.rests_on_kernel()
    }

    /// Whether it rests on which pools there are.
    pub(super) fn rests_on_pools(&self) -> bool {
        self.kind.rests_on() == RestsOn::Pools
    }

    /// Whether two audits found the same damage. What else is wrong in an unsound block
    /// may change meanwhile.
    pub fn is_alike(&self, other: &Self) -> bool {
        let is_unsound = self.kind == DamageKind::BlockUnsound;
        self == other || is_unsound && self.subject() == other.subject()
    }

    /// What tells findings apart: two audits that find the same damage give it
    /// the same subject, whatever else changed.
    pub(super) fn subject(&self) -> (DamageKind, String, Option<IpAddr>, Option<u64>) {
        let attachment = self.attachment.as_ref().map(|it| it.identity.alias());
        let key = attachment.unwrap_or_else(|| self.keys[0].clone());
        let address = self.block.and(self.addresses.first());
        let sequence = address.and_then(|it| it.sequence);
        (self.kind, key, address.map(|it| it.address), sequence)
    }
}

/// At most eight items, and how many more there are.
pub(super) fn listed(items: impl IntoIterator<Item = impl Display>) -> String {
    const SHOWN: usize = 8;
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    let mut text = items[..items.len().min(SHOWN)].join(", ");
    if items.len() > SHOWN {
        text.push_str(&format!(" and {} more", items.len() - SHOWN));
    }
    text
}
