//! `weirctl dashboard`: one read-only page about the cluster.
//!
//! [`model`] is pure: what was read of the datastore becomes the answers. [`mod@follow`] keeps it up
//! to date, [`mod@serve`] answers over HTTP. `docs/dashboard.md` gives the reasons.

mod follow;
mod model;
mod page;
mod serve;

pub use follow::{ShownCluster, follow};
pub use serve::serve;
