//! The one transaction runner: read, decide, commit, and again after a conflict.

use super::{Datastore, Error, Outcome, Revision, Transaction};

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

/// What a decision may need to know about the attempts before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    /// How many attempts there were before.
    pub number: u32,
    /// Whether the answer to an earlier commit was lost. That commit may have taken
    /// effect: what the decision finds done may be its own work.
    pub lost: bool,
}

/// Others changed the same keys again and again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "others changed {} faster than it could be read: gave up after {attempts} attempts; try \
     again, and if that does not help see whether it is sound: weirctl ipam check",
    if keys.is_empty() { "the same data".to_owned() } else { keys.join(", ") }
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

/// Commits one transaction. `decide` reads what the decision rests on, and makes it.
///
/// After a conflict `decide` is called again, at most [`MAX_ATTEMPTS`] times. A commit
/// whose answer is lost ([`Error::Unavailable`]) may have taken effect, now or later:
/// it too is read and decided again, at most three times, and [`Attempt::lost`] says so.
/// Therefore the transaction must compare a key that it writes.
///
/// # Errors
/// Those of `decide`; [`Contended`]; [`Error`] of a commit.
pub async fn transact<T, E, Deciding>(
    datastore: &dyn Datastore,
    decide: impl FnMut(Attempt) -> Deciding,
) -> Result<T, E>
where
    E: From<Error> + From<Contended>,
    Deciding: Future<Output = Result<Decision<T>, E>>,
{
    Ok(transact_at(datastore, decide).await?.0)
}

/// As [`transact`], with the revision of the commit, if there was one that was answered.
///
/// # Errors
/// As [`transact`].
pub async fn transact_at<T, E, Deciding>(
    datastore: &dyn Datastore,
    mut decide: impl FnMut(Attempt) -> Deciding,
) -> Result<(T, Option<Revision>), E>
where
    E: From<Error> + From<Contended>,
    Deciding: Future<Output = Result<Decision<T>, E>>,
{
    let (mut lost, mut keys) = (0, Vec::new());
    for number in 0..MAX_ATTEMPTS {
        match decide(Attempt { number, lost: lost > 0 }).await? {
            Decision::Done(result) => return Ok((result, None)),
            Decision::Again => {}
            Decision::Commit(transaction, result) => {
                keys = transaction.keys();
                match datastore.commit(transaction).await {
                    Ok(Outcome::Committed(revision)) => return Ok((result, Some(revision))),
                    Ok(Outcome::Conflict) => {}
                    Err(Error::Unavailable { .. }) if lost < MAX_LOST_ANSWERS => lost += 1,
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Err(Contended::new(keys).into())
}
