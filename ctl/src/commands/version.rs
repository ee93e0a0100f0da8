//! `weirctl version`

/// The version of this program.
pub fn text() -> String {
    format!("weirctl {}\n", env!("CARGO_PKG_VERSION"))
}
