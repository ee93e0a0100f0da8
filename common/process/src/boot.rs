//! The present boot of this machine.

use std::sync::OnceLock;

/// Where the kernel says it (`Documentation/admin-guide/sysctl/kernel.rst`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The longest id that is taken, in bytes; the kernel's has 36.
const MAX_LENGTH: usize = 64;

/// The id of the machine's present boot, another one after each; `None` where the
/// kernel does not tell. It is read once: no process outlives a boot.
pub fn boot_id() -> Option<&'static str> {
    static ID: OnceLock<Option<String>> = OnceLock::new();
    ID.get_or_init(read).as_deref()
}

fn read() -> Option<String> {
    let id = std::fs::read_to_string(BOOT_ID).ok()?;
    let id = id.trim();
    let is_id = !id.is_empty()
        && id.len() <= MAX_LENGTH
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_id.then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_the_same() {
        let id = boot_id().unwrap();
        assert_eq!(Some(id), boot_id());
        assert_eq!(Some(id), read().as_deref());
    }
}
