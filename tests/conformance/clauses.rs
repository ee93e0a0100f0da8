//! The clauses of the contract, in a few words each, and the end-to-end tests
//! that go deeper into one of them for Weir.

/// A clause.
pub struct Clause {
    /// Its name: P for both plugins, M for the main and I for the IPAM plugin.
    pub name: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// Tests in `tests/tests` that go deeper.
    pub deeper: &'static [&'static str],
}

const fn clause(
    name: &'static str,
    about: &'static str,
    deeper: &'static [&'static str],
) -> Clause {
    Clause { name, about, deeper }
}

/// All clauses.
pub const CLAUSES: [Clause; 31] = [
    clause("P1", "unknown and missing command", &["bad_input"]),
    clause("P2", "required variables", &["bad_input"]),
    clause("P3", "names", &["bad_input"]),
    clause("P4", "standard input and cniVersion", &["bad_input"]),
    clause("P5", "commands and the versions they exist in", &[]),
    clause("P6", "VERSION", &[]),
    clause("P7", "what is on standard output", &["bad_input"]),
    clause("P8", "error codes", &["bad_input", "failover", "gc", "status"]),
    clause("P9", "the form of results", &["attachment"]),
    clause("P10", "unknown keys", &["examples"]),
    clause("P11", "CNI_ARGS", &["bad_input", "cri"]),
    clause("P12", "which of several wishes counts", &["attachment"]),
    clause("P13", "calls at the same time", &["concurrency", "crash"]),
    clause("M1", "the interface is there already", &["bad_input"]),
    clause("M2", "the plugin's own namespace", &["bad_input"]),
    clause("M3", "delegation", &["one_node", "chains"]),
    clause("M4", "a failed ADD leaves nothing", &["failure"]),
    clause("M5", "what the result lists", &["one_node", "attachment"]),
    clause("M6", "routes of the IPAM plugin", &["attachment", "chains"]),
    clause("M7", "prevResult on ADD", &[]),
    clause(
        "M8",
        "DEL of what is not there",
        &["one_node", "failure", "containerd", "podman", "cri"],
    ),
    clause("M9", "CHECK", &["check", "chains", "status"]),
    clause("M10", "GC", &["gc", "gc_concurrency", "crash"]),
    clause("M11", "STATUS", &["status"]),
    clause("I1", "addresses only", &["one_node"]),
    clause("I2", "addresses asked for", &["bad_input", "chains"]),
    clause("I3", "ADD again", &["one_node", "failure"]),
    clause("I4", "DEL of nothing, and without the record", &["failure", "failover"]),
    clause("I5", "CHECK of the record", &["check"]),
    clause("I6", "GC of the record", &["gc", "gc_concurrency", "reboot", "crash"]),
    clause("I7", "STATUS of the record", &["status", "reboot"]),
];
