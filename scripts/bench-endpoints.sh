#!/usr/bin/env bash
# Measures whole ADDs of weir against an etcd of three members, with all of them well and with
# the first endpoint dead, hung and unreachable; the first ADD and the following ones apart.
#
# Prints Markdown for docs/performance.md. The argument is the number of steady ADDs of each
# case (20 unless given). PROGRAMS names a directory with other builds of weir and weirctl to
# measure (the release build unless given). Everything is in namespaces that end with the
# script. Let nothing else run on the machine.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

# The first endpoint is a follower: a cluster whose leader goes elects another one first,
# which no client can shorten.
PORTS=(2379 2381 2383)
FIRST_CALLS=5

endpoint() { echo "http://127.0.0.1:${PORTS[$1]}"; }
endpoints() { echo "$(endpoint 0),$(endpoint 1),$(endpoint 2)"; }

start_member() {
    local port=${PORTS[$1]} cluster number
    cluster=$(for number in 0 1 2; do
        printf 'm%d=http://127.0.0.1:%d,' "$number" $((PORTS[number] + 1))
    done)
    etcd --name "m$1" --data-dir "/run/etcd-$1" --logger zap --log-level error \
        --listen-client-urls "$(endpoint "$1")" --advertise-client-urls "$(endpoint "$1")" \
        --listen-peer-urls "http://127.0.0.1:$((port + 1))" \
        --initial-advertise-peer-urls "http://127.0.0.1:$((port + 1))" \
        --initial-cluster "${cluster%,}" >/dev/null 2>&1 &
    MEMBERS[$1]=$!
}

control() { etcdctl --endpoints "$(endpoint "$1")" "${@:2}"; }

await_member() {
    local try
    for try in {1..200}; do
        ! control "$1" endpoint health >/dev/null 2>&1 || return 0
        sleep 0.05
    done
    fail "etcd at $(endpoint "$1") does not answer after $try tries"
}

# The member whose number is $1 leads no more.
make_follower() {
    local id leader
    id=$(control "$1" endpoint status --write-out fields | sed -n 's/^"MemberID" : //p')
    leader=$(control "$1" endpoint status --write-out fields | sed -n 's/^"Leader" : //p')
    [[ $id == "$leader" ]] || return 0
    id=$(control 1 endpoint status --write-out fields | sed -n 's/^"MemberID" : //p')
    control "$1" move-leader "$(printf %x "$id")" >/dev/null
}

configuration() {
    cat <<JSON
{"cniVersion": "1.0.0", "name": "pods", "type": "weir", "datastore_type": "etcdv3",
 "etcd_endpoints": "$(endpoints)", "nodename": "n1", "ipam": {"type": "weir-ipam"}}
JSON
}

call() {
    configuration | CNI_COMMAND=$1 CNI_CONTAINERID=bench CNI_NETNS=/run/netns/bench \
        CNI_IFNAME=eth0 CNI_PATH="$PROGRAMS" "$PROGRAMS/weir" >/run/answer 2>&1 || {
        cat /run/answer >&2
        fail "$1 failed"
    }
}

# Adds the time of one ADD to the file $1, in microseconds.
measure_add() {
    local begin end
    begin=$EPOCHREALTIME
    call ADD
    end=$EPOCHREALTIME
    call DEL
    echo $((${end//[!0-9]/} - ${begin//[!0-9]/})) >>"$1"
}

# The median of a file of microseconds, in milliseconds.
median() { sort -n "$1" | awk '{ all[NR] = $1 } END { printf "%.1f", (all[int((NR + 1) / 2)] + all[int(NR / 2) + 1]) / 2000 }'; }

break_first() {
    local clients=${PORTS[0]} peers=$((PORTS[0] + 1))
    case $1 in
        well) ;;
        dead)
            kill -KILL "${MEMBERS[0]}"
            wait "${MEMBERS[0]}" 2>/dev/null || true
            ;;
        hung) kill -STOP "${MEMBERS[0]}" ;;
        unreachable)
            nft -f - <<NFT
table inet bench {
    chain input {
        type filter hook input priority 0;
        tcp dport { $clients, $peers } drop
        tcp sport { $clients, $peers } drop
    }
}
NFT
            ;;
    esac
}

heal_first() {
    case $1 in
        well) ;;
        dead) start_member 0 ;;
        hung) kill -CONT "${MEMBERS[0]}" ;;
        unreachable) nft delete table inet bench ;;
    esac
    await_member 0
    make_follower 0
    sleep 0.5
}

measure_case() {
    local how=$1 rounds=$2 round
    : >/run/first
    : >/run/steady
    for ((round = 0; round < FIRST_CALLS; round++)); do
        # Nothing is remembered, and the host's other files are there.
        call ADD
        call DEL
        rm -f /run/weir/etcd-*
        break_first "$how"
        measure_add /run/first
        ((round == FIRST_CALLS - 1)) || heal_first "$how"
    done
    for ((round = 0; round < rounds; round++)); do
        measure_add /run/steady
    done
    heal_first "$how"
    echo "| $how | $(median /run/first) | $(median /run/steady) | $(sort -n /run/steady | tail -n 1 | awk '{ printf "%.1f", $1 / 1000 }') |"
}

if [[ ${1:-} != --inside ]]; then
    if [[ -z ${PROGRAMS:-} ]]; then
        need_cargo
        install_packages "${BUILD_PACKAGES[@]}" "${NETWORK_PACKAGES[@]}" etcd-server etcd-client
        cd "$REPOSITORY"
        cargo build --release --locked --package weir --package weir-ipam --package weirctl
        PROGRAMS=$(programs_of release)
    fi
    as_root env PROGRAMS="$PROGRAMS" unshare --mount --net --uts --pid --fork --kill-child \
        --mount-proc "$BASH" "$0" --inside "${1:-20}"
    exit
fi

make_directories_private
mkdir -p /run/weir
chmod 700 /run/weir
ip link set lo up
ip link add eth0 type veth peer name nowhere
ip address add 172.30.0.11/24 dev eth0
ip link set nowhere up
ip link set eth0 up
ip netns add bench
MEMBERS=()
for number in 0 1 2; do start_member "$number"; done
for number in 0 1 2; do await_member "$number"; done
make_follower 0
export DATASTORE_TYPE=etcdv3 ETCD_ENDPOINTS
ETCD_ENDPOINTS=$(endpoints)
"$PROGRAMS/weirctl" create -f - >/dev/null <<YAML
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: blue}
spec: {cidr: 10.7.0.0/24, blockSize: 26, ipipMode: Never, vxlanMode: Never}
YAML
echo "| first endpoint | first ADD, median of $FIRST_CALLS, ms | steady ADD, median of $2, ms | slowest steady ADD, ms |"
echo "|---|---|---|---|"
for how in well dead hung unreachable; do measure_case "$how" "$2"; done
