#!/usr/bin/env bash
# Runs every test of the workspace, after installing what they need.
#
# The tests need root (they make network namespaces, in which they stay);
# everything is built as the calling user. Those that need ipip run under a
# kernel that has it. Arguments are given to `cargo test`.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

# Adds up cargo's result lines in file $1. A test that is left out counts as a
# failure: it would show nothing.
summarise() {
    awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 }
        END {
            printf "%d tests passed, %d failed, %d left out\n", passed, failed, ignored
            exit failed || ignored || !passed
        }' "$1"
}

need_cargo
install_packages "${BUILD_PACKAGES[@]}" "${NETWORK_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
install_cnitool
install_portmap
# As root; cargo itself stays the user's.
((EUID == 0)) || run_tests_by "sudo -E env PATH=$PATH"
cd "$REPOSITORY"
# The end-to-end tests look for the programs where this puts them.
cargo build --workspace --locked
# Most tests of whole programs wait for something, so more of them run at once than there are
# processors.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-3}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --workspace --locked --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?
# An emulated kernel has no time left over.
export RUST_TEST_THREADS=2
run_tests_by scripts/guest-kernel.sh
cargo test --package weir-tests --package weir-kernel --test ipip --locked --no-fail-fast "$@" 2>&1 |
    tee --append "$log" || status=$?
run_tests_by "scripts/guest-kernel.sh --emulate"
cargo test --package weir-tests --test ipip_module --locked --no-fail-fast "$@" 2>&1 |
    tee --append "$log" || status=$?
WEIR_GUEST_KERNEL=ipv6.disable=1 \
    cargo test --package weir-tests --test without_ipv6 --locked --no-fail-fast "$@" 2>&1 |
    tee --append "$log" || status=$?
summarise "$log" || status=1
((status == 0)) || fail "not all tests passed"
echo "test: all tests passed"
