#!/usr/bin/env bash
# Measures TCP through Weir's tunnel of VXLAN beside one that is made by hand: 20 pairs of
# measurements, in turn; prints each, and the median of the ratios with its interval.
#
#     scripts/bench-tunnel.sh
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

need_cargo
install_packages "${BUILD_PACKAGES[@]}" "${NETWORK_PACKAGES[@]}" etcd-server etcd-client iperf3
cd "$REPOSITORY"
[[ -n ${WITHOUT_BUILD:-} ]] || {
    cargo build --release --locked --package weir --package weir-ipam --package weirctl
    cargo build --release --locked --package weir-tests --example measure_tunnel
}
as_root "$(programs_of release)/examples/measure_tunnel"
