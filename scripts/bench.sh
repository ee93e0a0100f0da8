#!/usr/bin/env bash
# Measures whole ADD and DEL of weir and weir-ipam, embedded and against an
# etcd, beside Debian's ptp and host-local, all in turn in one run.
#
# Prints Markdown for docs/performance.md. The argument is the number of rounds
# (100 unless given); "sources" after it measures only what the filter of what
# containers send costs. With --micro it measures functions of the pure core instead
# (common/benches/core.rs). Let nothing else run on the machine.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

need_cargo
if [[ ${1:-} == --micro ]]; then
    cd "$REPOSITORY"
    exec cargo bench --locked --package weir-common --bench core -- "${@:2}"
fi
install_packages "${BUILD_PACKAGES[@]}" "${NETWORK_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
cd "$REPOSITORY"
cargo build --release --locked --package weir --package weir-ipam --package weirctl
cargo build --release --locked --package weir-tests --example measure
cat <<END
## $(date +%F): $(nproc) cores, $(awk '/MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo) GiB, Linux $(uname -r | cut -d. -f1,2)

$(lscpu | sed -nE 's/^Model name: *//p' | head -n 1); etcd $(etcd --version | sed -n 's/^etcd Version: //p'), its data and the embedded datastore in memory (tmpfs); containernetworking-plugins $(dpkg-query -W -f '${Version}' containernetworking-plugins).

END
as_root "$(programs_of release)/examples/measure" "$@"
