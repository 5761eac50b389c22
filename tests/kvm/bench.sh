#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# That thaw-bench runs, and that its reports are complete. How long anything took is no test.
# shellcheck disable=SC2317 # functions that are called by name
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${1:-build}
bench=$build/thaw-bench
work=$(mktemp -d /var/tmp/thaw-test-XXXXXX) || exit 1
trap 'rm -rf "$work"' EXIT
number=0
status=0

check() { # NAME COMMAND...
    number=$((number + 1))
    name=$1
    shift
    if "$@" >"$work/out" 2>&1; then
        echo "ok $number - $name"
    else
        status=1
        echo "not ok $number - $name"
        tail -n 30 "$work/out" | sed 's/^/# /'
    fi
}

json() { # FILTER
    jq -e "$1" "$work/report.json"
}

exits_with() { # STATUS COMMAND...
    expected=$1
    shift
    "$@"
    [ $? = "$expected" ]
}

if [ ! -r /dev/kvm ] || [ ! -w /dev/kvm ]; then
    echo "ok 1 - thaw-bench # SKIP no /dev/kvm"
    echo "1..1"
    exit 0
fi
check "help" "$bench" --help
check "an unknown row is a wrong command line" exits_with 2 "$bench" no-such-row
check "no row is a wrong command line" exits_with 2 "$bench"
check "an unknown option is a wrong command line" exits_with 2 "$bench" all --slow
check "list" "$bench" list
rows=$("$bench" list | cut -d ' ' -f 1)

check "all rows run" "$bench" all --quick --peer none --dir "$work" --json "$work/report.json" --html "$work/report.html"
check "nothing is left in the scratch directory" test -z "$(find "$work" -name 'thaw-bench-*')"
check "the JSON report is valid" json .
for row in $rows; do
    check "row $row is in it" json "[.series[] | select(.row == \"$row\")] | length > 0"
done
check "no row failed" json '[.skipped[].row | select(contains(",") | not)] == []'
check "samples are all there" json '.series | map((.samples | length) == .count and .count > 0) | all'
check "percentiles are in order" json \
    '.series | map(.min <= .p50 and .p50 <= .p90 and .p90 <= .p99 and .p99 <= .max) | all'
check "targets have a name, words, a value and a verdict" json \
    '.targets | length >= 29 and all(.name and .target and has("value") and has("met"))'
check "what was not measured says why" json '.targets | map(.value != null or .note != null) | all'
check "all but the peer and the host's memory is measured" json \
    '[.targets[] | select(.value == null) | .name | select(test("QEMU|memory per clone") | not)] == []'
check "thaw and its floor have as many samples" json \
    '[.series[] | select(.row == "pool" and .metric == "first exit") | .count] | length == 6 and min == max'
check "restores are told apart into phases" json \
    '[.series[] | select(.row == "pool" and .metric == "phase: state")] | length == 6'
check "the machine is described" json '.environment | has("CPU") and has("kernel") and has("KVM backend")'
check "the HTML report has plots" grep -q '<svg' "$work/report.html"

"$bench" restore --dir "$work" >/dev/null 2>&1 &
pid=$!
sleep 2
kill -TERM "$pid"
check "a run that is interrupted fails" exits_with 1 wait "$pid"
check "and leaves nothing" test -z "$(find "$work" -name 'thaw-bench-*')"
echo "1..$number"
exit $status
