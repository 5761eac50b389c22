#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The examples. README.md shows exactly the code of the first as it is compiled here, and it does what
# README says, also when it is built against the installed library. What else is installed works
# from there, too. Prints TAP.
# Usage: example.sh BUILD-DIRECTORY
# shellcheck disable=SC2016,SC2317 # `check` calls functions; README's marks are no expansions
set -u
build=$(cd "$1" && pwd) || exit 1
cd "$(dirname "$0")/../.." || exit 1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
number=0
failed=0

check() { # NAME COMMAND...
    name=$1
    shift
    number=$((number + 1))
    if "$@" >"$dir/log" 2>&1; then
        echo "ok $number - $name"
    else
        failed=1
        echo "not ok $number - $name"
        sed 's/^/# /' "$dir/log"
    fi
}

readme_shows_it() {
    sed -n '/^```c$/,/^```$/p' README.md | sed '/^```/d' >"$dir/shown.c"
    sed -n '/^#include/,$p' tests/examples/embed.c | diff - "$dir/shown.c"
}

# The VM counts to five; the clone goes on from wherever the snapshot was taken, to the byte.
it_counts() { # PROGRAM
    rm -rf "$dir/store"
    printf 'tick: ready interval 130000000\ntick 1\ntick 2\ntick 3\ntick 4\ntick 5\n' >"$dir/expected"
    "$1" "$build/guests/tick" "$dir/store" >"$dir/out" 2>"$dir/clone" || return 1
    diff "$dir/expected" "$dir/out" || return 1
    [ -s "$dir/clone" ] && tail -c "$(wc -c <"$dir/clone")" "$dir/expected" | diff - "$dir/clone"
}

# Each clone goes on from the snapshot of the run before, as its clone did.
it_serves() { # PROGRAM
    id=$("$build/thaw" ls --store "$dir/store" --json | sed -n 's/.*"id":"\([0-9a-f]*\)".*/\1/p')
    "$1" "$dir/store" "$id" 6 >"$dir/out" 2>"$dir/err" || { cat "$dir/err"; return 1; }
    for _ in 1 2 3 4 5 6; do cat "$dir/clone"; done | diff - "$dir/out" || return 1
    [ "$(grep -c "ready to run after" "$dir/err")" = 6 ]
}

it_says_why() { # PROGRAM
    "$1" "$dir/no-kernel" "$dir/store" 2>"$dir/err" && return 1
    grep -F "$dir/no-kernel" "$dir/err"
}

it_builds_from_readme() {
    cmake --install "$build" --prefix "$dir/usr" || return 1
    pc=$(find "$dir/usr" -name libthaw.pc)
    # shellcheck disable=SC2046 # options
    cc "$dir/shown.c" $(PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --define-prefix \
        --cflags --libs libthaw) -o "$dir/embed" || return 1
    LD_LIBRARY_PATH=$(dirname "$(dirname "$pc")")
    export LD_LIBRARY_PATH
    it_counts "$dir/embed"
}

the_guests_are_installed() {
    (cd "$build/guests" && find . -type f) | sort >"$dir/built"
    (cd "$dir/usr" && cd "$(dirname "$(find . -path '*/guests/tick')")" && find . -type f) |
        sort | diff "$dir/built" -
}

the_benchmark_runs() {
    THAW_GUESTS=$(dirname "$(find "$dir/usr" -path '*/guests/tick')") \
        "$dir/usr/bin/thaw-bench" reset --quick --dir "$dir"
}

program=$build/tests/examples/embed
check "README shows the example as it is" readme_shows_it
if [ ! -w /dev/kvm ]; then
    number=$((number + 1))
    echo "ok $number - the example runs # SKIP no access to /dev/kvm"
else
    check "the example runs a guest to its end" it_counts "$program"
    check "a pool serves clones of its snapshot" it_serves "$build/tests/examples/pool"
    check "the example says why it cannot" it_says_why "$program"
    # An instrumented library wants an instrumented program.
    if grep -q '^THAW_SANITIZE:STRING=$' "$build/CMakeCache.txt"; then
        check "the example builds against the installed library" it_builds_from_readme
        check "all guests are installed" the_guests_are_installed
        check "the installed benchmark runs" the_benchmark_runs
    fi
fi
echo "1..$number"
exit $failed
