#!/usr/bin/env bash
# Checks conf/grafana/weir.json against Grafana's schema of dashboards, as Grafana's own library
# for Go reads it: tests/dashboard.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

need_go
cd "$REPOSITORY/tests/grafana"
GOFLAGS='-modcacherw -mod=readonly' "$GO" run . "$REPOSITORY/conf/grafana/weir.json"
