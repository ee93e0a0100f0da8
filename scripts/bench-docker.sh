#!/usr/bin/env bash
# Measures a `docker run` with Weir's network beside Docker's bridge and no network, and the
# driver's own part of it, with and without an agent; prints Markdown for docs/performance.md.
#
#     scripts/bench-docker.sh
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

need_cargo
install_packages "${BUILD_PACKAGES[@]}" "${NETWORK_PACKAGES[@]}" etcd-server etcd-client \
    containernetworking-plugins busybox-static crun iptables docker.io
cd "$REPOSITORY"
[[ -n ${WITHOUT_BUILD:-} ]] || {
    cargo build --release --locked --package weir --package weir-ipam --package weirctl
    cargo build --release --locked --package weir-tests --example measure_docker
}
as_root "$(programs_of release)/examples/measure_docker"
