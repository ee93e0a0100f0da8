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

on_node() {
    chroot "$root" "$@"
}

make_node() {
    mount --make-rprivate /
    # `ip netns` changes how mounts below "/" are shared, which is to be a mount itself.
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount -t sysfs sysfs "$root/sys"
    mount -t tmpfs -o mode=755 tmpfs "$root/run"
    make_uplink
}

attach() {
    echo "== 3. A pool, two containers, a ping" >&2
    on_node install -D -m 0644 -t /etc/cni/net.d /usr/share/doc/weir/examples/net.d/10-weir.conflist
    run weirctl create -f /usr/share/doc/weir/examples/pools/ippool-v3.yaml
    local name result
    for name in web api; do
        on_node ip netns add "$name"
        result=$(on_node env CNI_PATH=/opt/cni/bin cnitool add "$NETWORK" "/run/netns/$name")
        addresses[$name]=$(first_address <<<"$result")
        [[ -n ${addresses[$name]} ]] || fail "no address in the result: $result"
        echo "$name has ${addresses[$name]}"
    done
    on_node ip netns exec web ping -n -q -c 1 -W 2 "${addresses[api]}" >/dev/null ||
        fail "web does not reach api"
    echo "web reaches api"
    for name in web api; do
        on_node env CNI_PATH=/opt/cni/bin cnitool del "$NETWORK" "/run/netns/$name"
        on_node ip netns delete "$name"
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
    on_node env WEIR_PURGE=all dpkg --purge weir
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
