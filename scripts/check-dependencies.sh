#!/usr/bin/env bash
# Fails when a direct dependency has no line in docs/dependencies.md, or a line
# there names none.
set -euo pipefail
cd "$(dirname "$0")/.."

declared=$(sed -n '/^\[workspace\.dependencies\]/,/^\[/p' Cargo.toml |
    sed -nE 's/^([a-z][a-z0-9_-]*) =.*/\1/p' | grep -vE '^weir(-|$)' | sort)
# shellcheck disable=SC2016 # the backticks are Markdown's
explained=$(sed -nE 's/^\| (`.*`) \|.*/\1/p' docs/dependencies.md | grep -oE '[a-z][a-z0-9_-]*' | sort)
difference=$(diff <(echo "$declared") <(echo "$explained")) || {
    echo "Cargo.toml (<) and docs/dependencies.md (>) differ:" >&2
    echo "$difference" >&2
    exit 1
}
