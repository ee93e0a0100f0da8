#!/usr/bin/env bash
# Fails when code or documentation has a misspelt word (typos.toml), or one that
# the project does not use: the field has a plainer one (docs/glossary.md).
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$REPOSITORY"

# Each in brackets somewhere, so that this list is not found itself.
UNUSED='keepe[r]|upkee[p]|ailmen[t]s?|lopside[d]|astra[y]|belie[d]|les[t]|ane[w]|mendin[g]|rehearsa[l]|doome[d]|surrounding[s]'

install_check_tools
typos
if git grep --line-number --ignore-case --word-regexp --extended-regexp "$UNUSED"; then
    fail "write these in plainer words"
fi
