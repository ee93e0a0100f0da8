#!/usr/bin/env bash
# Fails when a direct dependency has no line in docs/dependencies.md, or a line
# there names none; when a dependency breaks a rule of deny.toml; and when a
# crate declares one that it does not use.
#
# Security advisories are checked where cargo-deny has their database: fetch it
# with `target/tools/checks/bin/cargo-deny fetch db`.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$REPOSITORY"

check_explained() {
    local declared explained difference
    declared=$(sed -n '/^\[workspace\.dependencies\]/,/^\[/p' Cargo.toml |
        sed -nE 's/^([a-z][a-z0-9_-]*) =.*/\1/p' | grep -vE '^weir(-|$)' | sort)
    # shellcheck disable=SC2016 # the backticks are Markdown's
    explained=$(sed -nE '/^## Programs/,$d; s/^\| (`.*`) \|.*/\1/p' docs/dependencies.md |
        grep -oE '[a-z][a-z0-9_-]*' | sort)
    difference=$(diff <(echo "$declared") <(echo "$explained")) || {
        echo "$difference" >&2
        fail "Cargo.toml (<) and docs/dependencies.md (>) differ"
    }
}

check_rules() {
    cargo-deny --offline --locked check --deny unmatched-skip --deny license-not-encountered \
        licenses bans sources
    if compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*/crates" >/dev/null; then
        cargo-deny --offline --locked check advisories
    else
        echo "advisories not checked: their database is not here (cargo-deny fetch db)"
    fi
}

need_cargo
check_explained
install_check_tools
# cargo-deny works offline: what it looks at is fetched first.
cargo fetch --quiet --locked
check_rules
cargo-shear --locked
