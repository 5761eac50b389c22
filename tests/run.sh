#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what is needed, builds, and runs the tests: all of them, or the groups that are named.
# Every test program prints TAP; this script only counts. Logs stay in build/test-logs.
set -eu

usage() {
    cat <<'EOF'
usage: tests/run.sh [unit | kvm | linux | fault | fuzz | headers]...

  unit     the library's parts, under AddressSanitizer and ThreadSanitizer
  kvm      small guests on this host's /dev/kvm: release build and sanitizers
  linux    stock Debian kernels as guests (nested in QEMU where KVM is not native)
  fault    every system call made to fail once
  fuzz     the stored inputs of all fuzz targets
  headers  public headers, layering, formatting, shell scripts

Without arguments, all of them. Ends with "N passed, N failed, N skipped".
EOF
}

groups="headers unit kvm fault fuzz linux"
chosen=
for arg in "$@"; do
    case "$arg" in
    -h | --help)
        usage
        exit 0
        ;;
    unit | kvm | linux | fault | fuzz | headers) chosen="$chosen $arg" ;;
    *)
        echo "tests/run.sh: unknown group '$arg'" >&2
        usage >&2
        exit 2
        ;;
    esac
done
[ -z "$chosen" ] || groups=$chosen

top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
logs=$top/build/test-logs
passed=0
failed=0
skipped=0

sh tools/packages.sh test
mkdir -p "$logs"

# The sanitizers stop at the first finding and make the program fail.
export ASAN_OPTIONS="detect_leaks=1:abort_on_error=0:strict_string_checks=1"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
export TSAN_OPTIONS="halt_on_error=1:suppressions=$top/tests/tsan.supp"

build() { # PRESET [TARGET...]
    preset=$1
    shift
    log=$logs/build-$preset.log
    echo "# building: $preset"
    if ! { cmake --preset "$preset" && cmake --build --preset "$preset" ${1:+--target "$@"}; } >"$log" 2>&1; then
        tail -n 40 "$log"
        echo "0 passed, 1 failed, 0 skipped"
        exit 1
    fi
}

# Runs one program that prints TAP. A program that fails without saying which test did counts as one
# failure, and so does one that hangs: after far longer than any takes on a busy machine, the log gets
# what every thread waits for, and all that the program started is killed.
limit=900
tap() { # NAME COMMAND...
    name=$1
    shift
    log=$logs/$(printf '%s' "$name" | tr ' /' '__').tap
    start=$(date +%s)
    status=0
    : >"$log"
    (
        sleep $((limit - 5)) && ps --ppid 2 -N -Lo pid,ppid,tid,stat,wchan:32,time,comm >>"$log"
    ) </dev/null >/dev/null 2>&1 &
    watchdog=$!
    timeout -k 10 "$limit" "$@" >>"$log" 2>&1 </dev/null || status=$?
    pkill -P "$watchdog" || true
    wait "$watchdog" || true
    [ "$status" != 124 ] && [ "$status" != 137 ] || echo "not ok - $name: killed after $limit s" >>"$log"
    ok=$(grep -cE '^ok\b' "$log" || true)
    skip=$(grep -ciE '^ok\b.*# *skip' "$log" || true)
    bad=$(grep -cE '^not ok\b' "$log" || true)
    if [ "$bad" = 0 ] && { [ "$status" != 0 ] || [ "$ok" = 0 ]; }; then
        bad=1
        echo "not ok - $name: status $status, $ok results" >>"$log"
    fi
    passed=$((passed + ok - skip))
    skipped=$((skipped + skip))
    failed=$((failed + bad))
    printf '%-44s %4d passed %3d failed %3d skipped  %4d s\n' \
        "$name" $((ok - skip)) "$bad" "$skip" $(($(date +%s) - start))
    grep -iE '^ok\b.*# *skip' "$log" | sed 's/^/    /' || true
    if [ "$bad" != 0 ]; then
        grep -vE '^ok\b' "$log" | tail -n 60 | sed 's/^/    /'
    fi
}

programs() { # PRESET-DIRECTORY GROUP [TESTS-AT-ONCE]
    for program in "$1/tests/$2"/*; do
        if [ ! -x "$program" ] || [ ! -f "$program" ]; then
            continue
        fi
        tap "$2 $(basename "$program") ($(basename "$1"))" "$program" --tap=/dev/stdout --quiet "-j${3:-1}"
    done
}

run_headers() {
    for script in tests/headers/*.sh; do
        tap "headers $(basename "$script" .sh)" sh "$script"
    done
}

run_unit() {
    build asan
    build tsan
    programs build-asan unit
    programs build-tsan unit
    tap "unit acpi-tables" sh tests/unit/acpi-tables.sh build-asan/tests/tools/acpi_dump
}

run_kvm() {
    build release
    build asan
    build tsan
    programs build kvm
    programs build-asan kvm
    programs build-tsan kvm
    for script in tests/kvm/*.sh; do
        [ -f "$script" ] || continue
        tap "kvm $(basename "$script" .sh) (build)" sh "$script" build
        tap "kvm $(basename "$script" .sh) (build-asan)" sh "$script" build-asan
    done
}

run_fault() {
    build asan
    # Making and freeing VMs is mostly waiting.
    programs build-asan fault 4
}

run_fuzz() {
    build fuzz fuzzers
    tap "fuzz corpora" sh tests/fuzz/run-corpora.sh build-fuzz
}

run_linux() {
    build release
    tap "linux" sh tests/linux/run.sh --thaw build/thaw --timeout $((limit - 60))
}

for group in $groups; do
    before=$passed
    "run_$group"
    # A group in which everything was skipped has shown nothing.
    if [ "$passed" = "$before" ]; then
        echo "$group: no test passed"
        failed=$((failed + 1))
    fi
done

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
