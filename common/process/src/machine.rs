//! The identity of this machine.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use nix::sys::statfs::{FsType, TMPFS_MAGIC, fstatfs};
use weir_common::ipam::MachineId;

/// An identity that an administrator gave this machine. It goes before all others.
const GIVEN: &str = "/var/lib/weir/machine";
/// The identity that the system made at its installation (machine-id(5)).
const INSTALLED: &str = "/etc/machine-id";
/// The identity that the hardware or the hypervisor has.
const HARDWARE: &str = "/sys/class/dmi/id/product_uuid";

/// What stands in `/etc/machine-id` before the first boot (machine-id(5)).
const UNINITIALIZED: &str = "uninitialized";

/// The file system of a machine without swap in place of tmpfs (`linux/magic.h`).
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// The longest text that is taken for an identity, in bytes.
const MAX_LENGTH: u64 = 128;

/// The identity of this machine, which stays the same over reboots: what an
/// administrator wrote into `/var/lib/weir/machine`, else `/etc/machine-id` if it is
/// kept over reboots, else the hardware's UUID. `None` where there is none of them.
pub fn machine_id() -> Option<MachineId> {
    find(Path::new(GIVEN), Path::new(INSTALLED), Path::new(HARDWARE))
}

fn find(given: &Path, installed: &Path, hardware: &Path) -> Option<MachineId> {
    let text =
        read(given, false).or_else(|| read(installed, true)).or_else(|| read(hardware, false));
    text.map(|text| MachineId::from_source(&text))
}

/// The identity in a file. `persistent` passes over a file in memory, which the system
/// makes where it cannot keep one: it is another one after each boot.
fn read(path: &Path, persistent: bool) -> Option<String> {
    let file = File::open(path).ok()?;
    if persistent && is_in_memory(fstatfs(&file).ok()?.filesystem_type()) {
        return None;
    }
    let mut text = String::new();
    file.take(MAX_LENGTH).read_to_string(&mut text).ok()?;
    let text = text.trim();
    (!text.is_empty() && text != UNINITIALIZED).then(|| text.to_owned())
}

fn is_in_memory(kind: FsType) -> bool {
    kind == TMPFS_MAGIC || kind == RAMFS_MAGIC
}

#[cfg(test)]
mod tests {
    use std::fs::write;

    use super::*;

    #[test]
    fn the_first_source_that_says_something_counts() {
        let directory = tempfile::tempdir().unwrap();
        let [given, installed, hardware] =
            ["machine", "machine-id", "product_uuid"].map(|name| directory.path().join(name));
        let found = || find(&given, &installed, &hardware);
        assert_eq!(found(), None);
        write(&hardware, "4C4C4544\n").unwrap();
        assert_eq!(found(), Some(MachineId::from_source("4c4c4544")));
        for nothing in ["", "\n", "uninitialized\n"] {
            write(&installed, nothing).unwrap();
            assert_eq!(found(), Some(MachineId::from_source("4c4c4544")), "{nothing:?}");
        }
        if read(&installed, false).is_none() && !is_in_memory(kind_of(&installed)) {
            write(&installed, "0123abcd\n").unwrap();
            assert_eq!(found(), Some(MachineId::from_source("0123abcd")));
        }
        write(&given, "rack-7\n").unwrap();
        assert_eq!(found(), Some(MachineId::from_source("rack-7")));
    }

    #[test]
    fn an_identity_in_memory_does_not_last() {
        let in_memory = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        write(in_memory.path(), "0123abcd\n").unwrap();
        assert_eq!(read(in_memory.path(), false).as_deref(), Some("0123abcd"));
        assert_eq!(read(in_memory.path(), true), None);
    }

    fn kind_of(path: &Path) -> FsType {
        fstatfs(File::open(path).unwrap()).unwrap().filesystem_type()
    }
}
