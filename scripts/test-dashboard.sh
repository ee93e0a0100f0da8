#!/usr/bin/env bash
# Tests the dashboard's page in Chromium: on a small server for states that are hard to make, and on
# the real `weirctl dashboard` with an etcd of 1,000 nodes and 10,000 blocks.
#
#     scripts/test-dashboard.sh              the tests
#     scripts/test-dashboard.sh --measure    measures with release programs instead, prints Markdown for
#                                            docs/performance.md, and fails when a target is missed
#
# Screenshots of the real page are in target/dashboard afterwards. All runs in network and mount
# namespaces of its own: the page could reach nothing else, and the machine stays as it is.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

TESTS=$REPOSITORY/tests/browser
SHOTS=$REPOSITORY/target/dashboard

prepare() {
    need_cargo
    install_packages "${BUILD_PACKAGES[@]}" "${NETWORK_PACKAGES[@]}" "${BROWSER_PACKAGES[@]}" \
        etcd-server etcd-client
    need_node
    quietly npm --prefix "$TESTS" ci || fail "npm could not install what tests/browser/package.json names"
    cargo build --locked "$@" --manifest-path "$REPOSITORY/Cargo.toml" --package weir-ipam --package weirctl
    mkdir -p "$SHOTS"
}

# Inside the namespaces: runs node in the directory of the tests.
run_node() {
    make_directories_private
    ip link set lo up
    cd "$TESTS"
    exec node "$@"
}

# Runs node in namespaces, with the programs of the profile $1.
isolated() {
    local programs
    programs=$(programs_of "$1")
    shift
    as_root env WEIR_PROGRAMS="$programs" WEIR_SCREENSHOTS="$SHOTS" \
        unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private \
        "$REPOSITORY/scripts/test-dashboard.sh" --inside "$@"
}

case ${1:-} in
--inside) run_node "${@:2}" ;;
--measure)
    prepare --release
    isolated release measure.js --check
    ;;
*)
    prepare
    isolated debug --test "$@"
    echo "test-dashboard: all tests passed; screenshots are in $SHOTS"
    ;;
esac
