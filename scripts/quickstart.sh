#!/usr/bin/env bash
# The main job, from a fresh checkout: a pool, three containers with addresses
# out of it, and pings between them.
#
# Installs what is missing, builds the three programs, and then works in
# network, mount and process namespaces of its own: the machine's network and
# files stay as they are. Ends with status 0 if everything worked.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

POOL=$REPOSITORY/conf/pools/ippool-v3.yaml
LIST=$REPOSITORY/conf/net.d/10-weir.conflist
NETWORK=pods
CONTAINERS=(web api db)
declare -A ADDRESSES=()

prepare() {
    echo "== 1. Install what is missing, build the programs"
    need_cargo
    install_packages "${BUILD_PACKAGES[@]}" "${NETWORK_PACKAGES[@]}"
    install_cnitool
    cargo build --release --locked --manifest-path "$REPOSITORY/Cargo.toml" \
        --package weir --package weir-ipam --package weirctl
}

# Shows a command, then runs it.
run() {
    echo "\$ $*"
    "$@"
}

# Makes a node out of the namespaces that this process is in.
make_node() {
    make_directories_private
    make_uplink
}

create_pool() {
    echo "== 2. Create a pool"
    cp "$LIST" /etc/cni/net.d/
    run weirctl create -f "$POOL"
    run weirctl get ippool -o wide
}

add_containers() {
    echo "== 3. Add three containers"
    local name result
    for name in "${CONTAINERS[@]}"; do
        ip netns add "$name"
        echo "\$ cnitool add $NETWORK /run/netns/$name"
        result=$(cnitool add "$NETWORK" "/run/netns/$name")
        ADDRESSES[$name]=$(first_address <<<"$result")
        [[ -n ${ADDRESSES[$name]} ]] || fail "no address in the result: $result"
        echo "$name has ${ADDRESSES[$name]}"
        cnitool check "$NETWORK" "/run/netns/$name"
    done
}

# Pings an address: ping FROM TO ADDRESS COMMAND...
ping_once() {
    local from=$1 to=$2 address=$3
    shift 3
    "$@" ping -n -q -c 1 -W 2 "$address" >/dev/null || fail "$from does not reach $to ($address)"
    echo "$from reaches $to ($address)"
}

ping_all() {
    echo "== 4. Ping"
    local from to
    for from in "${CONTAINERS[@]}"; do
        for to in "${CONTAINERS[@]}"; do
            [[ $from == "$to" ]] ||
                ping_once "$from" "$to" "${ADDRESSES[$to]}" ip netns exec "$from"
        done
        ping_once "$from" "the node" 172.30.0.11 ip netns exec "$from"
        ping_once "the node" "$from" "${ADDRESSES[$from]}"
    done
}

show_use() {
    echo "== 5. Look at the pool and its use"
    run weirctl ipam show --show-blocks
}

remove_containers() {
    echo "== 6. Remove the containers"
    local name
    for name in "${CONTAINERS[@]}"; do
        run cnitool del "$NETWORK" "/run/netns/$name"
        ip netns delete "$name"
    done
}

# The lines of `weirctl ipam show` that tell of addresses in use.
pools_in_use() {
    weirctl ipam show | awk -F '|' '/IP Pool/ && $5 !~ /^ *0 / { print }'
}

show_nothing_left() {
    echo "== 7. Nothing is left of the containers"
    run weirctl ipam show
    [[ -z $(pools_in_use) ]] || fail "addresses are still in use"
    run ip -brief link show
    local links
    links=$(ip -o link show | wc -l)
    ((links == 2)) || fail "there should be only lo and eth0"
    echo "The node keeps its block for the next containers, and a route keeps"
    echo "packets for the block's free addresses from leaving:"
    run ip route show proto 77
    [[ -z $(ip route show proto 77 type unicast) ]] || fail "routes to containers are left"
}

walk_through() {
    export PATH="$1:$PATH" CNI_PATH=$1 NETCONFPATH=/etc/cni/net.d
    make_node
    create_pool
    add_containers
    ping_all
    show_use
    remove_containers
    show_nothing_left
    echo "quickstart: everything worked"
}

if [[ ${1:-} == --walk-through ]]; then
    walk_through "$2"
else
    prepare
    as_root unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private \
        "$REPOSITORY/scripts/quickstart.sh" --walk-through "$(programs_of release)"
fi
