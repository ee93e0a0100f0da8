#!/usr/bin/env bash
# Fails unless the workspace compiles with the `rust-version` of Cargo.toml. That
# is shown by all the other checks when cargo is of that version, and else by a
# toolchain of that version, if rustup has one.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$REPOSITORY"

need_cargo
declared=$(sed -nE 's/^rust-version = "(.*)"/\1/p' Cargo.toml)
present=$(rustc --version | sed -nE 's/^rustc ([0-9]+\.[0-9]+)\..*/\1/p')
if [[ $present == "$declared" ]]; then
    echo "rust-version $declared is what everything is built with"
elif rustup run "$declared" cargo --version 2>/dev/null; then
    rustup run "$declared" cargo check --workspace --all-targets --locked \
        --target-dir "target/rust-$declared"
else
    fail "Cargo.toml says rust-version $declared, but only Rust $present is here to try it:" \
        "state what is tested, or run 'rustup toolchain install $declared'"
fi
