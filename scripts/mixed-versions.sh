#!/usr/bin/env bash
# Tests an upgrade under way: the programs of an earlier version beside those of this one, then the
# upgrade and the downgrade of a package between the two.
#
# The argument is the earlier version's commit (3bbc9fb unless given). It is built in a
# directory of its own below target.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

earlier=${1:-3bbc9fb}
need_cargo
install_packages "${BUILD_PACKAGES[@]}" "${NETWORK_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
cd "$REPOSITORY"
tree=$REPOSITORY/target/mixed/$earlier
if [[ ! -d $tree ]]; then
    mkdir -p "$tree"
    git archive "$earlier" | tar -x -C "$tree"
fi
(cd "$tree" && CARGO_TARGET_DIR=$tree/target cargo build --locked --package weir --package weir-ipam --package weirctl)
WEIR_EARLIER_PROGRAMS=$(CARGO_TARGET_DIR=$tree/target programs_of debug)
export WEIR_EARLIER_PROGRAMS
cargo build --workspace --locked
as_root env "WEIR_EARLIER_PROGRAMS=$WEIR_EARLIER_PROGRAMS" "PATH=$PATH" \
    cargo test --package weir-tests --test mixed_versions --locked
cargo build --release --locked --package weir --package weir-ipam --package weirctl
as_root env "WEIR_EARLIER_PROGRAMS=$WEIR_EARLIER_PROGRAMS" scripts/test-package.sh
