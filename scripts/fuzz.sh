#!/usr/bin/env bash
# Fuzzes: gives inputs, changed in whatever way leads to code not seen yet, to
# everything in Weir that reads something from outside (docs/fuzzing.md).
#
#   scripts/fuzz.sh [SECONDS [TARGET…]]
#   scripts/fuzz.sh --build    only builds what fuzzes
#
# SECONDS, 60 unless given, are for all targets together; without a TARGET it is
# every folder in tests/fuzz/corpus. It begins with the inputs in that folder and
# keeps what it learns in target/fuzz/learned. An input that breaks something is
# kept in target/fuzz/broken, and it says how to run it again.
#
# WEIR_FUZZ_SEED is where its random numbers begin (1), CARGO what builds it (cargo).
# It takes one processor and at most 2 GB of memory.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

CORPUS=$REPOSITORY/tests/fuzz/corpus
FUZZ=$REPOSITORY/target/fuzz
# The most bytes in an input, seconds for one, and megabytes in all.
LIMITS=(-max_len=16384 -timeout=20 -rss_limit_mb=2048)

# Compiles with counters at every branch, which stable Rust can do, and prints where
# the program is. Only what is built for the target gets the counters.
build() {
    local pass
    local flags=(-Cpasses=sancov-module)
    for pass in level=4 inline-8bit-counters pc-table trace-compares; do
        flags+=("-Cllvm-args=-sanitizer-coverage-$pass")
    done
    export RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR=$FUZZ/build
    "${CARGO:-cargo}" build --package weir-fuzz --features libfuzzer --profile fuzz --locked \
        --message-format=json-render-diagnostics |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

# Fuzzes target $2 for $3 seconds with program $1.
fuzz() {
    local program=$1 target=$2 seconds=$3 log=$FUZZ/$2.log status=0
    local learned=$FUZZ/learned/$target broken=$FUZZ/broken/$target
    mkdir -p "$learned" "$broken"
    WEIR_FUZZ_TARGET=$target timeout "$((seconds + 60))" nice "$program" \
        "${LIMITS[@]}" -max_total_time="$seconds" -seed="${WEIR_FUZZ_SEED:-1}" \
        -artifact_prefix="$broken/" -print_final_stats=1 -verbosity=1 \
        "$learned" "$CORPUS/$target" >"$log" 2>&1 || status=$?
    if ((status != 0)); then
        grep -A 4 -E 'panicked|ERROR: libFuzzer' "$log" | cut -c 1-1000
        echo "fuzz: $target broke (the log: $log); to run it again:"
        echo "  WEIR_FUZZ_TARGET=$target $program $(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)"
        return 1
    fi
    echo "fuzz: $target: $(sed -n 's/.*\(Done [0-9]* runs in [0-9]*\).*/\1 s/p' "$log"), no failure"
}

need_cargo
install_packages "${BUILD_PACKAGES[@]}" g++
if [[ ${1:-} == --build ]]; then
    build >/dev/null
    exit
fi
seconds=${1:-60}
shift || true
targets=("$@")
((${#targets[@]} > 0)) || mapfile -t targets < <(basename -a "$CORPUS"/*)
for target in "${targets[@]}"; do
    [[ -d $CORPUS/$target ]] || fail "there is no target $target; there are: $(basename -a "$CORPUS"/* | xargs)"
done
# To libFuzzer no time at all means for ever.
if ! [[ $seconds =~ ^[1-9][0-9]{0,5}$ ]] || ((seconds < ${#targets[@]})); then
    fail "$seconds is not a number of seconds for ${#targets[@]} targets; write at least ${#targets[@]}"
fi
echo "fuzz: ${targets[*]}: $seconds seconds in all"
program=$(build)
failed=0
for target in "${targets[@]}"; do
    fuzz "$program" "$target" "$((seconds / ${#targets[@]}))" || failed=$((failed + 1))
done
((failed == 0)) || fail "$failed of ${#targets[@]} targets broke"
