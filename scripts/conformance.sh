#!/usr/bin/env bash
# Puts a CNI main plugin and an IPAM plugin to the test, clause by clause of the
# CNI contract: weir and weir-ipam, or others (--main ptp --ipam host-local,
# which Debian's containernetworking-plugins have). See --help, and
# docs/cni-conformance.md.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

need_cargo
install_packages "${BUILD_PACKAGES[@]}" "${NETWORK_PACKAGES[@]}" "${TEST_PACKAGES[@]}" >&2
cd "$REPOSITORY"
quietly cargo build --locked --package weir --package weir-ipam --package weirctl
quietly cargo build --locked --package weir-tests --bin conformance
as_root "$(programs_of debug)/conformance" "$@"
