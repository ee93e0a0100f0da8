//! Taking over what another machine has under a node's name: for a machine that was
//! installed again, or takes the place of another.
//!
//! The name's record goes first: from then on the other machine knows of the clash, and
//! allocations that name no machine are this one's. Each block follows in a transaction of
//! its own, so that a takeover that was cut off is finished by another one.

use ipnet::IpNet;

use super::block::{ATTRIBUTE_MACHINE, ATTRIBUTE_NODE};
use super::block::{Attribute, Block};
use super::error::Error;
use super::knowledge::read_block;
use super::machine::MachineId;
use super::ownership::MachineRecord;
use super::ready::Guarded;
use crate::datastore::{Contended, Datastore, Decision, Pages, Selection, keys, transact};

/// What became of a takeover.
#[derive(Debug, Default)]
pub struct Adopted {
    /// The machine that had the name before; `None` where there was none.
    pub before: Option<MachineId>,
    /// How many addresses were another machine's.
    pub addresses: usize,
    /// What could not be done; the rest was.
    pub errors: Vec<Error>,
}

/// Makes `node`, and all that other machines have under that name, the machine's `own`.
/// When and under which boot an allocation was made stays as it is recorded, so that what
/// died with the other machine can be told.
///
/// # Errors
/// [`Error::NotReady`], [`Error::Contended`], [`Error::Datastore`]; what was done until
/// then stays done.
pub async fn adopt(
    datastore: &dyn Datastore,
    node: &str,
    own: &MachineId,
) -> Result<Adopted, Error> {
    let before = transact(datastore, |_| take_name(datastore, node, own)).await?;
    let mut adopted = Adopted { before, ..Adopted::default() };
    let mut pages = Pages::new(datastore, keys::BLOCKS);
    while let Some(page) = pages.next().await? {
        for entry in &page.entries {
            let Some(cidr) = keys::parse_block(&entry.key) else { continue };
            let outcome = match read_block(entry) {
                Ok(block) if rewritten(&block.value, node, own).1 == 0 => continue,
                Ok(_) => transact(datastore, |_| adopt_block(datastore, node, own, cidr)).await,
                Err(error) => Err(error.into()),
            };
            match outcome {
                Ok(addresses) => adopted.addresses += addresses,
                Err(error @ Error::Malformed { .. }) => adopted.errors.push(error),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(adopted)
}

/// Records a node's name for this machine, whichever had it, and answers which that was.
/// A record that cannot be read is replaced.
async fn take_name(
    datastore: &dyn Datastore,
    node: &str,
    own: &MachineId,
) -> Result<Decision<Option<MachineId>>, Error> {
    let key = keys::machine(node);
    let guarded = Guarded::read(datastore, [Selection::Key(key.clone())]).await?;
    let stored = guarded.stored(0, MachineRecord::from_json).ok().flatten();
    let before = stored.as_ref().map(|record| record.value.machine.clone());
    if before.as_ref() == Some(own) {
        return Ok(Decision::Done(before));
    }
    let record = match stored {
        Some(stored) => MachineRecord { machine: own.clone(), ..stored.value },
        None => MachineRecord::new(own.clone()),
    };
    let mut transaction = guarded.transaction();
    transaction.put(key, guarded.entry(0).map(|entry| entry.revision), record.to_json());
    Ok(Decision::Commit(transaction, before))
}

/// Takes over what is in one block, and answers how many addresses these were.
async fn adopt_block(
    datastore: &dyn Datastore,
    node: &str,
    own: &MachineId,
    cidr: IpNet,
) -> Result<Decision<usize>, Error> {
    let (key, name) = (keys::block(cidr), keys::machine(node));
    let selections = [name.clone(), key.clone()].map(Selection::Key);
    let guarded = Guarded::read(datastore, selections).await?;
    // Another machine may take the name over at the same time: the last one wins.
    let record = guarded.stored(0, MachineRecord::from_json)?;
    let Some(record) = record.filter(|record| record.value.machine == *own) else {
        return Err(Contended::new(vec![name]).into());
    };
    let Some(entry) = guarded.entry(1) else { return Ok(Decision::Done(0)) };
    let (block, addresses) = rewritten(&read_block(entry)?.value, node, own);
    if addresses == 0 {
        return Ok(Decision::Done(0));
    }
    let mut transaction = guarded.transaction();
    transaction.update(key, entry.revision, block.to_json());
    transaction.unchanged(name, record.revision);
    Ok(Decision::Commit(transaction, addresses))
}

/// The block with all that `node` has on other machines made its own, and how many
/// addresses these are.
fn rewritten(block: &Block, node: &str, own: &MachineId) -> (Block, usize) {
    let is_others = |holder: &Attribute| {
        holder.fact(ATTRIBUTE_NODE) == Some(node)
            && holder.fact(ATTRIBUTE_MACHINE).is_some_and(|machine| machine != own.as_str())
    };
    let addresses = block.held_by(is_others).len();
    let mut block = block.clone();
    for holder in block.attributes.iter_mut().filter(|holder| is_others(holder)) {
        let facts = holder.secondary.get_or_insert_default();
        facts.insert(ATTRIBUTE_MACHINE.to_owned(), own.to_string());
    }
    block.advance();
    (block, addresses)
}
