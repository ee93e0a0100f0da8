//! Commits that go wrong.

use proptest::prelude::*;
use weir_datastore::memory::CommitFault;

/// In two of five cases: one of the next two commits, and what becomes of it.
pub fn now_and_then_a_fault() -> impl Strategy<Value = Option<(u64, CommitFault)>> {
    let fault = prop_oneof![
        Just(CommitFault::Conflict),
        Just(CommitFault::Unavailable),
        Just(CommitFault::AnswerLost),
        Just(CommitFault::CrashBefore),
        Just(CommitFault::CrashAfter),
    ];
    prop::option::weighted(0.4, (1u64..3, fault))
}
