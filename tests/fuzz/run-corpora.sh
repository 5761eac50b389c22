#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every fuzz target over its stored inputs, once, and prints TAP: run-corpora.sh BUILD-DIR.
# To look for new inputs: BUILD-DIR/tests/fuzz/fuzz_X DIRECTORY tests/fuzz/corpus/fuzz_X
set -u

if [ $# -ne 1 ] || [ ! -d "$1/tests/fuzz" ]; then
    echo "usage: run-corpora.sh BUILD-DIR (of the preset fuzz)" >&2
    exit 2
fi
build=$(cd "$1" && pwd)
corpora=$(cd "$(dirname "$0")" && pwd)/corpus
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1 # where a crashing input would be left

number=0
status=0
for target in "$build"/tests/fuzz/fuzz_*; do
    if [ ! -x "$target" ] || [ ! -f "$target" ]; then
        continue
    fi
    name=$(basename "$target")
    inputs=$(find "$corpora/$name" -type f 2>/dev/null | wc -l)
    number=$((number + 1))
    if [ "$inputs" = 0 ]; then
        echo "not ok $number - $name has no stored inputs"
        status=1
    elif "$target" -runs=0 "$corpora/$name" >log 2>&1; then
        echo "ok $number - $name, $inputs inputs"
    else
        echo "not ok $number - $name, $inputs inputs"
        tail -n 40 log | sed 's/^/# /'
        status=1
    fi
done
echo "1..$number"
[ "$number" -gt 0 ] || status=1
exit $status
