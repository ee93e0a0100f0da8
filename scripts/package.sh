#!/usr/bin/env bash
# Packs programs that are built: two tarballs and a Debian package.
#
# Usage: scripts/package.sh VERSION ARCHITECTURE PROGRAMS SHARED DIRECTORY
#
# ARCHITECTURE is x86_64 or aarch64; PROGRAMS has weir, weir-ipam and weirctl; SHARED has what is
# alike on all of them, and the licences: completions/, man/, LICENCES-ARCHITECTURE. Times are
# SOURCE_DATE_EPOCH, so that the same programs give the same bytes.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

# Packs the files of a directory, in one order, as root's.
pack() {
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
        --format=gnu -C "$1" -c . | gzip -9n >"$2"
}

# The plugins as containernetworking packs its own: flat, to be unpacked in /opt/cni/bin.
pack_plugins() {
    local root=$work/plugins
    install -D -m 0755 -t "$root" "$programs/weir" "$programs/weir-ipam"
    install -m 0644 LICENSE README.md "$licences" "$root"
    mv "$root/$(basename "$licences")" "$root/LICENCES"
    pack "$root" "$directory/cni-plugins-weir-linux-$debian-v$version.tgz"
}

pack_weirctl() {
    local root=$work/weirctl
    install -D -m 0755 -t "$root" "$programs/weirctl"
    install -D -m 0644 -t "$root/systemd" conf/systemd/*
    install -D -m 0644 -t "$root/pools" conf/pools/*
    install -D -m 0644 -t "$root/net.d" conf/net.d/*
    install -m 0644 LICENSE README.md CHANGELOG.md "$root"
    install -m 0644 "$licences" "$root/LICENCES"
    cp -r "$shared/completions" "$shared/man" "$root/"
    pack "$root" "$directory/weirctl-linux-$debian-v$version.tgz"
}

# The tree of the Debian package.
fill_debian() {
    local root=$1 documents=$1/usr/share/doc/weir
    install -D -m 0755 -t "$root/opt/cni/bin" "$programs/weir" "$programs/weir-ipam"
    install -D -m 0755 -t "$root/usr/bin" "$programs/weirctl"
    local unit
    for unit in conf/systemd/*; do
        install -d "$root/lib/systemd/system"
        sed 's:/usr/local/bin/weirctl:/usr/bin/weirctl:' "$unit" \
            >"$root/lib/systemd/system/$(basename "$unit")"
    done
    install -D -m 0644 conf/debian/default "$root/etc/default/weir-node"
    install -D -m 0644 "$shared/completions/weirctl.bash" \
        "$root/usr/share/bash-completion/completions/weirctl"
    install -D -m 0644 "$shared/completions/weirctl.zsh" \
        "$root/usr/share/zsh/vendor-completions/_weirctl"
    install -D -m 0644 "$shared/completions/weirctl.fish" \
        "$root/usr/share/fish/vendor_completions.d/weirctl.fish"
    cp -r "$shared/man" "$root/usr/share/man"
    find "$root/usr/share/man" -type f -exec gzip -9n {} +
    install -D -m 0644 README.md "$documents/README.md"
    install -D -m 0644 -t "$documents/examples/net.d" conf/net.d/*
    install -D -m 0644 -t "$documents/examples/pools" conf/pools/*
    gzip -9n <CHANGELOG.md >"$documents/changelog.gz"
    { cat conf/debian/copyright && cat "$licences"; } >"$documents/copyright"
}

pack_debian() {
    local root=$work/debian size
    fill_debian "$root"
    install -d "$root/DEBIAN"
    size=$(du -sk --apparent-size "$root" | cut -f1)
    sed -e "s/@VERSION@/$version/; s/@ARCHITECTURE@/$debian/; s/@SIZE@/$size/" conf/debian/control \
        >"$root/DEBIAN/control"
    echo /etc/default/weir-node >"$root/DEBIAN/conffiles"
    install -m 0755 -t "$root/DEBIAN" conf/debian/postinst conf/debian/prerm conf/debian/postrm
    (cd "$root" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | sort -z |
        xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    find "$root" -type d -exec chmod 0755 {} +
    find "$root" -type f ! -perm -u=x -exec chmod 0644 {} +
    quietly dpkg-deb --root-owner-group -Zxz --build "$root" "$directory/weir_${version}_$debian.deb"
}

(($# == 5)) || fail "usage: scripts/package.sh VERSION ARCHITECTURE PROGRAMS SHARED DIRECTORY"
version=$1 programs=$(realpath "$3") shared=$(realpath "$4") directory=$(realpath "$5")
licences=$shared/LICENCES-$2
case $2 in
x86_64) debian=amd64 ;;
aarch64) debian=arm64 ;;
*) fail "architecture $2 is not built; write x86_64 or aarch64" ;;
esac
: "${SOURCE_DATE_EPOCH:?the time that files get, in seconds since 1970}"
cd "$REPOSITORY"
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pack_plugins
pack_weirctl
pack_debian
