//! How often a test tries what depends on chance or takes its time.

use std::env;

/// `short` times, or `long` times where `WEIR_LONG_TESTS` is set, as `scripts/long.sh` sets it.
pub fn rounds(short: usize, long: usize) -> usize {
    if env::var_os("WEIR_LONG_TESTS").is_some() { long } else { short }
}
