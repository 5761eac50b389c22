# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# What the tests of the command share: a runtime directory of their own, TAP, and waiting.
# Usage: . lib/cli.sh BUILD-DIRECTORY

build=${1:-build}
: "${THAW:=$build/thaw}"
export THAW_RUNTIME THAW_STORE
work=$(mktemp -d /tmp/thaw-cli.XXXXXX)
THAW_RUNTIME=$work/run
unset THAW_STORE
# Detached processes have no stderr: what a sanitizer finds in them goes to a file.
ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}log_path=$work/sanitizer"
UBSAN_OPTIONS="${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}log_path=$work/sanitizer"
export ASAN_OPTIONS UBSAN_OPTIONS
number=0
failed=0

ok() { # NAME
    number=$((number + 1))
    echo "ok $number - $1"
}

not_ok() { # NAME [DETAIL]...
    number=$((number + 1))
    failed=1
    echo "not ok $number - $1"
    shift
    printf '%s\n' "$@" | sed 's/^/# /'
}

skip() { # NAME WHY
    number=$((number + 1))
    echo "ok $number - $1 # SKIP $2"
}

# Tests that a command succeeds. Its output goes to files that no test writes to by itself, for a
# test may have another command running meanwhile.
check() { # NAME COMMAND...
    name=$1
    shift
    if "$@" >"$work/checked.out" 2>"$work/checked.err"; then
        ok "$name"
    else
        not_ok "$name" "status $? from: $*" "$(cat "$work/checked.out" "$work/checked.err")"
    fi
}

# Tests that two texts are the same.
same() { # NAME EXPECTED FOUND
    if [ "$2" = "$3" ]; then
        ok "$1"
    else
        not_ok "$1" "expected: $2" "found:    $3"
    fi
}

# Runs a command and ends it with SIGTERM after that long. In the foreground, since timeout sends
# SIGCONT too otherwise, which takes back a SIGSTOP that is pending: a leak checker stops the program
# with one as it exits, and would wait for that stop for ever.
within() { # SECONDS COMMAND...
    timeout --foreground "$@"
}

# Tests that a command fails with this status and exactly one line on stderr that begins with
# "thaw: " and contains TEXT, and prints nothing on stdout.
refused() { # NAME STATUS TEXT COMMAND...
    name=$1
    status=$2
    text=$3
    shift 3
    found=0
    within 20 "$@" >"$work/checked.out" 2>"$work/checked.err" </dev/null || found=$?
    if [ "$found" != "$status" ]; then
        not_ok "$name" "status $found, expected $status" "$(cat "$work/checked.out" "$work/checked.err")"
    elif [ "$(wc -l <"$work/checked.err")" != 1 ] || ! grep -q '^thaw: ' "$work/checked.err"; then
        not_ok "$name" "not one line that begins with 'thaw: '" "$(cat "$work/checked.err")"
    elif ! grep -qF -- "$text" "$work/checked.err"; then
        not_ok "$name" "expected: $text" "found:    $(cat "$work/checked.err")"
    elif [ -s "$work/checked.out" ]; then
        not_ok "$name" "stdout should be empty" "$(cat "$work/checked.out")"
    else
        ok "$name"
    fi
}

# Repeats a command until it succeeds, for at most a minute.
soon() { # COMMAND...
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 1200 ] || return 1
        sleep 0.05
    done
}

vm() { # NAME FIELD
    "$THAW" ps --json | jq -r --arg name "$1" ".items[] | select(.name == \$name) | .$2"
}

has_state() { # NAME STATE
    [ "$(vm "$1" state)" = "$2" ]
}

log_has() { # FILE TEXT
    grep -qF -- "$2" "$1"
}

# True if the process has ended, also where nobody collects it.
gone() { # PID
    ! grep -qE '^[0-9]+ \(.*\) [^ZX]' "/proc/$1/stat" 2>/dev/null
}

names() {
    "$THAW" ps --json | jq -r '[.items[].name] | join(" ")'
}

finish() {
    names | tr ' ' '\n' | while read -r name; do
        [ -z "$name" ] || "$THAW" stop "$name"
    done
    if ls "$work"/sanitizer.* >/dev/null 2>&1; then
        not_ok "the sanitizers found nothing" "$(cat "$work"/sanitizer.*)"
    else
        ok "the sanitizers found nothing"
    fi
    echo "1..$number"
    rm -rf "$work"
    exit "$failed"
}
