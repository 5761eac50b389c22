#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds thaw, and shows what it can do, with times. Leaves build/ behind
# and nothing else. Needs a Linux host with /dev/kvm; as root also where no package is installed.
set -eu

usage() {
    cat <<'USAGE'
usage: tools/demo.sh [STEP]...

  packages    install what building needs
  build       build thaw and the small guests into build/
  host        what this host offers
  tick        a guest in the foreground: from process start to first output
  memtouch    a guest reads 32 MiB of data; the host checks the sum
  background  detach, list, pause, resume, stop
  snapshot    a running guest, two clones of it, a diff of one, restored again

Without arguments, all of them in this order.
USAGE
}

steps="packages build host tick memtouch background snapshot"
for arg; do
    case " $steps " in
    *" $arg "*) ;;
    *)
        case $arg in
        -h | --help)
            usage
            exit 0
            ;;
        esac
        echo "tools/demo.sh: there is no step '$arg'" >&2
        usage >&2
        exit 2
        ;;
    esac
done
# shellcheck disable=SC2086 # a list of words
[ $# -gt 0 ] || set -- $steps

top=$(cd "$(dirname "$0")/.." && pwd)
cd "$top"
thaw=$top/build/thaw
work=$(mktemp -d "${TMPDIR:-/tmp}/thaw-demo.XXXXXX")
THAW_RUNTIME=$work/run
export THAW_RUNTIME
unset THAW_GUESTS THAW_STORE
mkdir -m 700 "$THAW_RUNTIME"
running=

# Whatever happens, no VM and no file is left.
finish() {
    status=$?
    trap '' INT TERM HUP
    if [ -n "$running" ] && kill "$running" 2>/dev/null; then
        wait "$running" || :
    fi
    if [ -x "$thaw" ]; then
        for dir in "$THAW_RUNTIME"/*/; do
            [ -d "$dir" ] || continue
            "$thaw" stop "$(basename "$dir")" >/dev/null 2>&1 || :
        done
    fi
    rm -rf "$work"
    exit $status
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

now() { # nanoseconds
    date +%s%N
}

# The time from one now() to another, for people.
span() { # FROM TO
    us=$((($2 - $1) / 1000))
    if [ $us -lt 100000 ]; then
        printf '%d.%d ms' $((us / 1000)) $((us % 1000 / 100))
    else
        printf '%d.%d s' $((us / 1000000)) $((us % 1000000 / 100000))
    fi
}

title() {
    printf '\n%s\n' "$*"
}

result() { # WHAT FROM TO
    printf '  %-62s %10s\n' "$1" "$(span "$2" "$3")"
}

# Runs a command that the reader sees, and says how long it took, its process included.
show() { # thaw's ARGUMENTS...
    begin=$(now)
    "$thaw" "$@" >"$work/shown" 2>&1 || {
        sed 's/^/    /' "$work/shown" >&2
        echo "tools/demo.sh: 'thaw $*' failed" >&2
        exit 1
    }
    end=$(now)
    result "\$ thaw $(without_paths "$*")" "$begin" "$end"
    sed 's/^/    /' "$work/shown"
}

without_paths() { # TEXT
    printf '%s' "$1" | sed "s|$work/||g"
}

quietly() { # COMMAND...
    "$@" >"$work/log" 2>&1 || {
        tail -n 40 "$work/log" >&2
        echo "tools/demo.sh: '$*' failed" >&2
        exit 1
    }
}

# Runs a VM in the foreground, printing its console with indentation. Sets first_ns, when its first
# line was read, and leaves the console in $work/console.
watch_guest() { # thaw run's ARGUMENTS...
    rm -f "$work/pipe"
    mkfifo "$work/pipe"
    : >"$work/console"
    echo "  \$ thaw run $(without_paths "$*")"
    begin=$(now)
    "$thaw" run "$@" >"$work/pipe" 2>"$work/log" </dev/null &
    running=$!
    first_ns=
    while IFS= read -r line; do
        [ -n "$first_ns" ] || first_ns=$(now)
        printf '%s\n' "$line" >>"$work/console"
        printf '    %s\n' "$line"
    done <"$work/pipe"
    status=0
    wait "$running" || status=$?
    running=
    end=$(now)
    if [ $status != 0 ] || [ -z "$first_ns" ]; then
        cat "$work/log" >&2
        echo "tools/demo.sh: the guest ended with status $status" >&2
        exit 1
    fi
    result "from process start to first output" "$begin" "$first_ns"
    result "from process start to its end" "$begin" "$end"
    "$thaw" stop "$(basename "$THAW_RUNTIME"/*)" # the record that a VM leaves
}

# The number that a VM's guest last wrote to the mark port: the tick, or the pass.
mark_of() { # NAME
    "$thaw" ps --json | tr '{' '\n' | sed -n "s/^\"name\":\"$1\".*\"mark\":\([0-9]*\).*/\1/p"
}

step_packages() {
    title "Packages"
    begin=$(now)
    sh tools/packages.sh build
    result "everything that building needs is installed" "$begin" "$(now)"
}

step_build() {
    title "Build"
    tests=ON # needs a library that building thaw does not
    pkg-config --exists criterion || tests=OFF
    begin=$(now)
    quietly cmake --preset release -DTHAW_TESTS=$tests
    quietly cmake --build --preset release \
        --target thaw guest-tick guest-memtouch memtouch-data
    result "build/thaw and two small guests" "$begin" "$(now)"
}

step_host() {
    title "This host"
    begin=$(now)
    status=0
    "$thaw" doctor --json >"$work/doctor" 2>"$work/log" || status=$?
    end=$(now)
    if [ $status != 0 ]; then
        "$thaw" doctor >&2 || :
        echo "tools/demo.sh: this host cannot run VMs, see above" >&2
        exit 1
    fi
    result "\$ thaw doctor" "$begin" "$end"
    tr '{' '\n' <"$work/doctor" |
        sed -n 's/^"name":"\([^"]*\)","status":"degraded","found":"\([^"]*\)".*/    \1: \2/p'
}

step_tick() {
    title "A guest that counts, sleeping 50 ms between ticks"
    watch_guest --name tick --guest tick --cmdline ticks=5
}

make_data() {
    [ -f "$work/data" ] || build/memtouch-data -o "$work/data" 32
}

step_memtouch() {
    title "A guest that reads 32 MiB in random order"
    make_data
    watch_guest --name memtouch --guest memtouch --initrd "$work/data" \
        --cmdline "op=read order=rand passes=1"
    told=$(sed -n 's/.* sum //p' "$work/console")
    expected=$(build/memtouch-data -c 32)
    if [ "$told" != "$expected" ]; then
        echo "tools/demo.sh: the guest found the sum '$told' instead of '$expected'" >&2
        exit 1
    fi
    echo "  the host comes to the same sum"
}

step_background() {
    title "Two guests in the background"
    make_data
    show run --detach --name counter --guest tick
    show run --detach --name reader --guest memtouch --initrd "$work/data" --cmdline rate=100
    sleep 0.4
    show ps
    show pause counter
    before=$(mark_of counter)
    sleep 0.3
    after=$(mark_of counter)
    echo "    tick $before; 0.3 s later: tick $after"
    [ "$before" = "$after" ] || {
        echo "tools/demo.sh: the paused guest went on" >&2
        exit 1
    }
    show resume counter
    sleep 0.3
    echo "    0.3 s later: tick $(mark_of counter)"
    show stop counter reader
    show ps
}

begin_all=$(now)
# A row of the table that ends the demonstration: what it cost, from thaw's own report.
row() { # LABEL JSON-FILE
    printf '  %-34s %8s %10s %10s %10s\n' "$1" \
        "$(sed -n 's/.*"pages":\([0-9]*\).*/\1/p' "$2")" \
        "$(kib "$(sed -n 's/.*"stored_bytes":\([0-9]*\).*/\1/p' "$2")")" \
        "$(span 0 "$(sed -n 's/.*"pause_ns":\([0-9]*\).*/\1/p' "$2")")" \
        "$(span 0 "$(sed -n 's/.*"total_ns":\([0-9]*\).*/\1/p' "$2")")"
}

kib() { # BYTES
    printf '%d KiB' $((($1 + 1023) / 1024))
}

take() { # VM NAME
    "$thaw" snapshot "$1" --name "$2" --json >"$work/$2.json"
    printf '  $ thaw snapshot %s --name %s\n' "$1" "$2"
}

# Runs a clone and says which number it counts on from.
thaw_out() { # SNAPSHOT NAME MODE
    before=$(now)
    "$thaw" restore "$1" --name "$2" --mode "$3" --detach
    after=$(now)
    until mark=$(mark_of "$2") && [ -n "$mark" ] && [ "$mark" != 0 ]; do sleep 0.01; done
    result "\$ thaw restore $1 --name $2 --mode $3 --detach" "$before" "$after"
    first=$("$thaw" console "$2" </dev/null 2>/dev/null | sed -n '/^tick [0-9]/{p;q;}') || :
    echo "    its first line: $first"
}

step_snapshot() {
    title "A running guest, frozen while it counts, and thawed twice"
    THAW_STORE=$work/store
    export THAW_STORE
    quietly "$thaw" run --name source --guest tick --cmdline interval=20000000 --mem 128M --detach
    until [ "$(mark_of source)" -ge 10 ] 2>/dev/null; do sleep 0.01; done
    take source warm
    echo "    the source goes on; it is at $(mark_of source)"
    thaw_out warm one eager
    thaw_out warm two lazy
    take one later
    thaw_out later three lazy
    quietly "$thaw" stop source one two three
    quietly "$thaw" verify later
    printf '\n  %-34s %8s %10s %10s %10s\n' snapshot pages stored pause durable
    row "warm: full, of 128 MiB" "$work/warm.json"
    row "later: what clone one changed" "$work/later.json"
    show ls
}

for step; do
    "step_$step"
done
printf '\nDone in %s.\n' "$(span "$begin_all" "$(now)")"
