//! Fuzz targets: everything that Weir reads from outside, given to the code that
//! reads it, with what must hold of the outcome. A target panics when it does not.
//!
//! `docs/fuzzing.md` has what each of them asserts and what was found.

pub mod bird;
mod block;
mod call;
mod environment;
pub mod mutate;
mod pool_file;
mod prev_result;
mod selector;
mod stdin;
mod store;

/// What is fuzzed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The network configuration on standard input.
    Stdin,
    /// The variables of a call.
    Environment,
    /// A result of plugins before, or of ADD.
    PrevResult,
    /// Everything in a datastore.
    Store,
    /// One stored block.
    Block,
    /// Files with pools and other resources.
    PoolFile,
    /// Node selectors.
    Selector,
    /// BGP plans, printed for BIRD.
    Bird,
}

impl Target {
    /// All targets.
    pub const ALL: [Self; 8] = [
        Self::Stdin,
        Self::Environment,
        Self::PrevResult,
        Self::Store,
        Self::Block,
        Self::PoolFile,
        Self::Selector,
        Self::Bird,
    ];

    /// Its name, and that of its folder in the corpus.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdin => "stdin",
            Self::Environment => "environment",
            Self::PrevResult => "prev-result",
            Self::Store => "store",
            Self::Block => "block",
            Self::PoolFile => "pool-file",
            Self::Selector => "selector",
            Self::Bird => "bird",
        }
    }

    /// The target of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }

    /// Runs it on one input.
    ///
    /// # Panics
    /// When something does not hold that must.
    pub fn run(self, input: &[u8]) {
        match self {
            Self::Stdin => stdin::run(input),
            Self::Environment => environment::run(input),
            Self::PrevResult => prev_result::run(input),
            Self::Store => store::run(input),
            Self::Block => block::run(input),
            Self::PoolFile => pool_file::run(input),
            Self::Selector => selector::run(input),
            Self::Bird => bird::run(input),
        }
    }
}
