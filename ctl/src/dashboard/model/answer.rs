//! One answer of a search: what there is to say of an address, a node, a pool or a block.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use weir_common::ipam::history::{PastHolder, Tenure};
use weir_common::network::PoolUsage;
use weir_common::tunnel::TunnelKind;

use super::ClusterView;
use super::address::{AddressRow, named};
use super::reach::NextHopRow;
use crate::commands::ipam_history::moment;

/// One thing that was found.
#[derive(Debug, Serialize)]
pub struct SearchAnswer {
    pub kind: AnswerKind,
    pub title: String,
    /// What there is to say of it, each with what it is.
    pub lines: Vec<(String, String)>,
    pub block: Option<IpNet>,
    pub node: Option<String>,
    pub history: Vec<PastRow>,
    #[serde(skip)]
    pub address: Option<IpAddr>,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AnswerKind {
    Address,
    Container,
    Pod,
    Node,
    Mac,
    Pool,
    Block,
}

/// Who had an address for a while.
#[derive(Debug, Serialize)]
pub struct PastRow {
    from: String,
    until: Option<String>,
    what: String,
}

impl From<&Tenure> for PastRow {
    fn from(tenure: &Tenure) -> Self {
        Self {
            from: moment(tenure.from),
            until: tenure.until.map(moment),
            what: past_holder(&tenure.holder),
        }
    }
}

/// Who looks at the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Viewer<'a> {
    /// What is looked at.
    pub view: &'a ClusterView,
    /// From which registered node.
    pub here: Option<&'a str>,
    /// The next hops from there.
    pub next_hops: &'a [NextHopRow],
}

impl Viewer<'_> {
    /// An address in use, or one that cools down.
    pub fn of_row(
        &self,
        kind: AnswerKind,
        title: String,
        row: &AddressRow,
        block: Option<IpNet>,
    ) -> SearchAnswer {
        let address = row.address.to_string();
        let mut lines = Vec::new();
        if kind != AnswerKind::Address {
            lines.push(line("address", address));
        }
        lines.push(line("has it", row.in_words()));
        let facts = [
            ("since", &row.since),
            ("interface", &row.interface),
            ("MAC", &row.mac),
            ("network", &row.network),
        ];
        let known = facts.into_iter().filter_map(|(name, fact)| Some(line(name, fact.clone()?)));
        lines.extend(known);
        lines.extend(self.place(row.address, block));
        // What names no node is where its block is.
        let home = || block.and_then(|block| self.view.host_of(block)).map(str::to_owned);
        let node = row.node.clone().or_else(home);
        lines.extend(node.as_deref().and_then(|node| self.reached_by(node, row.address)));
        SearchAnswer {
            kind,
            title,
            lines,
            block,
            node,
            history: Vec::new(),
            address: Some(row.address),
        }
    }

    /// An address that nobody has.
    pub fn of_nobodys(&self, address: IpAddr, block: Option<IpNet>) -> SearchAnswer {
        let reservations = &self.view.cluster.reservations;
        let is_reserved =
            |(_, ranges): &(&String, &Vec<IpNet>)| ranges.iter().any(|it| it.contains(&address));
        let nobody = match reservations.iter().find(is_reserved) {
            Some((name, _)) => format!("nobody: reservation {name} keeps it back"),
            None => "nobody".to_owned(),
        };
        let mut lines = vec![line("has it", nobody)];
        lines.extend(self.place(address, block));
        let (kind, title) = (AnswerKind::Address, address.to_string());
        SearchAnswer {
            kind,
            title,
            lines,
            block,
            node: None,
            history: Vec::new(),
            address: Some(address),
        }
    }

    /// The block and the pool that an address lies in.
    fn place(&self, address: IpAddr, block: Option<IpNet>) -> Vec<(String, String)> {
        let of_block = |block: IpNet| match self.view.host_of(block) {
            Some(host) => format!("{block} of {host}"),
            None => format!("{block} of no host"),
        };
        let pool = self.view.cluster.pool_of(address.into());
        vec![
            line("block", block.map_or_else(|| "none".to_owned(), of_block)),
            line("pool", pool.map_or("none", |(name, _)| name).to_owned()),
        ]
    }

    /// How an address on a node is reached from here.
    fn reached_by(&self, node: &str, address: IpAddr) -> Option<(String, String)> {
        let here = self.here?;
        let name = format!("reached from {here}");
        if here == node {
            return Some((name, "it is on this node".to_owned()));
        }
        let (pool, _) = self.view.cluster.pool_of(address.into())?;
        let leads_there =
            |hop: &&NextHopRow| hop.node == node && hop.pools.iter().any(|it| it == pool);
        let hop = self.next_hops.iter().find(leads_there)?;
        let next_hop = hop.next_hop.map(|it| format!(" by {it}")).unwrap_or_default();
        let device = hop.device.as_ref().map(|it| format!(" over {it}")).unwrap_or_default();
        Some((name, format!("{}{next_hop}{device}: {}", hop.how, hop.why)))
    }

    pub fn of_node(&self, name: &str) -> SearchAnswer {
        let cluster = &self.view.cluster;
        let peer = cluster.nodes.get(name).cloned().unwrap_or_default();
        let mut lines: Vec<(String, String)> = [peer.ipv4, peer.ipv6]
            .into_iter()
            .flatten()
            .map(|it| line("address", it.to_string()))
            .collect();
        let of_tunnel = |(kind, address): (&TunnelKind, &IpAddr)| {
            line("tunnel address", format!("{address} of {}", kind.device()))
        };
        lines.extend(peer.tunnels.iter().map(of_tunnel));
        let blocks = cluster.homes.values().filter(|host| *host == name).count();
        lines.push(line("blocks", blocks.to_string()));
        SearchAnswer {
            kind: AnswerKind::Node,
            title: name.to_owned(),
            lines,
            block: None,
            node: Some(name.to_owned()),
            history: Vec::new(),
            address: None,
        }
    }

    pub fn of_pool(&self, name: &str, usage: &BTreeMap<&str, PoolUsage>) -> SearchAnswer {
        let cluster = &self.view.cluster;
        let cidr = cluster.pools.get(name).map(|pool| pool.cidr.to_string()).unwrap_or_default();
        let usage = usage.get(name).cloned().unwrap_or_default();
        let lines = vec![
            line("CIDR", cidr),
            line("addresses", format!("{} of {} used", usage.used, usage.size)),
            line("free", usage.free().to_string()),
            line("blocks", usage.blocks.to_string()),
        ];
        SearchAnswer {
            kind: AnswerKind::Pool,
            title: name.to_owned(),
            lines,
            block: None,
            node: None,
            history: Vec::new(),
            address: None,
        }
    }

    /// Of what had an address that is another's now, or nobody's.
    pub fn of_past(&self, tenure: &Tenure) -> SearchAnswer {
        let block = self.view.block_around(tenure.address);
        let kind = match tenure.holder.pod {
            Some(_) => AnswerKind::Pod,
            None => AnswerKind::Container,
        };
        SearchAnswer {
            kind,
            title: named(&tenure.holder),
            lines: vec![line("had the address", tenure.address.to_string())],
            ..self.of_nobodys(tenure.address, block)
        }
    }

    pub fn of_block(&self, cidr: IpNet) -> Option<SearchAnswer> {
        let used = self.view.cluster.used.get(&cidr)?;
        let host = self.view.host_of(cidr).map(str::to_owned);
        let mut lines = vec![line("belongs to", host.clone().unwrap_or("no host".to_owned()))];
        let assigned = used.count().saturating_sub(used.cooling());
        lines.push(line("addresses", format!("{assigned} used, {} cool down", used.cooling())));
        let pool = self.view.cluster.pool_of(cidr).map_or("none", |(name, _)| name);
        lines.push(line("pool", pool.to_owned()));
        lines.extend(host.as_deref().and_then(|host| self.reached_by(host, cidr.addr())));
        Some(SearchAnswer {
            kind: AnswerKind::Block,
            title: cidr.to_string(),
            lines,
            block: Some(cidr),
            node: host,
            history: Vec::new(),
            address: None,
        })
    }
}

/// What there is to say, with what it is.
pub fn line(name: &str, value: String) -> (String, String) {
    (name.to_owned(), value)
}

fn past_holder(holder: &PastHolder) -> String {
    let node = holder.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
    named(holder) + &node
}
