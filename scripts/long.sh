#!/usr/bin/env bash
# Runs the long form of the tests that have one: more rounds, more peers, longer outages. Then runs
# the programs of aarch64 by an emulator (scripts/test-aarch64.sh).
#
# What they need is installed as scripts/test.sh does it. Arguments are given to `cargo test`.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

SUITES=(pairs bgp_bfd bgp_outages bgp_routes bgp_scale docker vxlan)

need_cargo
install_packages "${BUILD_PACKAGES[@]}" "${NETWORK_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
((EUID == 0)) || run_tests_by "sudo -E env PATH=$PATH"
cd "$REPOSITORY"
cargo build --workspace --locked
chosen=()
for suite in "${SUITES[@]}"; do
    chosen+=(--test "$suite")
done
WEIR_LONG_TESTS=1 cargo test --package weir-tests --locked --no-fail-fast "${chosen[@]}" "$@"
scripts/test-aarch64.sh
