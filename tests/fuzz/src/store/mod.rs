//! A datastore in which anything may stand: every operation on addresses, the
//! audit, and the plan of the cluster.

mod facts;
mod input;
mod operations;
mod plan;

use crate::call::finish;
use input::Input;

/// No operation panics, gives up, or comes to no end; none gives an address to two
/// attachments, or takes one from anybody but whom it is for; one that fails
/// changes nothing and, when a value is in the way, names its key; a value that
/// cannot be read is never overwritten.
pub fn run(input: &[u8]) {
    let input = Input::read(input);
    facts::forget();
    plan::run(&input);
    finish(operations::run(&input));
}
