//! Which endpoint of a cluster answered last, from one call to the next.

/// A place where one process leaves to the next which endpoint answered it.
///
/// It only saves time: what cannot be read is no memory, and what cannot be written is not
/// missed. Whoever asks it checks that the endpoint is one of the configured ones.
pub trait LastEndpoint: Send + Sync {
    /// The URL that was left, as it is written there.
    fn recall(&self) -> Option<String>;

    /// Leaves the URL of an endpoint that has answered. It differs from what was recalled.
    fn leave(&self, url: &str);
}

/// No memory: each process begins with the first endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forgetful;

impl LastEndpoint for Forgetful {
    fn recall(&self) -> Option<String> {
        None
    }

    fn leave(&self, _: &str) {}
}
