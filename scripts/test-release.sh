#!/usr/bin/env bash
# Builds a release twice, from two clean clones in different directories and with cargo's files in
# different places. Fails unless all files are the same, byte by byte. Then looks whether the SBOMs
# have what was compiled, licences are complete, checksums and signature hold, and the programs are
# static; runs those of aarch64, and upgrades the package (scripts/test-package.sh).
#
# Usage: scripts/test-release.sh
#
# Tests the last commit. ARCHITECTURES as for scripts/release.sh. One release of both architectures
# takes 11 minutes on two idle processors, 19 minutes of their time; this takes more than twice that.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

# Builds a release from a clone in $1, with CARGO_HOME in $2, into $3; says what it took.
release() {
    git clone --quiet "$REPOSITORY" "$1"
    local TIMEFORMAT='built in %R s, of the processors %U s for users, %S s in the kernel'
    time quietly env "CARGO_HOME=$2" "MINISIGN_KEY=$work/key" "$1/scripts/release.sh" "$version" "$3"
}

# Another CARGO_HOME, with what is downloaded already. No symbolic link: compilers
# look through it.
move_cargo_home() {
    mkdir -p "$1"
    cp -r "$cargo_home/registry" "$1/registry"
}

# Fails if a file differs; says which, down to the programs.
compare() {
    local file name differ=0
    for file in "$first"/*; do
        name=$(basename "$file")
        cmp "$file" "$second/$name" || differ=1
    done
    for file in "$one"/target/ship/*/release/{weir,weir-ipam,weirctl}; do
        cmp "$file" "${file/#$one/$other}" || differ=1
    done
    [[ $(cd "$first" && echo *) == "$(cd "$second" && echo *)" ]] || fail "there are other files"
    ((differ == 0)) || fail "the two releases differ; see above"
    echo "all $(find "$first" -type f | wc -l) files are the same"
}

# Prints what an SBOM has of the registry, as NAME-VERSION.
of_sbom() {
    sed -nE 's:^ +"purl"\: "pkg\:cargo/([^"@]+)@([^"]+)".*:\1-\2:p' "$1" | sort -u
}

# Prints what was compiled for a target: the registry's from what rustc read, and the own crates.
compiled() {
    {
        grep -ohE '/registry/src/[^/]+/[^/]+/' "$one/target/ship/$1/release/deps/"*.d | awk -F/ '{ print $5 }'
        of_sbom "$2" | grep -E "^weir(ctl|-[a-z]+)?-$version\$"
    } | sort -u
}

# Looks at the SBOM and the licences of an architecture.
look_at_bom() {
    local target=$1-unknown-linux-gnu bom=$first/weir-$version-$1.cdx.json crate licences
    diff <(of_sbom "$bom") <(compiled "$target" "$bom") || fail "the SBOM (<) is not what was compiled (>)"
    ! grep -n NOASSERTION "$bom" || fail "there is a crate without a licence"
    licences=$(tar -xOzf "$first/weirctl-linux-$2-v$version.tgz" ./LICENCES)
    while read -r crate; do
        [[ $crate == weir*-"$version" ]] || grep -q "^${crate%-*} ${crate##*-} (" <<<"$licences" ||
            fail "LICENCES has nothing of $crate"
    done < <(of_sbom "$bom")
    echo "the SBOM of $1 has the $(of_sbom "$bom" | wc -l) crates that were compiled, each with its licence"
}

look_at_programs() {
    local program kind
    for program in "$one/target/ship/$1"-*/release/{weir,weir-ipam,weirctl}; do
        kind=$(file --brief "$program")
        [[ $kind == *"statically linked"* ]] || fail "$program is not static: $kind"
        ! grep -qaF -e "$work" -e "$cargo_home" -e "$HOME/.rustup" "$program" ||
            fail "$program has a path of this machine"
    done
    stat --format '%s bytes: %n' "$one/target/ship/$1"-*/release/{weir,weir-ipam,weirctl}
}

need_cargo
install_packages "${BUILD_PACKAGES[@]}" "${RELEASE_PACKAGES[@]}" "${RELEASE_TEST_PACKAGES[@]}"
version=$(own_version)
cargo_home=${CARGO_HOME:-$HOME/.cargo}
read -ra architectures <<<"${ARCHITECTURES:-x86_64 aarch64}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
one=$work/weir other=$work/another/place/of-weir first=$work/first second=$work/second
quietly minisign -G -W -p "$work/key.pub" -s "$work/key"
release "$one" "$cargo_home" "$first"
move_cargo_home "$work/cargo"
release "$other" "$work/cargo" "$second"
compare
(cd "$first" && sha256sum --quiet -c SHA256SUMS)
minisign -V -p "$work/key.pub" -m "$first/SHA256SUMS"
for architecture in "${architectures[@]}"; do
    case $architecture in
    x86_64)
        look_at_programs x86_64
        look_at_bom x86_64 amd64
        as_root "$REPOSITORY/scripts/test-package.sh" "$first/weir_${version}_amd64.deb"
        ;;
    aarch64)
        look_at_programs aarch64
        look_at_bom aarch64 arm64
        "$REPOSITORY/scripts/test-aarch64.sh" "$one/target/ship/aarch64-unknown-linux-gnu/release"
        ;;
    esac
done
echo "test-release: everything is as it should be"
