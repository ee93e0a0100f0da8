#!/usr/bin/env bash
# Builds the container image of Weir, without a registry: out of programs that are built, and
# Debian's nft and BIRD.
#
# Usage: scripts/image.sh VERSION [ARCHITECTURE [PROGRAMS [DIRECTORY]]]
#
# ARCHITECTURE is x86_64 (without it, this machine's) or aarch64; PROGRAMS has weir, weir-ipam and
# weirctl (without it, what `cargo build --release` made); the image is written as an OCI archive
# weir-image-VERSION-ARCHITECTURE.tar into DIRECTORY (target/image). Times are SOURCE_DATE_EPOCH
# (the last commit's), so that the same programs and packages give the same image.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

RELEASE=bookworm
# What the agent runs: nft for rules, birdc only to look.
RUN_PROGRAMS=(usr/sbin/nft usr/sbin/bird usr/sbin/birdc)

# Unpacks Debian's packages, of which the image gets a part.
unpack_debian() {
    mkdir "$work/debian"
    quietly mmdebstrap --variant=extract --architectures="$debian" \
        --include=nftables,bird2,ca-certificates "$RELEASE" "$work/debian.tar" ||
        fail "mmdebstrap failed; see above"
    tar -C "$work/debian" -xf "$work/debian.tar"
}

# Prints where the unpacked Debian has a library.
find_library() {
    local directory
    for directory in lib "usr/lib"; do
        directory=$directory/$triplet
        if [[ -e $work/debian/$directory/$1 ]]; then
            echo "$directory/$1"
            return
        fi
    done
    fail "Debian's packages have no $1"
}

# Copies a file of the unpacked Debian, and the libraries that it needs.
copy_program() {
    local file=$1 needed library
    [[ ! -e $work/root/$file ]] || return 0
    install -D -m 0755 "$(realpath "$work/debian/$file")" "$work/root/$file"
    while read -r needed; do
        library=$(find_library "$needed")
        copy_program "$library"
    done < <(readelf -d "$work/root/$file" | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p')
}

# The root of the image but Weir's own programs.
make_root() {
    local program interpreter loader
    for program in "${RUN_PROGRAMS[@]}"; do
        copy_program "$program"
    done
    interpreter=$(readelf -l "$work/debian/usr/sbin/nft" | sed -nE 's/.*interpreter: \/(.*)\]/\1/p')
    # What has its name may be an absolute link, to the loader of this machine.
    loader=$(find_library "$(basename "$interpreter")")
    install -D -m 0755 "$(realpath "$work/debian/$loader")" "$work/root/$interpreter"
    # Those of a few packages more than what is copied.
    (cd "$work/debian" && find usr/share/doc -name copyright -type f -exec install -D -m 0644 {} "$work/root/{}" \;)
    # What ca-certificates makes of its files when it is installed.
    install -d "$work/root/etc/ssl/certs"
    (cd "$work/debian/usr/share/ca-certificates/mozilla" && LC_ALL=C cat -- *.crt) \
        >"$work/root/etc/ssl/certs/ca-certificates.crt"
    install -d -m 1777 "$work/root/tmp"
    # Where the node's files and directories are mounted; a root that is read-only gets none later.
    install -d "$work/root"/{dev,proc,sys,etc/weir,etc/cni/net.d,opt/cni/bin,run/weir,var/lib/weir,host/proc/sys/net}
    : >"$work/root/etc/machine-id"
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
        --format=gnu -C "$work/root" -cf "$work/context/root.tar" .
}

# Runs podman so that it leaves nothing in the machine's directories.
podman() {
    # shellcheck disable=SC2016 # the inner shell expands it
    unshare --mount bash -c 'source "$0" && make_directories_private && exec podman "$@"' \
        "$REPOSITORY/scripts/lib.sh" "$@"
}

build() {
    install -m 0755 -t "$work/context" "$programs"/{weir,weir-ipam,weirctl}
    install -m 0644 -t "$work/context" LICENSE
    scripts/sbom.py "$version" "$architecture-unknown-linux-gnu" "$work/weir.cdx.json" \
        "$work/context/LICENCES"
    make_podman "$work/podman"
    quietly podman build --arch "$debian" --os linux --timestamp "$SOURCE_DATE_EPOCH" --format oci \
        --build-arg "VERSION=$version" --build-arg "REVISION=$(git rev-parse HEAD)" \
        --build-arg "CREATED=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)" \
        --tag "localhost/weir:$version" --file conf/oci/Containerfile "$work/context" ||
        fail "podman build failed; see above"
}

(($# >= 1)) || fail "which version? usage: scripts/image.sh VERSION [ARCHITECTURE [PROGRAMS [DIRECTORY]]]"
version=$1 architecture=${2:-$(uname -m)}
case $architecture in
x86_64) debian=amd64 ;;
aarch64) debian=arm64 ;;
*) fail "architecture $architecture is not built; write x86_64 or aarch64" ;;
esac
triplet=$architecture-linux-gnu
need_cargo
programs=$(realpath -m "${3:-$(programs_of release)}")
directory=$(realpath -m "${4:-$REPOSITORY/target/image}")
need_programs "$programs"
((EUID == 0)) || fail "run this as root"
cd "$REPOSITORY"
install_packages "${IMAGE_PACKAGES[@]}" "${BUILD_PACKAGES[@]}"
# The SBOM names the C libraries of the compiler that links for the architecture.
[[ $architecture == "$(uname -m)" ]] ||
    install_packages "gcc-${architecture//_/-}-linux-gnu" "libc6-dev-$debian-cross"
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
export SOURCE_DATE_EPOCH
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root" "$work/context" "$directory"
unpack_debian
make_root
build
archive=$directory/weir-image-$version-$architecture.tar
rm -f "$archive"
quietly podman save --format oci-archive --output "$archive" "localhost/weir:$version"
echo "$archive: localhost/weir:$version, $(podman image inspect --format '{{.Size}}' "localhost/weir:$version") bytes," \
    "image $(podman image inspect --format '{{.Id}}' "localhost/weir:$version")"
