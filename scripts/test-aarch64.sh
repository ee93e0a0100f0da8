#!/usr/bin/env bash
# Runs the programs of aarch64 by qemu-user, and with them the tests of the pure core.
#
# Usage: scripts/test-aarch64.sh [PROGRAMS]
#
# PROGRAMS is a directory with weir, weir-ipam and weirctl; without it they are built, as debug
# programs. What qemu-user can do is computing, files and what it translates of netlink: the
# plugins answer VERSION and STATUS, weir-ipam gives addresses, weirctl works on an embedded datastore. It cannot make links,
# routes or tables of nftables, so that no container is attached here. Works in network and mount
# namespaces of its own.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

TARGET=aarch64-unknown-linux-gnu
EMULATOR=qemu-aarch64-static

build() {
    cargo build --locked --target "$TARGET" --package weir --package weir-ipam --package weirctl
    programs=${CARGO_TARGET_DIR:-$REPOSITORY/target}/$TARGET/debug
}

emulated() {
    local program=$1
    shift
    "$EMULATOR" "$programs/$program" "$@"
}

# Calls both plugins: call VERB; the configuration is that of conf/net.d.
call() {
    local plugin
    for plugin in weir weir-ipam; do
        echo "\$ CNI_COMMAND=$1 $plugin"
        CNI_COMMAND=$1 CNI_PATH=/opt/cni/bin emulated "$plugin" <<<"$configuration"
    done
}

# All that needs the namespaces of its own.
inside() {
    local configuration version told
    make_directories_private
    ip link set lo up
    version=$(own_version)
    configuration=$(python3 -c 'import json, sys
network = json.load(sys.stdin)
print(json.dumps({**network["plugins"][0], "name": network["name"], "cniVersion": "1.1.0"}))' \
        <"$REPOSITORY/conf/net.d/10-weir.conflist")
    cp "$REPOSITORY/conf/net.d/10-weir.conflist" /etc/cni/net.d/
    call VERSION
    emulated weirctl create -f "$REPOSITORY/conf/pools/ippool-v3.yaml"
    call STATUS
    # IPAM needs no more than files.
    ip netns add web
    export CNI_CONTAINERID=web CNI_IFNAME=eth0 CNI_NETNS=/run/netns/web CNI_PATH=/opt/cni/bin
    CNI_COMMAND=ADD emulated weir-ipam <<<"$configuration" | grep '"address":"10\.7\.'
    CNI_COMMAND=DEL emulated weir-ipam <<<"$configuration"
    told=$(emulated weirctl version)
    [[ $told == "Client Version:    $version"$'\n'* ]] || fail "weirctl version says: $told"
    emulated weirctl get ippool -o wide
    emulated weirctl ipam check
}

if [[ ${1:-} == --inside ]]; then
    programs=$2
    inside
    exit
fi
need_cargo
install_packages "${BUILD_PACKAGES[@]}" "${RELEASE_PACKAGES[@]}" "${RELEASE_TEST_PACKAGES[@]}"
quietly rustup target add "$TARGET"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$EMULATOR
programs=${1:+$(realpath "$1")}
cd "$REPOSITORY"
[[ -n $programs ]] || build
file "$programs"/{weir,weir-ipam,weirctl}
as_root unshare --net --mount "$REPOSITORY/scripts/test-aarch64.sh" --inside "$(realpath "$programs")"
cargo test --package weir-common --lib --locked --target "$TARGET"
echo "test-aarch64: everything worked"
