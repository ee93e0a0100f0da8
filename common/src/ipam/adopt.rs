//! Taking over what another machine has under a node's name: for a machine that was
//! installed again, or takes the place of another.
//!
//! The name's record goes first: from then on the other machine knows of the clash, and
//! allocations that name no machine are this one's. Each block follows in a transaction of
//! its own, so that a takeover that was cut off is finished by another one.

use ipnet::IpNet;

use super::block::{ATTRIBUTE_MACHINE, ATTRIBUTE_NODE};
use super::knowledge::{first, read_block};
use super::{Attribute, Block, Error, MachineId, MachineRecord, ReadyFlag};
use crate::datastore::MAX_ATTEMPTS;
use crate::datastore::{Datastore, Outcome, Paging, Selection, Transaction, keys};

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
    let mut adopted =
        Adopted { before: take_name(datastore, node, own).await?, ..Adopted::default() };
    let (mut after, mut paging) = (None::<String>, Paging::default());
    loop {
        let page = datastore.list(keys::BLOCKS, after.as_deref(), paging.limit()).await?;
        paging.learn(&page);
        for entry in &page.entries {
            let Some(cidr) = keys::parse_block(&entry.key) else { continue };
            let block = read_block(cidr, entry).map_err(Error::from);
            let is_concerned = |block: &Block| rewritten(block, node, own).1 > 0;
            let outcome = match block.map(|block| is_concerned(&block.value)) {
                Ok(true) => adopt_block(datastore, node, own, cidr).await,
                Ok(false) => continue,
                Err(error) => Err(error),
            };
            match outcome {
                Ok(addresses) => adopted.addresses += addresses,
                Err(error @ Error::Malformed { .. }) => adopted.errors.push(error),
                Err(error) => return Err(error),
            }
        }
        match page.next {
            None => return Ok(adopted),
            next => after = next,
        }
    }
}

/// Records a node's name for this machine, whoever had it, and answers who that was. A
/// record that cannot be read is replaced.
async fn take_name(
    datastore: &dyn Datastore,
    node: &str,
    own: &MachineId,
) -> Result<Option<MachineId>, Error> {
    let key = keys::machine(node);
    let selections = [ReadyFlag::selection(), Selection::Key(key.clone())];
    for _ in 0..MAX_ATTEMPTS {
        let snapshot = datastore.read(&selections).await?;
        let ready = ReadyFlag::parse(first(&snapshot, 0))?;
        ready.require()?;
        let entry = first(&snapshot, 1);
        let stored = entry.and_then(|entry| MachineRecord::from_json(&entry.value).ok());
        let before = stored.as_ref().map(|record| record.machine.clone());
        if before.as_ref() == Some(own) {
            return Ok(before);
        }
        let new = || MachineRecord::new(own.clone());
        let record = MachineRecord { machine: own.clone(), ..stored.unwrap_or_else(new) };
        let mut transaction = Transaction::default();
        match entry {
            None => transaction.create(key.clone(), record.to_json()),
            Some(entry) => transaction.update(key.clone(), entry.revision, record.to_json()),
        };
        ready.guard(&mut transaction);
        if let Outcome::Committed(_) = datastore.commit(transaction).await? {
            return Ok(before);
        }
    }
    Err(crate::datastore::Contended::new(vec![key]).into())
}

/// Takes over what is in one block, and answers how many addresses these were.
async fn adopt_block(
    datastore: &dyn Datastore,
    node: &str,
    own: &MachineId,
    cidr: IpNet,
) -> Result<usize, Error> {
    let (key, name) = (keys::block(cidr), keys::machine(node));
    let selections =
        [ReadyFlag::selection(), Selection::Key(name.clone()), Selection::Key(key.clone())];
    for _ in 0..MAX_ATTEMPTS {
        let snapshot = datastore.read(&selections).await?;
        let ready = ReadyFlag::parse(first(&snapshot, 0))?;
        ready.require()?;
        // Another machine may take the name over at the same time: the last one wins.
        let record = MachineRecord::read(first(&snapshot, 1))?;
        let Some(record) = record.filter(|record| record.value.machine == *own) else {
            return Err(crate::datastore::Contended::new(vec![name]).into());
        };
        let Some(entry) = first(&snapshot, 2) else { return Ok(0) };
        let (block, addresses) = rewritten(&read_block(cidr, entry)?.value, node, own);
        if addresses == 0 {
            return Ok(0);
        }
        let mut transaction = Transaction::default();
        transaction.update(key.clone(), entry.revision, block.to_json());
        transaction.unchanged(name.clone(), record.revision);
        ready.guard(&mut transaction);
        if let Outcome::Committed(_) = datastore.commit(transaction).await? {
            return Ok(addresses);
        }
    }
    Err(crate::datastore::Contended::new(vec![key]).into())
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
