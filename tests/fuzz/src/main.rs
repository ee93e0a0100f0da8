//! The fuzzer: libFuzzer around one target, which `WEIR_FUZZ_TARGET` names.
//! `scripts/fuzz.sh` builds and runs it.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use weir_fuzz::{Target, mutate};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("WEIR_FUZZ_TARGET").unwrap_or_default();
    Target::from_name(&name).unwrap_or_else(|| panic!("WEIR_FUZZ_TARGET {name:?} is not a target"))
});

fuzz_target!(|data: &[u8]| TARGET.run(data));

// Most inputs are JSON: changes of its tree get further than changes of its bytes.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    match mutate::json(&data[..size], seed).filter(|changed| changed.len() <= max_size) {
        Some(changed) => {
            data[..changed.len()].copy_from_slice(&changed);
            changed.len()
        }
        None => fuzzer_mutate(data, size, max_size),
    }
});
