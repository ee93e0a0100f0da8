#!/usr/bin/env bash
# Measures the node agent in a cluster of 1,000 nodes with 10,000 blocks, which
# are only in an etcd, and fails when a target is missed.
#
# Prints Markdown for docs/performance.md. The argument is the number of starts
# (5 unless given). Everything is in namespaces that end with the program. Let
# nothing else run on the machine.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

need_cargo
install_packages "${BUILD_PACKAGES[@]}" "${NETWORK_PACKAGES[@]}" etcd-server etcd-client
cd "$REPOSITORY"
[[ -n ${WITHOUT_BUILD:-} ]] || {
    cargo build --release --locked --package weir --package weir-ipam --package weirctl
    cargo build --release --locked --package weir-datastore --example crowd
    cargo build --release --locked --package weir-tests --example measure_agent
}
cat <<END
## $(date +%F): $(nproc) cores, $(awk '/MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo) GiB, Linux $(uname -r)

$(lscpu | sed -nE 's/^Model name: *//p' | head -n 1); etcd $(etcd --version | sed -n 's/^etcd Version: //p'), on the same cores, its data in memory (tmpfs).

END
as_root "$(programs_of release)/examples/measure_agent" "$@"
