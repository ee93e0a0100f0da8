//! The prefixes that a container may send from besides its addresses. They are other names
//! of its host end, which the kernel lists with the link, keeps while it is down, and drops
//! with it.

use ipnet::IpNet;

/// The name of `host` that records a prefix. An interface's name holds neither `/` nor `:`
/// (the kernel's `dev_valid_name`).
pub fn allowed_source_name(host: &str, prefix: IpNet) -> String {
    let prefix = prefix.to_string().replace('/', "_").replace(':', "-");
    format!("{host}-from-{prefix}")
}

/// The prefix that a name of `host` records, if it records one.
pub fn allowed_source_of(host: &str, name: &str) -> Option<IpNet> {
    let prefix = name.strip_prefix(host)?.strip_prefix("-from-")?;
    prefix.replace('_', "/").replace('-', ":").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_records_a_prefix_and_no_other_name_does() {
        let host = "weir84bd87e317f";
        let longest = "2001:db8:ffff:ffff:ffff:ffff:ffff:fffe/128";
        for text in ["10.9.0.0/24", "0.0.0.0/0", "::/0", "fd00::1/128", longest] {
            let prefix = text.parse().unwrap();
            let name = allowed_source_name(host, prefix);
            assert!(name.len() < 128 && !name.contains(['/', ':', ' ']), "{name}");
            assert_eq!(allowed_source_of(host, &name), Some(prefix), "{name}");
            assert_eq!(allowed_source_of("weir84bd87e317e", &name), None);
        }
        for name in [host, "web", "weir84bd87e317f-from-", "weir84bd87e317f-from-10.0.0.7"] {
            assert_eq!(allowed_source_of(host, name), None, "{name}");
        }
    }
}
