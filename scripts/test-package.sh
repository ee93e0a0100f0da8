#!/usr/bin/env bash
# Installs a Debian package of Weir in a bare Debian without Rust, and does the main job there: a
# pool by one command, two containers by cnitool, a ping. Then removes it, and looks whether the
# node is as before.
#
# Usage: scripts/test-package.sh [PACKAGE]
#
# Without a package it packs the release programs that are built. The bare Debian has network,
# mount and process namespaces of its own.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

RELEASE=bookworm
NETWORK=pods

# Packs what `cargo build --release` made.
pack() {
    local built shared=$work/shared
    built=$(programs_of release)
    [[ -x $built/weirctl ]] ||
        fail "there is no $built/weirctl; build it: cargo build --release -p weir -p weir-ipam -p weirctl"
    mkdir -p "$work/packed"
    write_documents "$built/weirctl" "$shared"
    SOURCE_DATE_EPOCH=$(git -C "$REPOSITORY" log -1 --format=%ct)
    export SOURCE_DATE_EPOCH
    (cd "$REPOSITORY" && scripts/sbom.py "$version" x86_64-unknown-linux-gnu \
        "$work/packed/weir.cdx.json" "$shared/LICENCES-x86_64")
    "$REPOSITORY/scripts/package.sh" "$version" x86_64 "$built" "$shared" "$work/packed"
    package=$work/packed/weir_${version}_amd64.deb
}

# A bare Debian, with what the test looks with.
make_root() {
    echo "== 1. A bare Debian $RELEASE"
    quietly debootstrap --variant=minbase --include=iproute2,iputils-ping,nftables "$RELEASE" "$root" ||
        fail "debootstrap failed; see above"
    install -m 0755 "$(command -v cnitool)" "$root/usr/local/bin/cnitool"
    install -m 0644 "$package" "$root/root/weir.deb"
}

# Runs a command in the bare Debian, and shows it.
run() {
    echo "\$ $*"
    chroot "$root" "$@"
}

quiet_run() {
    chroot "$root" "$@"
}

# The kernel's state of the node that Weir could change. That it forwards stays: nobody knows who
# else relies on it. With IPv6 it shows as anycast addresses.
node_state() {
    chroot "$root" sh -c 'ip -o link; ip -o address; ip route show table all; ip -6 route show table all;
        ip rule; nft list ruleset' | sed -E '/^anycast /d; s/(valid_lft|preferred_lft) [^ ]+//g'
}

make_node() {
    mount --make-rprivate /
    # `ip netns` changes how mounts below "/" are shared, which is to be a mount itself.
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount -t sysfs sysfs "$root/sys"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    chroot "$root" ip link set lo up
    chroot "$root" ip netns add uplink
    chroot "$root" ip link add eth0 type veth peer name wire netns uplink
    chroot "$root" ip -n uplink link set wire up
    chroot "$root" ip address add 172.30.0.11/24 dev eth0
    chroot "$root" ip link set eth0 up
    chroot "$root" ip route add default via 172.30.0.1
    wait_for_link
}

# Waits until the uplink has a carrier, and its IPv6 address is found to be its own.
wait_for_link() {
    local tried link
    for ((tried = 0; tried < 100; tried++)); do
        link=$(chroot "$root" sh -c 'ip -o link show eth0; ip -o address show eth0')
        [[ $link != *"state UP"* || $link != *inet6* || $link == *tentative* ]] || return 0
        sleep 0.1
    done
    fail "eth0 did not come up: $link"
}

# The first address in a CNI result on standard input.
first_address() {
    sed -nE 's/.*"address": *"([0-9.]+)\/[0-9]+".*/\1/p' | head -n 1
}

attach() {
    echo "== 3. A pool, two containers, a ping" >&2
    quiet_run install -D -m 0644 -t /etc/cni/net.d /usr/share/doc/weir/examples/net.d/10-weir.conflist
    run weirctl create -f /usr/share/doc/weir/examples/pools/ippool-v3.yaml
    local name result
    for name in web api; do
        quiet_run ip netns add "$name"
        result=$(quiet_run env CNI_PATH=/opt/cni/bin cnitool add "$NETWORK" "/run/netns/$name")
        addresses[$name]=$(first_address <<<"$result")
        [[ -n ${addresses[$name]} ]] || fail "no address in the result: $result"
        echo "$name has ${addresses[$name]}"
    done
    quiet_run ip netns exec web ping -n -q -c 1 -W 2 "${addresses[api]}" >/dev/null ||
        fail "web does not reach api"
    echo "web reaches api"
    for name in web api; do
        quiet_run env CNI_PATH=/opt/cni/bin cnitool del "$NETWORK" "/run/netns/$name"
        quiet_run ip netns delete "$name"
    done
}

remove() {
    echo "== 4. Remove the package"
    run dpkg --remove weir
    node_state >"$work/after"
    diff "$work/before" "$work/after" || fail "the node is not as before; see above"
    [[ -z $(find "$root/opt/cni/bin" -type f 2>/dev/null) && ! -e $root/usr/bin/weirctl ]] ||
        fail "programs are left"
    [[ -e $root/var/lib/weir/weir.db ]] || fail "the addresses are gone; nobody asked for that"
    run dpkg --purge weir
    [[ -e $root/var/lib/weir/weir.db ]] || fail "the addresses are gone; nobody asked for that"
    quietly chroot "$root" dpkg --install /root/weir.deb
    echo "\$ WEIR_PURGE=all dpkg --purge weir"
    quiet_run env WEIR_PURGE=all dpkg --purge weir
    [[ ! -e $root/var/lib/weir ]] || fail "/var/lib/weir is left"
}

# All that needs the namespaces of its own.
inside() {
    declare -A addresses=()
    make_node
    node_state >"$work/before"
    echo "== 2. Install the package"
    run dpkg --install /root/weir.deb
    run weirctl --version
    echo "# changed by the operator" >>"$root/etc/default/weir-node"
    quietly chroot "$root" dpkg --install /root/weir.deb
    grep -q "changed by the operator" "$root/etc/default/weir-node" ||
        fail "an upgrade lost what the operator wrote in /etc/default/weir-node"
    attach
    remove
    echo "test-package: everything worked"
}

if [[ ${1:-} == --inside ]]; then
    work=$2 root=$2/root
    inside
    exit
fi
((EUID == 0)) || fail "run this as root"
need_cargo
install_packages "${NETWORK_PACKAGES[@]}" debootstrap
install_cnitool
version=$(own_version)
work=$(mktemp -d)
root=$work/root
trap 'rm -rf "$work"' EXIT
package=${1:-}
[[ -n $package ]] || pack
make_root
unshare --net --mount --pid --fork "$0" --inside "$work"
