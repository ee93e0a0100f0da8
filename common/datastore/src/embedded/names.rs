//! What is beside the database, and the random numbers that tell things apart.

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};

/// A random number that is not negative.
pub(super) fn random() -> i64 {
    (RandomState::new().build_hasher().finish() >> 1).cast_signed()
}

/// What begins with the database's name, beside it.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
