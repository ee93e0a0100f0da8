#!/usr/bin/env bash
# Installs a Debian package of Weir in a bare Debian without Rust, and does the main job there: a
# pool by one command, two containers by cnitool, a ping. Then upgrades and downgrades it under
# running containers, by the commands of docs/upgrade.md. Then removes it, and looks whether the
# node is as before. In the end the same by tarballs.
#
# Usage: scripts/test-package.sh [PACKAGE]
#
# The tarballs are those beside the package. Without a package it packs the release programs that
# are built. What is upgraded from has another version and another conffile, and the programs in
# the directory WEIR_EARLIER_PROGRAMS, or without it the same. The bare Debian has network, mount
# and process namespaces of its own; systemd does not run there, something smaller does its part.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

RELEASE=bookworm
NETWORK=pods
EARLIER=0.0.1
# In the bare Debian: what the agent logs.
AGENT_LOG=/run/weir-node.service.log

# Packs what `cargo build --release` made.
pack() {
    local built shared=$work/shared
    built=$(programs_of release)
    need_programs "$built"
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
    install -m 0755 "$REPOSITORY/scripts/mini-systemctl.sh" "$root/usr/bin/systemctl"
    install -m 0644 -t "$root/root" "$package" "$(dirname "$package")"/*-linux-amd64-v*.tgz
    make_earlier
}

# The package that is upgraded from, out of the one that is tested.
make_earlier() {
    local tree=$work/earlier programs=${WEIR_EARLIER_PROGRAMS:-}
    dpkg-deb --raw-extract "$package" "$tree"
    sed -i "s/^Version: .*/Version: $EARLIER/" "$tree/DEBIAN/control"
    echo "# The earlier version said this." >>"$tree/etc/default/weir-node"
    if [[ -n $programs ]]; then
        install -m 0755 -t "$tree/opt/cni/bin" "$programs/weir" "$programs/weir-ipam"
        install -m 0755 -t "$tree/usr/bin" "$programs/weirctl"
    fi
    quietly dpkg-deb -Znone --build "$tree" "$root/root/weir_${EARLIER}_amd64.deb"
    rm -r "$tree"
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
    # The package's scripts look for this.
    mkdir -p "$root/run/systemd/system"
    make_uplink
}

# Calls a plugin for containers: cni VERB CONTAINER...
cni() {
    local verb=$1 name
    shift
    for name in "$@"; do
        on_node env CNI_PATH=/opt/cni/bin cnitool "$verb" "$NETWORK" "/run/netns/$name" ||
            fail "$verb of $name failed"
    done
}

# Attaches containers, each in a namespace of its own; says their addresses.
attach() {
    local name
    for name in "$@"; do
        on_node ip netns add "$name"
        addresses[$name]=$(cni add "$name" | first_address)
        [[ -n ${addresses[$name]} ]] || fail "$name has no address"
        echo "$name has ${addresses[$name]}"
    done
}

detach() {
    local name
    for name in "$@"; do
        cni del "$name"
        on_node ip netns delete "$name"
    done
}

# Fails unless the first container reaches the others.
reaches() {
    local from=$1 name
    shift
    for name in "$@"; do
        on_node ip netns exec "$from" ping -n -q -c 1 -W 2 "${addresses[$name]}" >/dev/null ||
            fail "$from does not reach $name"
        echo "$from reaches $name"
    done
}

main_job() {
    echo "== 3. A pool, two containers, a ping"
    on_node install -D -m 0644 -t /etc/cni/net.d /usr/share/doc/weir/examples/net.d/10-weir.conflist
    run weirctl create -f /usr/share/doc/weir/examples/pools/ippool-v3.yaml
    attach web api
    reaches web api
}

# Runs the commands of a section of docs/upgrade.md, in /root.
by_document() {
    local commands
    commands=$(awk -v title="## $1" '/^## / { here = $0 == title } /^```/ { block = 0 }
        here && block { print } /^```sh$/ { block = 1 }' "$REPOSITORY/docs/upgrade.md")
    [[ -n $commands ]] || fail "docs/upgrade.md has no commands under \"$1\""
    echo "-- docs/upgrade.md, $1"
    echo "$commands"
    quietly chroot "$root" env -C /root "NEW=$version" "OLD=$EARLIER" sh -exc "$commands" ||
        fail "the commands of docs/upgrade.md do not work, \"$1\""
}

# Waits until the agent runs the program $1, which is installed, and the node is well.
agent_is_well() {
    local tried told
    for ((tried = 0; tried < 100; tried++)); do
        [[ $(on_node readlink "/proc/$(cat "$root/run/weir-node.service.pid")/exe") != "$1" ]] ||
            ! told=$(on_node weirctl node status 2>&1) || return 0
        sleep 0.1
    done
    cat "$root$AGENT_LOG" >&2
    fail "the agent is not well, or is not $1: ${told:-}"
}

# Pings from web to api, a hundred times a second, until pinged.
keep_pinging() {
    chroot "$root" ip netns exec web ping -n -q -i 0.01 "${addresses[api]}" >"$work/pings" &
    pinging=$!
}

# Ends the pings; fails if one was lost.
pinged() {
    kill -INT "$pinging"
    wait "$pinging" || fail "the pings failed: $(cat "$work/pings")"
    grep "packets transmitted" "$work/pings"
    grep -q " 0% packet loss" "$work/pings" || fail "pings were lost"
}

# Fails unless the containers have their addresses.
kept() {
    local name
    for name in "$@"; do
        [[ $(on_node ip -n "$name" -o address show dev eth0) == *" ${addresses[$name]}/"* ]] ||
            fail "$name has lost its address ${addresses[$name]}"
    done
}

# Upgrade and downgrade under running containers, some of each version.
upgrade() {
    echo "== 4. Upgrade and downgrade under running containers"
    quietly chroot "$root" dpkg --install --force-downgrade "/root/weir_${EARLIER}_amd64.deb"
    echo "# changed by the operator" >>"$root/etc/default/weir-node"
    on_node systemctl enable --now weir-node
    agent_is_well /usr/bin/weirctl
    attach first second
    keep_pinging
    by_document "Upgrade a node"
    agent_is_well /usr/bin/weirctl
    says_version "$version"
    by_document "Look afterwards"
    # By this version: an earlier one may have no backups yet.
    by_document "Before"
    kept web api first second
    cni check web first second
    detach first
    attach third
    reaches web second third
    by_document "Downgrade a node"
    agent_is_well /usr/bin/weirctl
    kept web api second third
    cni check web second third
    reaches web second third
    detach second third
    attach fourth
    reaches web fourth
    detach fourth
    by_document "Upgrade a node"
    agent_is_well /usr/bin/weirctl
    pinged
    grep -q "changed by the operator" "$root/etc/default/weir-node" ||
        fail "what the operator wrote in /etc/default/weir-node is lost"
    detach web api
    run weirctl ipam check
}

# Fails unless what is installed says its version wherever a version is told.
says_version() {
    local line plugin
    line=$(head -n 1 "$root$AGENT_LOG")
    [[ $line == *" started version=\"$1\" "* ]] ||
        fail "the agent's first line does not name version $1: $line"
    line=$(metrics | grep "^weir_build_info") || fail "the agent has no weir_build_info"
    [[ $line == *"version=\"$1\""* ]] || fail "weir_build_info is not of version $1: $line"
    for plugin in weir weir-ipam; do
        # Without a verb, a plugin says what it is.
        line=$(on_node "/opt/cni/bin/$plugin" </dev/null 2>&1)
        [[ $line == "$plugin $1: "* ]] || fail "$plugin is not of version $1: $line"
    done
    [[ $(on_node weirctl --version) == "weirctl $1" ]] || fail "weirctl is not of version $1"
    [[ $(on_node weirctl version) == "Client Version:    $1"$'\n'* ]] ||
        fail "weirctl version does not say $1"
    echo "log, metrics, plugins and weirctl have version $1"
}

# What the agent serves for Prometheus.
metrics() {
    exec 3<>/dev/tcp/127.0.0.1/9098
    printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3
    cat <&3
    exec 3>&-
}

tarballs() {
    echo "== 6. The same by tarballs"
    by_document "From tarballs"
    tar -xOzf "$root/root/weirctl-linux-amd64-v$version.tgz" ./pools/ippool-v3.yaml |
        on_node weirctl create -f -
    on_node systemctl enable --now weir-node
    agent_is_well /usr/local/bin/weirctl
    attach web api
    keep_pinging
    by_document "From tarballs"
    agent_is_well /usr/local/bin/weirctl
    kept web api
    attach first
    reaches web api first
    pinged
    detach web api first
    on_node systemctl disable --now weir-node
}

remove() {
    echo "== 5. Remove the package"
    run dpkg --remove weir
    node_state >"$work/after"
    diff "$work/before" "$work/after" || fail "the node is not as before; see above"
    [[ -z $(find "$root/opt/cni/bin" -type f 2>/dev/null) && ! -e $root/usr/bin/weirctl ]] ||
        fail "programs are left"
    [[ -e $root/var/lib/weir/weir.db ]] || fail "the addresses are gone; nobody asked for that"
    run dpkg --purge weir
    [[ -e $root/var/lib/weir/weir.db ]] || fail "the addresses are gone; nobody asked for that"
    quietly chroot "$root" dpkg --install "/root/weir_${version}_amd64.deb"
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
    run dpkg --install "/root/weir_${version}_amd64.deb"
    run weirctl --version
    main_job
    upgrade
    remove
    tarballs
    echo "test-package: everything worked"
}

if [[ ${1:-} == --inside ]]; then
    work=$2 root=$2/root version=$3
    inside
    exit
fi
need_root "$@"
need_cargo
install_packages "${NETWORK_PACKAGES[@]}" "${BUILD_PACKAGES[@]}" debootstrap python3
install_cnitool
version=$(own_version)
work=$(mktemp -d)
root=$work/root
trap 'rm -rf "$work"' EXIT
package=${1:-}
[[ -z $package ]] || version=$(dpkg-deb --field "$package" Version)
[[ -n $package ]] || pack
make_root
unshare --net --mount --pid --fork "$0" --inside "$work" "$version"
