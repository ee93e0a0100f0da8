//! What the agent logs again and again: told at once, then counted (`repeats.rs`). What is logged
//! once a start or once a change of the node itself goes to `tracing` without this.

use std::mem::Discriminant;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tracing::Level;
use weir_common::audit::DamageKind;
use weir_common::network::Problem;

use super::repeats::Repeats;

/// Kinds of messages that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// A problem of that kind has come.
    Problem(Discriminant<Problem>),
    /// Something failed.
    Failure,
    /// The datastore is away.
    DatastoreLost,
    /// The datastore was read.
    DatastoreRead,
    /// The datastore gives no sign of life.
    Silent,
    /// It does again.
    Alive,
    /// The state file cannot be written.
    StateFile,
    /// The history of addresses cannot be written.
    History,
    /// Damage of that kind was found.
    Damage(DamageKind),
    /// Damage could not be looked for.
    NotAudited,
    /// The kernel was changed.
    Changes,
    /// What a container had lost was brought back.
    Repaired,
    /// It could not be.
    NotRepaired,
}

impl MessageKind {
    fn level(self) -> Level {
        match self {
            Self::Failure => Level::ERROR,
            Self::DatastoreRead | Self::Alive | Self::Changes => Level::INFO,
            Self::Problem(_)
            | Self::DatastoreLost
            | Self::Silent
            | Self::StateFile
            | Self::History
            | Self::Damage(_)
            | Self::NotAudited
            | Self::Repaired
            | Self::NotRepaired => Level::WARN,
        }
    }
}

/// One for the process, as the log is.
static REPEATS: LazyLock<Mutex<Repeats<MessageKind>>> = LazyLock::new(Mutex::default);

/// Logs this, unless there was enough of its kind.
pub fn tell(kind: MessageKind, message: &str) {
    let lines = repeats().tell(kind, message, Instant::now());
    lines.iter().for_each(|line| write(kind, line));
}

/// Logs the counts that are due.
pub fn tell_due() {
    let due = repeats().due(Instant::now());
    due.iter().for_each(|(kind, line)| write(*kind, line));
}

/// Logs all counts, before the process ends.
pub fn tell_rest() {
    let rest = repeats().rest();
    rest.iter().for_each(|(kind, line)| write(*kind, line));
}

fn repeats() -> MutexGuard<'static, Repeats<MessageKind>> {
    REPEATS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(kind: MessageKind, line: &str) {
    match kind.level() {
        Level::ERROR => tracing::error!("{line}"),
        Level::WARN => tracing::warn!("{line}"),
        _ => tracing::info!("{line}"),
    }
}
