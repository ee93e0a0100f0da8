//! The file of IPAM's hints, beside IPAM's lock.

use std::path::{Path, PathBuf};

use weir_common::ipam::Hints;

use crate::boot::boot_id;
use crate::files;
use crate::lock::DEFAULT_LOCK_FILE;

/// The file that belongs to IPAM's default lock.
const DEFAULT_HINTS_FILE: &str = "/run/weir/ipam.json";

/// The hints file of one IPAM lock, which must be held.
#[derive(Debug)]
pub struct HintsFile {
    path: PathBuf,
    /// What is in it.
    left: Hints,
}

impl HintsFile {
    /// Reads the hints that belong to the lock at `lock`. What cannot be read is as good
    /// as nothing.
    pub fn read(lock: &Path) -> Self {
        let path = match lock == Path::new(DEFAULT_LOCK_FILE) {
            true => PathBuf::from(DEFAULT_HINTS_FILE),
            false => PathBuf::from(format!("{}.json", lock.display())),
        };
        let text = files::read(&path).unwrap_or_default();
        Self { left: Hints::read(&text, boot_id()), path }
    }

    /// What was left.
    pub fn hints(&self) -> Hints {
        self.left.clone()
    }

    /// Leaves hints to the next call. A failure is logged: without them the next call
    /// works as well, only slower.
    pub fn leave(&mut self, hints: &Hints) {
        if *hints == self.left {
            return;
        }
        match files::replace(&self.path, &hints.text()) {
            Ok(()) => self.left = hints.clone(),
            Err(error) => {
                let file = self.path.display();
                tracing::warn!(%file, %error, "no hints can be left to the next call");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_common::ipam::collect::CollectScope;

    use super::*;

    #[test]
    fn hints_are_left_to_the_next_call() {
        let directory = tempfile::tempdir().unwrap();
        let lock = directory.path().join("mine.lock");
        let mut file = HintsFile::read(&lock);
        let mut hints = file.hints();
        hints.note_swept("pods", CollectScope::OwnBlocks);
        file.leave(&hints);
        assert_eq!(HintsFile::read(&lock).hints(), hints);
        assert!(directory.path().join("mine.lock.json").exists());
    }
}
