//! The one transaction runner: read, decide, commit, and again after a conflict.

use super::error::Error;
use super::transaction::{Outcome, Transaction, Write};
use super::{Datastore, Selection};
use crate::printable::printable;

/// How often a decision is made before the runner gives up (Calico's number,
/// `libcalico-go/lib/ipam/ipam.go`, datastoreRetries).
pub const MAX_ATTEMPTS: u32 = 100;

/// How many lost answers to commits one call survives.
const MAX_LOST_ANSWERS: u32 = 3;

/// What is to be done after a decision.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision<T> {
    /// Nothing to commit: this is the result.
    Done(T),
    /// Commit this transaction; then this is the result.
    Commit(Transaction, T),
    /// Something changed while it was read: start over.
    Again,
}

/// Others changed the same keys again and again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "others changed {} faster than it could be read: gave up after {attempts} attempts; try \
     again, and if that does not help see whether it is sound: weirctl ipam check",
    if keys.is_empty() { "the same data".to_owned() } else { printable(&keys.join(", ")).into_owned() }
)]
pub struct Contended {
    /// The keys of the transaction.
    pub keys: Vec<String>,
    /// How often it was tried.
    pub attempts: u32,
}

impl Contended {
    /// A transaction that changes these keys was given up.
    pub fn new(keys: Vec<String>) -> Self {
        Self { keys, attempts: MAX_ATTEMPTS }
    }
}

/// Commits one transaction. `decide` reads what the decision rests on, and makes it; it
/// gets the number of attempts before.
///
/// After a conflict `decide` is called again, at most [`MAX_ATTEMPTS`] times. A commit
/// whose answer is lost ([`Error::Unavailable`]) may have taken effect, now or later: if
/// the store holds what it wrote, it is done; else it is decided again, at most three
/// times. Therefore the transaction must compare a key that it writes.
///
/// # Errors
/// Those of `decide`; [`Contended`]; [`Error`] of a commit.
pub async fn transact<T, E, Deciding>(
    datastore: &dyn Datastore,
    mut decide: impl FnMut(u32) -> Deciding,
) -> Result<T, E>
where
    E: From<Error> + From<Contended>,
    Deciding: Future<Output = Result<Decision<T>, E>>,
{
    let mut attempts = Attempts::default();
    loop {
        match decide(attempts.begin()?).await? {
            Decision::Done(result) => return Ok(result),
            Decision::Again => {}
            Decision::Commit(transaction, result) => {
                if attempts.commit(datastore, transaction).await? {
                    return Ok(result);
                }
            }
        }
    }
}

/// The runner's rules, for work that takes several transactions: begin, read and commit,
/// and begin again where a commit did not go through.
#[derive(Debug, Default)]
pub struct Attempts {
    begun: u32,
    lost: u32,
    /// What the last transaction was to change.
    keys: Vec<String>,
}

impl Attempts {
    /// Begins an attempt. Answers how many there were before.
    ///
    /// # Errors
    /// [`Contended`] after [`MAX_ATTEMPTS`].
    pub fn begin(&mut self) -> Result<u32, Contended> {
        if self.begun == MAX_ATTEMPTS {
            return Err(Contended::new(std::mem::take(&mut self.keys)));
        }
        self.begun += 1;
        Ok(self.begun - 1)
    }

    /// Commits; answers whether it took effect. If not, read and decide again.
    ///
    /// # Errors
    /// [`Error`]: [`Error::Unavailable`] after more than three lost answers, or when the store
    /// cannot be read after one.
    pub async fn commit(
        &mut self,
        datastore: &dyn Datastore,
        transaction: Transaction,
    ) -> Result<bool, Error> {
        self.keys = transaction.keys();
        match datastore.commit(transaction.clone()).await {
            Ok(outcome) => Ok(outcome != Outcome::Conflict),
            Err(Error::Unavailable { .. }) if self.lost < MAX_LOST_ANSWERS => {
                self.lost += 1;
                has_taken_effect(datastore, &transaction).await
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether the store holds what a transaction writes.
async fn has_taken_effect(
    datastore: &dyn Datastore,
    transaction: &Transaction,
) -> Result<bool, Error> {
    let selections: Vec<Selection> =
        transaction.writes.iter().map(|write| Selection::Key(write.key().to_owned())).collect();
    let snapshot = datastore.read(&selections).await?;
    let mut written = transaction.writes.iter().enumerate();
    Ok(written.all(|(index, write)| match (write, snapshot.entry(index)) {
        (Write::Put { value, .. }, Some(entry)) => entry.value == *value,
        (Write::Delete { .. }, found) => found.is_none(),
        (Write::Put { .. }, None) => false,
    }))
}
