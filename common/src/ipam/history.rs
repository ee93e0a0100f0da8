//! Who had an address when: what changes from one value of a block to the next, and what
//! the records of such changes say.
//!
//! A record stands on a line of its own and speaks of one address. What is
//! [unchanged](Ledger) is not recorded again, so that the records of an address tell its
//! holders one after the other.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::allocation::parse_timestamp;
use super::block::{
    ATTRIBUTE_INTERFACE, ATTRIBUTE_NETWORK, ATTRIBUTE_NODE, ATTRIBUTE_TIMESTAMP, Attribute, Block,
};
use super::purpose::ATTRIBUTE_TYPE;

/// Who has an address, as far as a record names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct PastHolder {
    /// The handle; none for reserved addresses.
    #[serde(rename = "h", skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// The node.
    #[serde(rename = "n", skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Kubernetes' namespace of the pod.
    #[serde(rename = "s", skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The pod.
    #[serde(rename = "p", skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The interface within the container.
    #[serde(rename = "i", skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The network, where the handle leaves it open.
    #[serde(rename = "w", skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// What the address is for, when it is not a container's.
    #[serde(rename = "y", skip_serializing_if = "Option::is_none")]
    pub use_type: Option<String>,
}

impl PastHolder {
    /// What an allocation's attributes name.
    pub fn read(attribute: &Attribute) -> Self {
        let fact = |key| attribute.fact(key).map(cut);
        Self {
            handle: attribute.handle_id.as_deref().map(cut),
            node: fact(ATTRIBUTE_NODE),
            namespace: fact("namespace"),
            pod: fact("pod"),
            interface: fact(ATTRIBUTE_INTERFACE),
            network: fact(ATTRIBUTE_NETWORK),
            use_type: fact(ATTRIBUTE_TYPE),
        }
    }

    /// The container's id, which the handle ends with; none for what is not a container's.
    pub fn container(&self) -> Option<&str> {
        let handle = self.handle.as_deref().filter(|_| self.use_type.is_none())?;
        Some(handle.rsplit_once('.').map_or(handle, |(_, container)| container))
    }

    /// Whether a container, pod or handle is meant by this name: an id may be cut off after
    /// [`SHORTEST_ID`] characters, a pod may follow its namespace and a slash.
    pub fn is_called(&self, name: &str) -> bool {
        let is_container = self
            .container()
            .is_some_and(|id| id == name || (name.len() >= SHORTEST_ID && id.starts_with(name)));
        let is_pod = self.pod.as_deref().is_some_and(|pod| match name.split_once('/') {
            Some((namespace, name)) => pod == name && self.namespace.as_deref() == Some(namespace),
            None => pod == name,
        });
        is_container || is_pod || self.handle.as_deref() == Some(name)
    }

    /// A number that differs between holders, but for the unlikely.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

/// How much of a text is kept, in bytes: more than Kubernetes' longest name, and a handle of it.
const LONGEST_TEXT: usize = 512;

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST_TEXT)].to_owned()
}

/// How short the id of a container may be cut off, as runtimes print it.
pub const SHORTEST_ID: usize = 8;

/// When something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// It had not happened yet, where the exact time is not known. [`Timestamp::UNIX_EPOCH`]
    /// where nothing is known of the time before.
    pub after: Option<Timestamp>,
    /// It has happened.
    pub at: Timestamp,
}

impl Moment {
    /// A known time.
    pub fn exactly(at: Timestamp) -> Self {
        Self { after: None, at }
    }

    /// The earliest time at which it may have happened.
    pub fn earliest(&self) -> Timestamp {
        self.after.unwrap_or(self.at)
    }
}

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it was seen, in milliseconds since 1970.
    #[serde(rename = "t")]
    at: i64,
    /// When it was not so yet, where changes were not seen meanwhile.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    after: Option<i64>,
    /// The address; without one the record says only that all changes until then were seen.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Who has the address from now on; `None`: nobody.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<PastHolder>,
}

impl Record {
    /// That all changes until now were seen.
    pub fn of_life(now: Timestamp) -> Self {
        Self { at: now.as_millisecond(), after: None, address: None, holder: None }
    }

    /// That no change was seen between two times.
    pub fn of_gap(after: Timestamp, at: Timestamp) -> Self {
        Self { after: Some(after.as_millisecond()), ..Self::of_life(at) }
    }

    fn new(moment: Moment, address: IpAddr, holder: Option<PastHolder>) -> Self {
        let after = moment.after.map(Timestamp::as_millisecond);
        Self { at: moment.at.as_millisecond(), after, address: Some(address), holder }
    }

    /// Reads a line; `None` for one that is torn or not a record.
    pub fn read(line: &str) -> Option<Self> {
        let record: Self = serde_json::from_str(line).ok()?;
        let is_time = |milliseconds: &i64| Timestamp::from_millisecond(*milliseconds).is_ok();
        (is_time(&record.at) && record.after.iter().all(is_time)).then_some(record)
    }

    /// The record as a line, with its end.
    pub fn line(&self) -> String {
        // Serialising plain data does not fail.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// When it happened.
    pub fn moment(&self) -> Moment {
        let time = |it| Timestamp::from_millisecond(it).unwrap_or(Timestamp::UNIX_EPOCH);
        Moment { after: self.after.map(time), at: time(self.at) }
    }
}

/// The last record of each address that somebody has, after all of `records`.
pub fn present(records: impl IntoIterator<Item = Record>) -> BTreeMap<IpAddr, Record> {
    let mut held = BTreeMap::new();
    for record in records {
        match record.address {
            Some(address) if record.holder.is_some() => drop(held.insert(address, record)),
            Some(address) => drop(held.remove(&address)),
            None => {}
        }
    }
    held
}

/// What was recorded last, so that only changes are recorded: of each address in use, a
/// fingerprint of its holder.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    held: BTreeMap<IpAddr, u64>,
    /// What has not been found in the listing that goes on.
    missing: BTreeMap<IpAddr, u64>,
}

impl Ledger {
    /// What all of these records say in the end. None of them is kept.
    pub fn of(records: impl IntoIterator<Item = Record>) -> Self {
        let mut held = BTreeMap::new();
        for Record { address, holder, .. } in records {
            match (address, holder) {
                (Some(address), Some(holder)) => drop(held.insert(address, holder.fingerprint())),
                (Some(address), None) => drop(held.remove(&address)),
                (None, _) => {}
            }
        }
        Self { held, missing: BTreeMap::new() }
    }

    /// How many addresses are in use.
    pub fn addresses(&self) -> usize {
        self.held.len() + self.missing.len()
    }

    /// A listing of all blocks begins: [`Ledger::end_listing`] follows, or another one.
    pub fn begin_listing(&mut self) {
        self.missing.append(&mut self.held);
    }

    /// What a listing did not have is nobody's any more.
    pub fn end_listing(&mut self, moment: Moment) -> Vec<Record> {
        let gone = std::mem::take(&mut self.missing);
        gone.into_keys().map(|address| Record::new(moment, address, None)).collect()
    }

    /// Takes a block's value in, and returns what has changed. An address that cools down is
    /// nobody's. Where the time is not known exactly, that of an assignment is taken from the
    /// holder's own timestamp if it fits.
    pub fn take(&mut self, block: &Block, moment: Moment) -> Vec<Record> {
        let mut before = self.take_out(block.cidr);
        let mut records = Vec::new();
        for ordinal in 0..block.allocations.len() {
            let Some(attribute) = block.holder(ordinal) else { continue };
            if attribute.is_cooling_down() {
                continue;
            }
            let (address, holder) = (block.address(ordinal), PastHolder::read(attribute));
            let print = holder.fingerprint();
            let earlier = before.remove(&address);
            if earlier != Some(print) {
                let moment = narrowed(moment, attribute, earlier.is_some());
                records.push(Record::new(moment, address, Some(holder)));
            }
            self.held.insert(address, print);
        }
        records.extend(before.into_keys().map(|address| Record::new(moment, address, None)));
        records
    }

    /// A block whose value cannot be read is as it was.
    pub fn keep(&mut self, block: IpNet) {
        let before = self.take_out(block);
        self.held.extend(before);
    }

    /// A block is gone, and with it all that was held in it.
    pub fn drop_block(&mut self, block: IpNet, moment: Moment) -> Vec<Record> {
        let before = self.take_out(block);
        before.into_keys().map(|address| Record::new(moment, address, None)).collect()
    }

    fn take_out(&mut self, block: IpNet) -> BTreeMap<IpAddr, u64> {
        let mut taken = BTreeMap::new();
        for map in [&mut self.held, &mut self.missing] {
            let range = map.range(block.network()..=block.broadcast());
            let inside: Vec<IpAddr> = range.map(|(address, _)| *address).collect();
            taken.extend(inside.into_iter().filter_map(|address| map.remove_entry(&address)));
        }
        taken
    }
}

/// When an address was assigned whose change was not seen. It may be older than what was seen
/// before, unless that says that another one had it.
fn narrowed(moment: Moment, attribute: &Attribute, had_another: bool) -> Moment {
    let Some(after) = moment.after else { return moment };
    let made = attribute.fact(ATTRIBUTE_TIMESTAMP).and_then(parse_timestamp);
    let fitting = made.filter(|made| *made <= moment.at && (after <= *made || !had_another));
    fitting.map_or(moment, Moment::exactly)
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryQuestion {
    /// Who had this address.
    Address(IpAddr),
    /// Which addresses it had: a container, a pod or a handle ([`PastHolder::is_called`]).
    Container(String),
}

/// That an address was somebody's for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// The address.
    pub address: IpAddr,
    /// Who had it.
    pub holder: PastHolder,
    /// When it was assigned.
    pub from: Moment,
    /// When it was released, or became another's; `None` where it has not been.
    pub until: Option<Moment>,
}

impl Tenure {
    /// Whether it was so at `time`: surely, perhaps, where changes were not seen around that
    /// time (`Some(false)`), or not (`None`).
    pub fn covers(&self, time: Timestamp) -> Option<bool> {
        let may_have_begun = self.from.earliest() <= time;
        let may_go_on = self.until.is_none_or(|until| time < until.at);
        let has_begun = self.from.at <= time;
        let goes_on = self.until.is_none_or(|until| time < until.earliest());
        (may_have_begun && may_go_on).then_some(has_begun && goes_on)
    }
}

/// What the history says to a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PastTenures {
    /// From when on all changes were seen, but for gaps; `None`: there are no records.
    pub since: Option<Timestamp>,
    /// Until when.
    pub until: Option<Timestamp>,
    /// The times between in which no changes were seen.
    pub gaps: Vec<(Timestamp, Timestamp)>,
    /// What fits, in order of time.
    pub tenures: Vec<Tenure>,
}

impl PastTenures {
    /// Whether all changes around `time` were seen.
    pub fn is_known(&self, time: Timestamp) -> bool {
        let is_in = |(after, at): &(Timestamp, Timestamp)| *after < time && time < *at;
        let is_between = self.since.is_some_and(|since| since <= time)
            && self.until.is_some_and(|until| time <= until);
        is_between && !self.gaps.iter().any(is_in)
    }
}

/// Answers a question from all records, in the order in which they were written. The same record
/// may stand there twice: a file begins with what was so at the end of the one before.
pub fn answer(wanted: &HistoryQuestion, records: impl IntoIterator<Item = Record>) -> PastTenures {
    let (mut answer, mut open) = (PastTenures::default(), BTreeMap::<IpAddr, Tenure>::new());
    for record in records {
        let moment = record.moment();
        let Some(address) = record.address else {
            // A file's first record is one of life: what was so then may be much older.
            answer.since.get_or_insert(moment.at);
            answer.gaps.extend(moment.after.map(|after| (after, moment.at)));
            answer.until = answer.until.max(Some(moment.at));
            continue;
        };
        answer.until = answer.until.max(Some(moment.at));
        if matches!(wanted, HistoryQuestion::Address(wanted) if *wanted != address) {
            continue;
        }
        if open.get(&address).map(|tenure| &tenure.holder) == record.holder.as_ref() {
            continue;
        }
        if let Some(mut tenure) = open.remove(&address) {
            tenure.until = Some(moment);
            answer.tenures.push(tenure);
        }
        let is_wanted = |holder: &PastHolder| match wanted {
            HistoryQuestion::Address(_) => true,
            HistoryQuestion::Container(name) => holder.is_called(name),
        };
        if let Some(holder) = record.holder.filter(is_wanted) {
            open.insert(address, Tenure { address, holder, from: moment, until: None });
        }
    }
    answer.tenures.extend(open.into_values());
    answer.tenures.sort_by_key(|tenure| (tenure.from.at, tenure.address));
    answer
}
