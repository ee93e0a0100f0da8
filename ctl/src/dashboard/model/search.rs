//! Who has something, and where it is: what is asked for by an address, a name, or a part of one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use weir_common::ipam::history::{HistoryQuestion, Tenure};
use weir_common::link::MacAddress;
use weir_common::network::Peer;
use weir_common::tunnel::TunnelKind;

use super::address::AddressRow;
use super::answer::{AnswerKind, PastRow, SearchAnswer, Viewer, line};
use super::reach::next_hops;
use super::{BadQuestion, ClusterView};

/// The longest question, in bytes.
const LONGEST_QUERY: usize = 256;

/// The most answers.
const MOST_ANSWERS: usize = 50;

/// The most earlier holders of one answer: the last ones.
const MOST_TENURES: usize = 50;

/// The most blocks that are read for one question: those in whose values its text stands.
const MOST_BLOCKS: usize = 500;

/// How short a container's id may be cut off, in bytes.
const SHORTEST_PREFIX: usize = 4;

/// The answers to a question.
#[derive(Debug, Default, Serialize)]
pub struct SearchDocument {
    query: String,
    pub answers: Vec<SearchAnswer>,
    /// What else there is to know of them.
    pub note: Option<String>,
}

/// What the history of this node says.
#[derive(Debug, Default)]
pub struct HistoryAnswer {
    /// Who had what.
    pub tenures: Vec<Tenure>,
    /// Why that is not known.
    pub failure: Option<String>,
}

/// What is asked of the history for a question.
pub fn question(query: &str) -> HistoryQuestion {
    match query.trim().parse() {
        Ok(address) => HistoryQuestion::Address(address),
        Err(_) => HistoryQuestion::Container(query.trim().to_owned()),
    }
}

/// The question without the space around it.
///
/// # Errors
/// [`BadQuestion`] for one that is empty or too long.
pub fn checked(query: &str) -> Result<&str, BadQuestion> {
    let query = query.trim();
    if query.is_empty() || query.len() > LONGEST_QUERY {
        return Err(BadQuestion(format!(
            "the question has {} bytes; ask for 1 to {LONGEST_QUERY}: an address, container, pod, \
             node, MAC address, pool or block",
            query.len()
        )));
    }
    Ok(query)
}

impl SearchDocument {
    /// What is found, seen from the node `here`.
    ///
    /// # Errors
    /// [`BadQuestion`] for one that is empty or too long.
    pub fn of(
        query: &str,
        here: Option<&str>,
        view: &ClusterView,
        history: &HistoryAnswer,
    ) -> Result<Self, BadQuestion> {
        let query = checked(query)?;
        let here = here.filter(|name| view.cluster.nodes.contains_key(*name));
        let next_hops = here.map(|here| next_hops(here, view)).unwrap_or_default();
        let viewer = Viewer { view, here, next_hops: &next_hops };
        let mut search = ClusterSearch { viewer, answers: Vec::new(), is_cut: false };
        if let Ok(cidr) = query.parse::<IpNet>() {
            search.cidr(cidr.trunc());
        } else if let Ok(address) = query.parse::<IpAddr>() {
            search.address(address);
        } else if let Ok(mac) = query.parse::<MacAddress>() {
            search.mac(mac);
        } else {
            search.name(query);
        }
        search.past(&history.tenures);
        let is_cut = search.is_cut || search.answers.len() > MOST_ANSWERS;
        let mut answers = search.answers;
        answers.truncate(MOST_ANSWERS);
        let cut = is_cut.then(|| "there may be more answers, or earlier holders; write more of the name, or ask weirctl ipam history".to_owned());
        let notes: Vec<String> = cut.into_iter().chain(history.failure.clone()).collect();
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        Ok(Self { query: query.to_owned(), answers, note })
    }
}

/// A search that goes on.
struct ClusterSearch<'a> {
    viewer: Viewer<'a>,
    answers: Vec<SearchAnswer>,
    /// Whether not everything was looked at.
    is_cut: bool,
}

impl ClusterSearch<'_> {
    fn cidr(&mut self, cidr: IpNet) {
        if let Some(answer) = self.viewer.of_block(cidr) {
            self.answers.push(answer);
        }
        let pools =
            self.viewer.view.cluster.pools.iter().filter(|(_, pool)| pool.cidr.contains(&cidr));
        let pools: Vec<&String> = pools.map(|(name, _)| name).collect();
        self.pools(&pools);
    }

    fn pools(&mut self, names: &[&String]) {
        if names.is_empty() {
            return;
        }
        let viewer = self.viewer;
        let usage = viewer.view.cluster.pool_usage();
        let answers = names.iter().take(MOST_ANSWERS + 1).map(|name| viewer.of_pool(name, &usage));
        self.answers.extend(answers);
    }

    fn address(&mut self, address: IpAddr) {
        let block =
            self.viewer.view.block_around(address).and_then(|cidr| self.viewer.view.block(cidr));
        let ordinal = block.as_ref().and_then(|block| block.ordinal(address));
        let row = block.as_ref().zip(ordinal).and_then(|(block, it)| AddressRow::of(block, it));
        let answer = match row {
            Some(row) => {
                let block = block.map(|block| block.cidr);
                self.viewer.of_row(AnswerKind::Address, address.to_string(), &row, block)
            }
            None => self.viewer.of_nobodys(address, block.map(|block| block.cidr)),
        };
        self.answers.push(answer);
        let has = |peer: &Peer| {
            peer.addresses().any(|it| it == address)
                || peer.tunnels.values().any(|it| *it == address)
        };
        let nodes = self.viewer.view.cluster.nodes.iter().filter(|(_, peer)| has(peer));
        let nodes: Vec<_> = nodes.map(|(name, _)| name.clone()).collect();
        let viewer = self.viewer;
        self.answers.extend(nodes.iter().map(|name| viewer.of_node(name)));
    }

    fn mac(&mut self, mac: MacAddress) {
        for (name, peer) in &self.viewer.view.cluster.nodes {
            for kind in TunnelKind::ALL {
                if peer.mac(kind, name) == Some(mac) {
                    let mut answer = self.viewer.of_node(name);
                    answer.kind = AnswerKind::Mac;
                    answer.title = mac.to_string();
                    let device = format!("device {} of node {name}", kind.device());
                    answer.lines.insert(0, line("has it", device));
                    self.answers.push(answer);
                }
            }
        }
        let text = mac.to_string();
        let is_it = |row: &AddressRow| {
            row.mac
                .as_ref()
                .is_some_and(|it| it.eq_ignore_ascii_case(&text))
                .then(|| (AnswerKind::Mac, text.clone()))
        };
        self.scan(&[text.clone(), text.to_uppercase()], is_it);
    }

    /// Nodes and pools of which the name has the text in it; pods that begin with it, perhaps
    /// with their namespace and a slash; containers that begin with it, and handles.
    fn name(&mut self, query: &str) {
        let viewer = self.viewer;
        let cluster = &viewer.view.cluster;
        let mut nodes: Vec<&String> =
            cluster.nodes.keys().filter(|name| name.contains(query)).collect();
        nodes.sort_by_key(|name| *name != query);
        let nodes = nodes.into_iter().take(MOST_ANSWERS + 1);
        self.answers.extend(nodes.map(|name| viewer.of_node(name)));
        let mut pools: Vec<&String> =
            cluster.pools.keys().filter(|name| name.contains(query)).collect();
        pools.sort_by_key(|name| *name != query);
        self.pools(&pools);
        let (namespace, pod) = match query.split_once('/') {
            Some((namespace, pod)) => (Some(namespace), pod),
            None => (None, query),
        };
        let is_it = |row: &AddressRow| {
            let is_pod = row.pod.as_deref().is_some_and(|it| it.starts_with(pod))
                && namespace.is_none_or(|it| row.namespace.as_deref() == Some(it));
            let is_long = query.len() >= SHORTEST_PREFIX;
            let is_container = row
                .container
                .as_deref()
                .is_some_and(|id| id == query || (is_long && id.starts_with(query)));
            let is_handle = row.handle.as_deref() == Some(query);
            match (is_pod, &row.container, &row.pod) {
                (true, _, Some(pod)) => {
                    let namespace = row.namespace.as_deref().unwrap_or_default();
                    Some((AnswerKind::Pod, format!("{namespace}/{pod}")))
                }
                (_, Some(container), _) if is_container || is_handle => {
                    Some((AnswerKind::Container, container.clone()))
                }
                _ if is_handle => Some((AnswerKind::Address, row.address.to_string())),
                _ => None,
            }
        };
        // As they stand in a value: at the beginning of a text, or after a handle's network.
        let begins = |text: &str| serde_json::to_string(text).unwrap_or_default();
        let begins = |text: &str| begins(text).trim_end_matches('"').to_owned();
        let in_handle = format!(".{}", begins(query).trim_start_matches('"'));
        self.scan(&[begins(pod), begins(query), in_handle], is_it);
    }

    /// Adds the addresses of those blocks that are meant, and in whose values one of `texts`
    /// stands.
    fn scan(
        &mut self,
        texts: &[String],
        is_it: impl Fn(&AddressRow) -> Option<(AnswerKind, String)>,
    ) {
        let (view, mut read) = (self.viewer.view, 0);
        for (cidr, value) in &view.kept.blocks {
            if !texts.iter().any(|text| value.contains(text.as_str())) {
                continue;
            }
            if read == MOST_BLOCKS || self.answers.len() > MOST_ANSWERS {
                self.is_cut = true;
                return;
            }
            read += 1;
            let Some(block) = view.block(*cidr) else { continue };
            for ordinal in 0..block.allocations.len() {
                let row = AddressRow::of(&block, ordinal);
                let found = row.and_then(|row| is_it(&row).map(|(kind, title)| (row, kind, title)));
                if let Some((row, kind, title)) = found {
                    self.answers.push(self.viewer.of_row(kind, title, &row, Some(*cidr)));
                }
            }
        }
    }

    /// Adds what the history says, also of what is there no more.
    fn past(&mut self, tenures: &[Tenure]) {
        let mut places: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for (place, answer) in self.answers.iter().enumerate() {
            if let Some(address) = answer.address {
                places.entry(address).or_insert(place);
            }
        }
        for tenure in tenures {
            let place = *places.entry(tenure.address).or_insert_with(|| {
                self.answers.push(self.viewer.of_past(tenure));
                self.answers.len() - 1
            });
            self.answers[place].history.push(PastRow::from(tenure));
        }
        for history in self.answers.iter_mut().map(|answer| &mut answer.history) {
            // The oldest are first.
            self.is_cut |= history.len() > MOST_TENURES;
            history.drain(..history.len().saturating_sub(MOST_TENURES));
        }
    }
}
