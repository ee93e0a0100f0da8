//! One suite for all datastores, and what each of them promises besides.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod embedded;
mod etcd;
mod holders;
mod memory;
mod model;
mod processes;
mod suite;
