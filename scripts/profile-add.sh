#!/usr/bin/env bash
# Where the processor time of an ADD goes: samples 200 whole ADDs of weir on the embedded
# datastore, and prints a Markdown table for docs/performance.md.
#
# Builds weir with its symbols, and then works in network, mount and process namespaces of its
# own. Let nothing else run on the machine.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

CALLS=200
NETWORK='{"cniVersion":"1.0.0","name":"pods","type":"weir","ipam":{"type":"weir-ipam"}}'

# Makes a call of weir, or of the program $2.
call() {
    CNI_COMMAND=$1 CNI_CONTAINERID=web CNI_NETNS=/run/netns/web CNI_IFNAME=eth0 "${2:-weir}" \
        <<<"$NETWORK" >/dev/null 2>&1 || fail "$1 failed"
}

record() {
    perf record --quiet --strict-freq --freq 20000 --event cpu-clock --call-graph fp --all-cpus \
        --output "$1" -- "$0" --calls
}

profile() {
    export PATH=$1:$PATH CNI_PATH=$1
    make_directories_private
    make_uplink
    weirctl init --datastore-type=embedded >/dev/null
    weirctl create -f "$REPOSITORY/conf/pools/ippool-v3.yaml" >/dev/null
    ip netns add web
    call ADD
    call DEL
    record /run/adds
    perf script --input /run/adds --comm weir,tokio-rt-worker --fields comm,pid,ip,sym 2>/dev/null |
        "$REPOSITORY/scripts/profile-add.py" "$CALLS"
}

# DELs run under another name, by which they are left out.
calls() {
    local number
    ln -sf "$(command -v weir)" /run/other
    for ((number = 0; number < CALLS; number++)); do
        call ADD
        call DEL /run/other
    done
}

case ${1:-} in
--profile) profile "$2" ;;
--calls) calls ;;
*)
    need_cargo
    install_packages "${BUILD_PACKAGES[@]}" "${NETWORK_PACKAGES[@]}" linux-perf
    CARGO_PROFILE_RELEASE_STRIP=none cargo build --release --locked --package weir --package weirctl \
        --manifest-path "$REPOSITORY/Cargo.toml" --target-dir "$REPOSITORY/target/profile"
    as_root unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private \
        "$REPOSITORY/scripts/profile-add.sh" --profile \
        "$(dirname "$(find "$REPOSITORY/target/profile" -path '*/release/weir' -type f -print -quit)")"
    ;;
esac
