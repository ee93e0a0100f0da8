//! One suite for all datastores, and what each of them promises besides.

mod embedded;
mod memory;
mod model;
mod suite;
