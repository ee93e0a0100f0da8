//! Giving a node another name.
//!
//! Everything that hangs on the name is moved, in many transactions, each of which leaves
//! blocks, affinities and handles in agreement. The first one leaves a marker and makes the
//! Node under its new name; the last one removes the marker and the old Node. So other
//! nodes keep their routes meanwhile, and the same command finishes a rename that was cut
//! off.

use serde::Deserialize;
use serde_json::json;
use weir_common::datastore::{
    Attempts, Datastore, Decision, Entry, Pages, Selection, Transaction, Write, keys, transact,
};
use weir_common::ipam::release::count_again;
use weir_common::ipam::{
    ATTRIBUTE_NODE, Attribute, Block, Guarded, Handle, Stored, affinity_of_host, read_block,
};
use weir_common::node::TUNNEL_HANDLES;
use weir_common::resources::{Kind, Resource};
use weir_common::{printable, shell_word};

use super::error::StoreError;

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
        transact(self.datastore, |_| self.decide_to_begin(selections.clone())).await
    }

    async fn decide_to_begin(
        &self,
        selections: Vec<Selection>,
    ) -> Result<Decision<bool>, StoreError> {
        let (old, new) = (self.old, self.new);
        let guarded = Guarded::read(self.datastore, selections).await?;
        if self.goes_on(guarded.entries(4))? {
            return Ok(Decision::Done(true));
        }
        self.check(&guarded.selected)?;
        let mut transaction = guarded.transaction();
        transaction.create(keys::rename(old), json!({"to": new}).to_string().into_bytes());
        let [node, machine] = [0, 1].map(|index| guarded.entry(index));
        for entry in [node, machine].into_iter().flatten() {
            transaction.unchanged(entry.key.clone(), entry.revision);
        }
        if let Some(node) = node {
            transaction.create(keys::node(new), renamed_node(node, new)?);
        }
        if let Some(machine) = machine.filter(|_| guarded.entry(3).is_none()) {
            transaction.create(keys::machine(new), machine.value.clone());
        }
        transaction.none_newer(keys::affinities_of(new), guarded.revision);
        Ok(Decision::Commit(transaction, false))
    }

    /// Whether the marker of this very rename is there.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when one of the names is in another rename;
    /// [`StoreError::Unreadable`].
    fn goes_on(&self, markers: &[Entry]) -> Result<bool, StoreError> {
        for entry in markers {
            let parse = |value: &[u8]| serde_json::from_slice::<Marker>(value);
            let marker = Stored::read(entry, parse)?.value;
            let (from, to) = (&entry.key[keys::RENAMES.len()..], marker.to.as_str());
            if (from, to) == (self.old, self.new) {
                return Ok(true);
            }
            if [from, to].iter().any(|name| [self.old, self.new].contains(name)) {
                return Err(StoreError::Refused(format!(
                    "node {} is being renamed to {}; finish that first: weirctl node rename {} {}",
                    printable(from),
                    printable(to),
                    shell_word(from),
                    shell_word(to)
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
             node is gone for good, delete it first: weirctl delete node {0}; weirctl ipam \
             reclaim --gone-host {0}",
            shell_word(new)
        )))
    }

    /// Moves everything, and removes the marker in the end.
    ///
    /// # Errors
    /// As [`Rename::begin`]; the marker is still there then.
    pub async fn finish(&self) -> Result<Moved, StoreError> {
        let (mut moved, mut attempts) = (Moved::default(), Attempts::default());
        loop {
            attempts.begin()?;
            let is_moved = self.move_blocks(&mut attempts, &mut moved).await?;
            // Affinities without their block, and notes.
            for prefix in [keys::affinities_of, keys::full_of] {
                let (old, new) = (prefix(self.old), prefix(self.new));
                while self.move_keys(&mut attempts, &old, &new).await? {}
            }
            if is_moved && self.end(&mut attempts).await? {
                return Ok(moved);
            }
        }
    }

    /// Moves the blocks; answers whether all were, which those are not that another program
    /// changed meanwhile.
    async fn move_blocks(
        &self,
        attempts: &mut Attempts,
        moved: &mut Moved,
    ) -> Result<bool, StoreError> {
        let (mut pages, mut all) = (Pages::new(self.datastore, keys::BLOCKS), true);
        while let Some(page) = pages.next().await? {
            let named = |entry: &&Entry| keys::parse_block(&entry.key).is_some();
            for entry in page.entries.iter().filter(named) {
                let stored = read_block(entry)?;
                let Some((block, addresses)) = self.renamed(&stored.value) else { continue };
                let transaction = self.move_block(&stored, &block).await?;
                if attempts.commit(self.datastore, transaction).await? {
                    moved.blocks += usize::from(stored.value.host() == Some(self.old));
                    moved.addresses += addresses;
                } else {
                    all = false;
                }
            }
        }
        Ok(all)
    }

    /// Moves a block, with its affinity, its note and the handles of tunnels.
    async fn move_block(
        &self,
        stored: &Stored<Block>,
        block: &Block,
    ) -> Result<Transaction, StoreError> {
        let (old, new, cidr) = (self.old, self.new, block.cidr);
        let pairs = TUNNEL_HANDLES.map(|id| [format!("{id}{old}"), format!("{id}{new}")]);
        let pairs = pairs.iter().filter(|[id, _]| held(&stored.value, id) != held(block, id));
        let own = [keys::affinity(old, cidr), keys::full(old, cidr)];
        let handles = pairs.clone().flatten().map(|id| keys::handle(id));
        let selections: Vec<_> = own.into_iter().chain(handles).map(Selection::Key).collect();
        let guarded = Guarded::read(self.datastore, selections).await?;
        let mut transaction = guarded.transaction();
        transaction.update(keys::block(cidr), stored.revision, block.to_json());
        let is_own = stored.value.host() == Some(old);
        for (at, key) in [keys::affinity(new, cidr), keys::full(new, cidr)].into_iter().enumerate()
        {
            if let Some(entry) = guarded.entry(at).filter(|_| is_own) {
                move_key(entry, key, &mut transaction);
            }
        }
        for (at, pair) in pairs.enumerate() {
            let read = |at: usize| guarded.stored(at, Handle::from_json);
            move_handle(pair, [read(2 + 2 * at)?, read(3 + 2 * at)?], block, &mut transaction);
        }
        Ok(transaction)
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
    async fn move_keys(
        &self,
        attempts: &mut Attempts,
        old: &str,
        new: &str,
    ) -> Result<bool, StoreError> {
        let guarded = Guarded::read(self.datastore, [Selection::Prefix(old.to_owned())]).await?;
        let mut transaction = guarded.transaction();
        for entry in guarded.entries(0).iter().take(KEYS_AT_ONCE) {
            let key = format!("{new}{}", &entry.key[old.len()..]);
            move_key(entry, key, &mut transaction);
        }
        if transaction.writes.is_empty() {
            return Ok(false);
        }
        // What another program changed meanwhile is read again.
        attempts.commit(self.datastore, transaction).await?;
        Ok(true)
    }

    /// Removes the marker and what else has the old name, if the node got no further block.
    async fn end(&self, attempts: &mut Attempts) -> Result<bool, StoreError> {
        let keys = [keys::rename(self.old), keys::node(self.old), keys::machine(self.old)];
        let prefix = keys::affinities_of(self.old);
        let mut selections = keys.map(Selection::Key).to_vec();
        selections.push(Selection::Prefix(prefix.clone()));
        let guarded = Guarded::read(self.datastore, selections).await?;
        if guarded.entry(3).is_some() {
            return Ok(false);
        }
        let mut transaction = guarded.transaction();
        for entry in guarded.selected.iter().flatten() {
            transaction.delete(entry.key.clone(), entry.revision);
        }
        transaction.none_newer(prefix, guarded.revision);
        Ok(attempts.commit(self.datastore, transaction).await?)
    }
}

/// How many addresses of a block a handle has.
fn held(block: &Block, id: &str) -> u64 {
    block.held_by(|holder| holder.is_of(id)).len() as u64
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
    transaction.put(keys::handle(new), there.map(|it| it.revision), handle.to_json());
}

/// Moves what is under a key to another one.
fn move_key(entry: &Entry, key: String, transaction: &mut Transaction) {
    transaction.delete(entry.key.clone(), entry.revision);
    transaction.writes.push(Write::Put { key, value: entry.value.clone() });
}

/// What to store for a node under its new name.
fn renamed_node(entry: &Entry, name: &str) -> Result<Vec<u8>, StoreError> {
    let parse = |value: &[u8]| Resource::from_stored(Kind::Node, value);
    Ok(Stored::read(entry, parse)?.value.renamed(name).to_stored(None)?)
}
