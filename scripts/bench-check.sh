#!/usr/bin/env bash
# Measures `weirctl ipam check` as a whole on a healthy store, embedded and in an
# etcd: seconds and the most memory (GNU time), three runs each.
#
# Prints Markdown for docs/performance.md, and fails when a run takes longer or more
# memory than its limit. The argument is the number of addresses
# (100000 unless given). With WITHOUT_BUILD=1 in the environment it takes the
# programs that are there. Let nothing else run on the machine.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

# What one run may take at most: seconds, and MB of memory.
readonly MOST_SECONDS=5 MOST_MEMORY=200

# The stores whose checks took more.
MISSED=()

# Fills the store $1, checks it with weirctl's flags after it, and prints a row
# for it, named $2, with blocks of the size $3.
measure() {
    local store=$1 name=$2 size=$3 run
    shift 3
    "$PROGRAMS/examples/crowd" "$store" "$ADDRESSES" "$size"
    rm -f "$PLACE/runs"
    for run in 1 2 3; do
        /usr/bin/time -f '%e %M' -a -o "$PLACE/runs" \
            "$PROGRAMS/weirctl" --cni-directory "$PLACE/none" "$@" ipam check >"$PLACE/said" ||
            fail "run $run of $name found something: $(tail -n 3 "$PLACE/said")"
        grep -q "and $ADDRESSES addresses" "$PLACE/said" || fail "not all were looked at"
    done
    awk -v name="$name, blocks of /$size" -v seconds=$MOST_SECONDS -v memory=$MOST_MEMORY '
        { if (NR == 1 || $1 < low) low = $1; if ($1 > high) high = $1; if ($2 > most) most = $2 }
        END {
            printf "| %s | %.1f–%.1f s | %.0f MB |\n", name, low, high, most / 1024
            exit (high > seconds || most / 1024 > memory)
        }
    ' "$PLACE/runs" || MISSED+=("$name, blocks of /$size")
}

# In a network and a mount namespace of its own.
measure_all() {
    ADDRESSES=$1
    PROGRAMS=$(programs_of release)
    PLACE=/run/bench
    mount -t tmpfs tmpfs /run
    mkdir -p "$PLACE/none"
    ip link set lo up
    echo '| store | time | peak memory |'
    echo '|---|---|---|'
    for size in 26 20 32; do
        measure "$PLACE/$size.db" embedded "$size" --datastore-path "$PLACE/$size.db"
    done
    local url=http://127.0.0.1:2379
    etcd --data-dir "$PLACE/etcd" --listen-client-urls "$url" --advertise-client-urls "$url" \
        --listen-peer-urls http://127.0.0.1:2380 >"$PLACE/etcd.log" 2>&1 &
    local etcd=$!
    # shellcheck disable=SC2064 # the process that runs now
    trap "kill $etcd" EXIT
    until ETCDCTL_API=3 etcdctl --endpoints "$url" endpoint health >/dev/null 2>&1; do
        kill -0 "$etcd" || fail "etcd does not start: $(tail -n 3 "$PLACE/etcd.log")"
    done
    measure "$url" etcd 26 --etcd-endpoints "$url"
    ((${#MISSED[@]} == 0)) ||
        fail "more than $MOST_SECONDS s or $MOST_MEMORY MB: $(printf '%s; ' "${MISSED[@]}")"
}

if [[ ${1:-} == inside ]]; then
    measure_all "$2"
    exit
fi
need_cargo
install_packages "${BUILD_PACKAGES[@]}" iproute2 util-linux time etcd-server etcd-client
cd "$REPOSITORY"
[[ -n ${WITHOUT_BUILD:-} ]] || {
    cargo build --release --locked --package weirctl
    cargo build --release --locked --package weir-datastore --example crowd
}
as_root unshare --net --mount "$REPOSITORY/scripts/bench-check.sh" inside "${1:-100000}"
