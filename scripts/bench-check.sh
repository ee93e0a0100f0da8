#!/usr/bin/env bash
# Measures `weirctl ipam check` as a whole on a healthy store, three runs each: 100,000
# addresses embedded and in an etcd, and 1,000,000 in an etcd.
#
# Prints Markdown for docs/performance.md: the median of the seconds and the most memory
# (GNU time). Fails when a median takes longer, or a run more memory, than its limit.
# With WITHOUT_BUILD=1 in the environment it takes the programs that are there, with
# WEIRCTL=FILE another weirctl, to compare. Let nothing else run on the machine.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

# The stores whose checks took more than they may.
MISSED=()

# Fills the store $2 with $1 addresses in blocks of the size $4, checks it with weirctl's
# flags from the seventh argument on, and prints a row for it, named $3. It may take $5
# seconds and $6 MB.
measure() {
    local addresses=$1 store=$2 row="$1 addresses, $3, blocks of /$4" seconds=$5 memory=$6 run
    "$PROGRAMS/examples/crowd" "$store" "$addresses" "$4"
    shift 6
    rm -f "$PLACE/runs"
    for run in 1 2 3; do
        /usr/bin/time -f '%e %M' -a -o "$PLACE/runs" \
            "${WEIRCTL:-$PROGRAMS/weirctl}" --cni-directory "$PLACE/none" "$@" \
            ipam check >"$PLACE/said" ||
            fail "run $run of $row found something: $(tail -n 3 "$PLACE/said")"
        grep -q "and $addresses addresses" "$PLACE/said" || fail "not all were looked at"
    done
    sort -n "$PLACE/runs" | awk -v row="$row" -v seconds="$seconds" -v memory="$memory" '
        { time[NR] = $1; if ($2 > most) most = $2 }
        END {
            printf "| %s | %.1f s | %.0f MB |\n", row, time[2], most / 1024
            exit (time[2] > seconds || most / 1024 > memory)
        }
    ' || MISSED+=("$row: more than $seconds s or $memory MB")
}

# Measures $1 addresses in an etcd of their own, on the ports $2 and $2 + 1.
measure_etcd() {
    local url=http://127.0.0.1:$2 peers=http://127.0.0.1:$(($2 + 1)) etcd
    etcd --data-dir "$PLACE/etcd$1" --listen-client-urls "$url" --advertise-client-urls "$url" \
        --listen-peer-urls "$peers" --initial-advertise-peer-urls "$peers" \
        --initial-cluster "default=$peers" --quota-backend-bytes 8000000000 \
        >"$PLACE/etcd.log" 2>&1 &
    etcd=$!
    # shellcheck disable=SC2064 # the process that runs now
    trap "kill $etcd" EXIT
    until ETCDCTL_API=3 etcdctl --endpoints "$url" endpoint health >/dev/null 2>&1; do
        kill -0 "$etcd" || fail "etcd does not start: $(tail -n 3 "$PLACE/etcd.log")"
    done
    measure "$1" "$url" etcd 26 "$3" "$4" --etcd-endpoints "$url"
    trap - EXIT
    kill "$etcd"
    wait "$etcd" || true
}

# In a network and a mount namespace of its own.
measure_all() {
    PROGRAMS=$(programs_of release)
    PLACE=/run/bench
    mount -t tmpfs -o size=8g tmpfs /run
    mkdir -p "$PLACE/none"
    ip link set lo up
    echo '| store | time | peak memory |'
    echo '|---|---|---|'
    for size in 26 20 32; do
        measure 100000 "$PLACE/$size.db" embedded "$size" 5 200 \
            --datastore-path "$PLACE/$size.db"
    done
    measure_etcd 100000 2379 5 200
    measure_etcd 1000000 2389 15 300
    ((${#MISSED[@]} == 0)) || fail "$(printf '%s; ' "${MISSED[@]}")"
}

if [[ ${1:-} == inside ]]; then
    measure_all
    exit
fi
need_cargo
install_packages "${BUILD_PACKAGES[@]}" iproute2 util-linux time etcd-server etcd-client
cd "$REPOSITORY"
[[ -n ${WITHOUT_BUILD:-} ]] || {
    cargo build --release --locked --package weirctl
    cargo build --release --locked --package weir-datastore --example crowd
}
as_root unshare --net --mount "$REPOSITORY/scripts/bench-check.sh" inside
