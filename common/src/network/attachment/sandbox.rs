//! The sandbox that a container is in whose interfaces have an identity each, as Docker's have:
//! its endpoints are told apart by their own ids. Like the prefixes that a container may send
//! from, it is another name of the host end. The kernel finds a link by its other names, too, so
//! that asking for the interface of a sandbox in a network is one look-up.

/// What the interfaces of one container have in common, and no two containers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContainerKey<'a> {
    /// The container id that the runtime gave all of them.
    Id(&'a str),
    /// The sandbox that they were moved into.
    Sandbox(&'a str),
}

/// Where a container's interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The sandbox: ASCII letters and digits, at most [`LONGEST_SANDBOX`].
    pub id: String,
    /// The network that it is in by this interface: likewise, at most 64.
    pub network: String,
}

/// The longest id of a sandbox: with it the name is shorter than the kernel's names can be
/// (`ALTIFNAMSIZ`, 128).
pub const LONGEST_SANDBOX: usize = 40;

/// What the names begin with.
const PREFIX: &str = "weir-in-";

impl Sandbox {
    /// The name of a host end that records it.
    pub fn name(&self) -> String {
        format!("{PREFIX}{}-{}", self.id, self.network)
    }

    /// What a name of a host end records, if it records a sandbox.
    pub fn of_name(name: &str) -> Option<Self> {
        let (id, network) = name.strip_prefix(PREFIX)?.split_once('-')?;
        Some(Self { id: id.to_owned(), network: network.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::allowed_source::{allowed_source_name, allowed_source_of};
    use super::*;

    #[test]
    fn a_name_records_a_sandbox_and_no_other_name_does() {
        let host = "weir84bd87e317f";
        let (id, network) = ("f".repeat(LONGEST_SANDBOX), "a".repeat(64));
        let sandbox = Sandbox { id, network };
        let name = sandbox.name();
        assert!(name.len() < 128, "{name}");
        assert_eq!(Sandbox::of_name(&name), Some(sandbox));
        assert_eq!(allowed_source_of(host, &name), None);
        let prefix = allowed_source_name(host, "10.0.0.0/8".parse().unwrap());
        for name in [host, "web", &prefix, "weir-in-ffd6d385fc62"] {
            assert_eq!(Sandbox::of_name(name), None, "{name}");
        }
    }
}
