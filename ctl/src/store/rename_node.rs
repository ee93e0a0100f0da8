//! Giving a node another name.
//!
//! Everything that hangs on the name is moved, in many transactions, each of which leaves
//! blocks, affinities and handles in agreement. The first one leaves a marker and makes the
//! Node under its new name; the last one removes the marker and the old Node. So other
//! nodes keep their routes meanwhile, and the same command finishes a rename that was cut
//! off.

use std::error::Error;

use serde::Deserialize;
use serde_json::json;
use weir_common::datastore::{
    Compare, Datastore, Entry, Outcome, Paging, Revision, Selection, Transaction, Write, keys,
};
use weir_common::ipam::release::count_again;
use weir_common::ipam::{ATTRIBUTE_NODE, Attribute, Block, Handle, Stored, affinity_of_host};
use weir_common::node::TUNNEL_HANDLES;
use weir_common::resources::{Kind, Resource};

use super::blocks::read_block;
use super::guard::Guard;
use super::release::read_handle;
use super::{ATTEMPTS, StoreError};

/// How many keys are moved in one transaction: each takes two writes and a comparison.
const KEYS_AT_ONCE: usize = 40;

/// A node that gets another name.
pub struct Rename<'a> {
    /// Where it is registered.
    pub datastore: &'a dyn Datastore,
    /// Its name.
    pub old: &'a str,
    /// The name that it gets.
    pub new: &'a str,
}

/// What was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Blocks of the node.
    pub blocks: usize,
    /// Addresses in use on the node, in whichever block; its tunnels' are among them.
    pub addresses: usize,
}

/// The value of the marker.
#[derive(Deserialize)]
struct Marker {
    to: String,
}

impl Rename<'_> {
    /// Checks that the node can have the name, and leaves the marker. Answers whether it
    /// was there, from a rename that was cut off.
    ///
    /// # Errors
    /// [`StoreError::Refused`]; [`StoreError::Locked`]; [`StoreError::Unreadable`];
    /// [`StoreError::Contended`]; [`StoreError::Datastore`].
    pub async fn begin(&self) -> Result<bool, StoreError> {
        let (old, new) = (self.old, self.new);
        let keys = [keys::node(old), keys::machine(old), keys::node(new), keys::machine(new)];
        let prefixes =
            [keys::RENAMES.to_owned(), keys::affinities_of(new), keys::affinities_of(old)];
        let selections = keys.into_iter().map(Selection::Key);
        let selections: Vec<_> = selections.chain(prefixes.map(Selection::Prefix)).collect();
        for _ in 0..ATTEMPTS {
            let guard = Guard::read(self.datastore, selections.clone()).await?;
            if self.goes_on(&guard.selected[4])? {
                return Ok(true);
            }
            self.check(&guard.selected)?;
            let mut transaction = guard.transaction();
            let marker = json!({"to": new}).to_string().into_bytes();
            transaction.create(keys::rename(old), marker);
            let [node, machine] = [0, 1].map(|index| guard.selected[index].first());
            for entry in [node, machine].into_iter().flatten() {
                transaction.unchanged(entry.key.clone(), entry.revision);
            }
            if let Some(node) = node {
                transaction.create(keys::node(new), renamed_node(node, new)?);
            }
            if let Some(machine) = machine.filter(|_| guard.selected[3].is_empty()) {
                transaction.create(keys::machine(new), machine.value.clone());
            }
            let (prefix, revision) = (keys::affinities_of(new), guard.revision);
            transaction.compares.push(Compare::NoneNewer { prefix, revision });
            if let Outcome::Committed(_) = self.datastore.commit(transaction).await? {
                return Ok(false);
            }
        }
        Err(self.contended())
    }

    /// Whether the marker of this very rename is there.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when one of the names is in another rename;
    /// [`StoreError::Unreadable`].
    fn goes_on(&self, markers: &[Entry]) -> Result<bool, StoreError> {
        for entry in markers {
            let marker: Marker =
                serde_json::from_slice(&entry.value).map_err(|cause| unreadable(entry, cause))?;
            let (from, to) = (&entry.key[keys::RENAMES.len()..], marker.to.as_str());
            if (from, to) == (self.old, self.new) {
                return Ok(true);
            }
            if [from, to].iter().any(|name| [self.old, self.new].contains(name)) {
                return Err(StoreError::Refused(format!(
                    "node {from} is being renamed to {to}; finish that first: \
                     weirctl node rename {from} {to}"
                )));
            }
        }
        Ok(false)
    }

    /// Refuses a node that is not known, and a name that is not free.
    fn check(&self, selected: &[Vec<Entry>]) -> Result<(), StoreError> {
        let (old, new) = (self.old, self.new);
        let there = |index: usize| selected[index].first();
        if [0, 1, 6].into_iter().all(|index| there(index).is_none()) {
            return Err(StoreError::Refused(format!(
                "node {old} is not known: it is not registered and has no block; list the nodes \
                 with: weirctl get nodes"
            )));
        }
        let machines = [1, 3].map(|index| there(index).map(|entry| &entry.value));
        let taken_by = if machines[1].is_some() && machines[0] != machines[1] {
            "another machine has that name"
        } else if there(2).is_some() {
            "a node of that name is registered"
        } else if there(5).is_some() {
            "a node of that name has blocks"
        } else {
            return Ok(());
        };
        Err(StoreError::Refused(format!(
            "node {old} cannot be renamed to {new}: {taken_by}; choose another name, or, if that \
             node is gone for good, delete it first: weirctl delete node {new}; weirctl ipam \
             reclaim --gone-host {new}"
        )))
    }

    /// Moves everything, and removes the marker in the end.
    ///
    /// # Errors
    /// As [`Rename::begin`]; the marker is still there then.
    pub async fn finish(&self) -> Result<Moved, StoreError> {
        let mut moved = Moved::default();
        for _ in 0..ATTEMPTS {
            let mut outcome = self.move_blocks(&mut moved).await?;
            // Affinities without their block, and notes.
            for prefix in [keys::affinities_of, keys::full_of] {
                while self.move_keys(prefix(self.old), &prefix(self.new)).await? {}
            }
            if let Outcome::Committed(_) = outcome {
                outcome = self.end().await?;
            }
            if let Outcome::Committed(_) = outcome {
                return Ok(moved);
            }
        }
        Err(self.contended())
    }

    /// Moves all blocks but those that somebody else changed meanwhile: then it is a conflict.
    async fn move_blocks(&self, moved: &mut Moved) -> Result<Outcome, StoreError> {
        let (mut after, mut paging) = (None, Paging::default());
        let mut outcome = Outcome::Committed(Revision::default());
        loop {
            let page = self.datastore.list(keys::BLOCKS, after.as_deref(), paging.limit()).await?;
            paging.learn(&page);
            let named = |entry: &Entry| keys::parse_block(&entry.key).is_some();
            for entry in page.entries.into_iter().filter(named) {
                let stored = read_block(entry)?;
                if let Some(changed) = self.renamed(&stored.value)
                    && self.move_block(&stored, changed, moved).await? == Outcome::Conflict
                {
                    outcome = Outcome::Conflict;
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(outcome);
            }
        }
    }

    /// Moves a block, with its affinity, its note and the handles of tunnels.
    async fn move_block(
        &self,
        stored: &Stored<Block>,
        (block, addresses): (Block, usize),
        moved: &mut Moved,
    ) -> Result<Outcome, StoreError> {
        let (old, new, cidr) = (self.old, self.new, block.cidr);
        let pairs = TUNNEL_HANDLES.map(|id| [format!("{id}{old}"), format!("{id}{new}")]);
        let pairs = pairs.iter().filter(|[id, _]| held(&stored.value, id) != held(&block, id));
        let own = [keys::affinity(old, cidr), keys::full(old, cidr)];
        let handles = pairs.clone().flatten().map(|id| keys::handle(id));
        let selections = own.into_iter().chain(handles).map(Selection::Key).collect();
        let mut guard = Guard::read(self.datastore, selections).await?;
        let mut transaction = guard.transaction();
        transaction.update(keys::block(cidr), stored.revision, block.to_json());
        let is_own = stored.value.host() == Some(old);
        for (at, key) in [keys::affinity(new, cidr), keys::full(new, cidr)].into_iter().enumerate()
        {
            if let Some(entry) = guard.take_one(at).filter(|_| is_own) {
                move_key(entry, key, &mut transaction);
            }
        }
        for (at, pair) in pairs.enumerate() {
            let mut read = |at: usize| guard.take_one(at).map(read_handle).transpose();
            let handles = [read(2 + 2 * at)?, read(3 + 2 * at)?];
            move_handle(pair, handles, &block, &mut transaction);
        }
        let outcome = self.datastore.commit(transaction).await?;
        if let Outcome::Committed(_) = outcome {
            moved.blocks += usize::from(is_own);
            moved.addresses += addresses;
        }
        Ok(outcome)
    }

    /// The block with the new name in the place of the old one, and how many of its
    /// addresses are the node's; `None` when the old name is not in it.
    fn renamed(&self, before: &Block) -> Option<(Block, usize)> {
        let mut block = before.clone();
        if before.host() == Some(self.old) {
            block.affinity = Some(affinity_of_host(self.new));
        }
        block.attributes =
            before.attributes.iter().map(|holder| self.renamed_holder(holder)).collect();
        let is_moved = |ordinal: &usize| before.holder(*ordinal) != block.holder(*ordinal);
        let addresses = (0..before.allocations.len()).filter(is_moved).count();
        (block != *before).then(|| {
            block.advance();
            (block, addresses)
        })
    }

    fn renamed_holder(&self, holder: &Attribute) -> Attribute {
        let mut renamed = holder.clone();
        if holder.fact(ATTRIBUTE_NODE) == Some(self.old) {
            let facts = renamed.secondary.get_or_insert_default();
            facts.insert(ATTRIBUTE_NODE.to_owned(), self.new.to_owned());
        }
        // A container's handle may read the same.
        if let Some(id) = holder.handle_id.as_deref().filter(|_| holder.interface().is_none()) {
            let tunnel = TUNNEL_HANDLES.iter().find(|it| id.strip_prefix(**it) == Some(self.old));
            renamed.handle_id =
                tunnel.map_or(Some(id.to_owned()), |it| Some(format!("{it}{}", self.new)));
        }
        renamed
    }

    /// Moves keys that begin with `old`, as many as one transaction takes. Answers whether
    /// there were any.
    async fn move_keys(&self, old: String, new: &str) -> Result<bool, StoreError> {
        let guard = Guard::read(self.datastore, vec![Selection::Prefix(old.clone())]).await?;
        let mut transaction = guard.transaction();
        for entry in guard.selected[0].iter().take(KEYS_AT_ONCE) {
            let key = format!("{new}{}", &entry.key[old.len()..]);
            move_key(entry.clone(), key, &mut transaction);
        }
        if transaction.writes.is_empty() {
            return Ok(false);
        }
        // What somebody else changed meanwhile is read again.
        self.datastore.commit(transaction).await?;
        Ok(true)
    }

    /// Removes the marker and what else has the old name, if the node got no further block.
    async fn end(&self) -> Result<Outcome, StoreError> {
        let keys = [keys::rename(self.old), keys::node(self.old), keys::machine(self.old)];
        let mut selections = keys.map(Selection::Key).to_vec();
        let prefix = keys::affinities_of(self.old);
        selections.push(Selection::Prefix(prefix.clone()));
        let guard = Guard::read(self.datastore, selections).await?;
        if !guard.selected[3].is_empty() {
            return Ok(Outcome::Conflict);
        }
        let mut transaction = guard.transaction();
        for entry in guard.selected.iter().flatten() {
            transaction.delete(entry.key.clone(), entry.revision);
        }
        transaction.compares.push(Compare::NoneNewer { prefix, revision: guard.revision });
        Ok(self.datastore.commit(transaction).await?)
    }

    fn contended(&self) -> StoreError {
        let name = self.old.to_owned();
        StoreError::Contended { kind: Kind::Node, name, attempts: ATTEMPTS }
    }
}

/// How many addresses of a block a handle has.
fn held(block: &Block, id: &str) -> u64 {
    block.held_by(|holder| holder.handle_id.as_deref() == Some(id)).len() as u64
}

/// Moves what a handle has in this block to another handle, which may be there already.
fn move_handle(
    [old, new]: &[String; 2],
    [before, there]: [Option<Stored<Handle>>; 2],
    block: &Block,
    transaction: &mut Transaction,
) {
    count_again(old, before.as_ref(), block, transaction);
    let mut handle = there.as_ref().or(before.as_ref()).map(|it| it.value.clone());
    let handle = handle.get_or_insert_default();
    if there.is_none() {
        handle.block.clear();
    }
    handle.set(block.cidr, held(block, new));
    match there {
        Some(it) => transaction.update(keys::handle(new), it.revision, handle.to_json()),
        None => transaction.create(keys::handle(new), handle.to_json()),
    };
}

/// Moves what is under a key to another one.
fn move_key(entry: Entry, key: String, transaction: &mut Transaction) {
    transaction.delete(entry.key, entry.revision);
    transaction.writes.push(Write::Put { key, value: entry.value });
}

/// What to store for a node under its new name.
fn renamed_node(entry: &Entry, name: &str) -> Result<Vec<u8>, StoreError> {
    let node = Resource::from_stored(Kind::Node, &entry.value);
    Ok(node.map_err(|cause| unreadable(entry, cause))?.renamed(name).to_stored(None)?)
}

fn unreadable(entry: &Entry, cause: impl Error + Send + Sync + 'static) -> StoreError {
    StoreError::Unreadable { key: entry.key.clone(), cause: Box::new(cause) }
}
