#!/usr/bin/env bash
# Builds a release: tarballs, Debian packages, SBOM, licences, checksums.
#
# Usage: scripts/release.sh VERSION [DIRECTORY]
#
# For x86_64 and aarch64, into DIRECTORY (target/release-VERSION), from a checkout without
# changes. The same commit is to give the same bytes where compilers and C libraries are the same
# (the SBOM names them): times are the commit's (SOURCE_DATE_EPOCH), paths of the machine are not in
# the programs. With MINISIGN_KEY, a file with a minisign secret key, the checksums are signed; the
# password of an encrypted one is asked for after the build.
# ARCHITECTURES="x86_64" builds for that alone; the machine's own must be among them. Says in the
# end what is left to do.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

PROGRAMS=(weir weir-ipam weirctl)

# Refuses what is not the version in Cargo.toml, or has changes that no commit has.
check_source() {
    local own
    own=$(own_version)
    [[ $own == "$version" ]] || fail "Cargo.toml says version $own, not $version; change it first"
    [[ -z $(git status --porcelain) ]] || fail "there are changes that are not committed; commit them"
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
    export SOURCE_DATE_EPOCH
}

target_of() {
    echo "$1-unknown-linux-gnu"
}

# Builds the programs for all architectures at once (build scripts and macros are built once),
# without the machine's paths in them.
build() {
    local here flags arguments=() program architecture target
    # Compilers name the directory that they work in without symbolic links.
    here=$(pwd -P)
    CARGO_HOME=$(realpath "${CARGO_HOME:-$HOME/.cargo}")
    export CARGO_HOME
    flags="'--remap-path-prefix=$here=weir', '--remap-path-prefix=$CARGO_HOME=cargo'"
    flags+=", '--remap-path-prefix=$(rustc --print sysroot)=rust'"
    for program in "${PROGRAMS[@]}"; do
        arguments+=(--package "$program")
    done
    for architecture in "${architectures[@]}"; do
        target=$(target_of "$architecture")
        quietly rustup target add "$target"
        arguments+=(--target "$target" --config "target.$target.rustflags=[$flags]")
    done
    CFLAGS="-ffile-prefix-map=$here=weir -ffile-prefix-map=$CARGO_HOME=cargo" \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
        cargo build --release --locked --target-dir "$here/target/ship" "${arguments[@]}"
}

sign() {
    (cd "$directory" && sha256sum -- * >SHA256SUMS)
    [[ -n ${MINISIGN_KEY:-} ]] || return 0
    install_packages minisign
    minisign -S -s "$MINISIGN_KEY" -m "$directory/SHA256SUMS" -t "weir $version"
}

# What nobody but the maintainer can do, and what a user does with the files.
say_next() {
    local signature=
    [[ -n ${MINISIGN_KEY:-} ]] || signature="
  sign:    minisign -S -s KEY -m $directory/SHA256SUMS -t \"weir $version\""
    cat <<NEXT

Built from $(git log -1 --format=%H). Next:
  test:    scripts/test-package.sh $directory/weir_${version}_amd64.deb$signature
  tag:     git tag --sign v$version --message "Weir $version" && git push origin v$version
  upload:  all files in $directory
  verify, as users do, where the files are:
           minisign -V -P PUBLIC-KEY -m SHA256SUMS
           sha256sum --ignore-missing -c SHA256SUMS
NEXT
}

(($# >= 1)) || fail "which version? usage: scripts/release.sh VERSION [DIRECTORY]"
version=$1
cd "$REPOSITORY"
directory=$(realpath -m "${2:-target/release-$version}")
read -ra architectures <<<"${ARCHITECTURES:-x86_64 aarch64}"
need_cargo
install_packages "${BUILD_PACKAGES[@]}" "${RELEASE_PACKAGES[@]}"
check_source
[[ -z ${MINISIGN_KEY:-} || -r $MINISIGN_KEY ]] || fail "MINISIGN_KEY: $MINISIGN_KEY cannot be read; name the key's file"
[[ ! -e $directory ]] || fail "$directory is there already; remove it, or name another one"
mkdir -p "$directory"
build
own=$(rustc -vV | sed -n 's/^host: //p')
shared=$(mktemp -d)
trap 'rm -rf "$shared"' EXIT
# It is the same on all architectures; the machine's own program prints it.
write_documents "target/ship/$own/release/weirctl" "$shared"
for architecture in "${architectures[@]}"; do
    target=$(target_of "$architecture")
    scripts/sbom.py "$version" "$target" "$directory/weir-$version-$architecture.cdx.json" \
        "$shared/LICENCES-$architecture"
    scripts/package.sh "$version" "$architecture" "target/ship/$target/release" "$shared" "$directory"
done
sign
ls -l "$directory"
say_next
