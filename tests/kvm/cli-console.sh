#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The console: input and output in pipes and on a terminal, escape keys, the terminal afterwards.
# shellcheck disable=SC2317 # functions that are called by name
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/kvm/lib/cli.sh
. tests/kvm/lib/cli.sh

# Runs a shell command on a terminal of its own; what is typed is stdin. The terminal's modes before
# and after it are left in $work/before and $work/after, its exit status in $work/status. A command
# that was to end and does not is killed: its modes and status are then not what is expected.
on_terminal() { # COMMAND
    rm -f "$work/status" "$work/after"
    timeout -k 5 120 script -qfec "stty -g >'$work/before'; $1; echo \$? >'$work/status'; stty -g >'$work/after'" \
        "$work/typescript" >/dev/null 2>&1
}

type_when() { # FILE TEXT KEYS
    soon log_has "$1" "$2"
    # shellcheck disable=SC2059
    printf "$3"
}

restored() { # NAME STATUS
    same "$1: status $2, terminal as before" "$2 $(cat "$work/before")" \
        "$(cat "$work/status") $(cat "$work/after")"
}

# Foreground, in pipes.
: >"$work/console"
# shellcheck disable=SC2094
type_when "$work/console" "tick 1" 'hello\n' |
    "$THAW" run --name f --guest tick --cmdline "ticks=10" >"$work/console" 2>&1
check "foreground: stdin reaches the guest" log_has "$work/console" "tick: input hello"
"$THAW" stop f

# Foreground, on a terminal.
: >"$work/typescript"
type_when "$work/typescript" "tick 2" '\003' | on_terminal "$THAW run --name t --guest tick"
restored "Ctrl-C" 0
same "Ctrl-C stops the VM" "" "$(names)"
: >"$work/typescript"
type_when "$work/typescript" "tick 2" '\001x' | on_terminal "$THAW run --name t --guest tick"
restored "Ctrl-A x" 0
same "Ctrl-A x stops the VM" "" "$(names)"
: >"$work/typescript"
{
    type_when "$work/typescript" "tick 1" 'typed\r'
    type_when "$work/typescript" "input typed" '\001x'
} | on_terminal "$THAW run --name t --guest tick"
check "what is typed reaches the guest" log_has "$work/typescript" "tick: input typed"
: >"$work/typescript"
{
    soon has_state t running
    soon log_has "$work/typescript" "tick 1"
    kill -TERM "$(vm t pid)"
    sleep 1
} | on_terminal "$THAW run --name t --guest tick"
restored "SIGTERM" 0
: >"$work/typescript"
{ sleep 2; } | on_terminal "$THAW run --name t --guest tick --cmdline 'ticks=2 interval=1000'"
restored "a guest that ends" 0
: >"$work/typescript"
{
    soon log_has "$work/typescript" "tick 1"
    kill -SEGV "$(vm t pid)"
    sleep 1
} | on_terminal "ASAN_OPTIONS=handle_segv=0 $THAW run --name t --guest tick"
same "even a crash restores the terminal" "$(cat "$work/before")" "$(cat "$work/after")"
"$THAW" stop t

# Attached to a detached VM.
"$THAW" run --name d --guest tick --detach </dev/null
within 1 "$THAW" console d >"$work/out" </dev/null
same "console shows what was before, and follows" "1 1" \
    "$(grep -c '^tick: ready' "$work/out") $(grep -cw 'tick 5' "$work/out")"
{
    echo piped
    sleep 1
} | within 2 "$THAW" console d >"$work/console"
check "console: stdin reaches the guest" log_has "$work/console" "tick: input piped"
same "console --tail 0 begins with what is new" 0 "$(within 0.5 "$THAW" console --tail 0 d </dev/null | grep -c ready)"
same "console ends when its reader does" "0" "$({
    "$THAW" console d </dev/null
    echo $? >"$work/status"
} | head -n 1 >/dev/null; soon test -s "$work/status"; cat "$work/status")"
: >"$work/typescript"
type_when "$work/typescript" "tick 2" '\001d' | on_terminal "$THAW console d"
restored "Ctrl-A d" 0
same "Ctrl-A d leaves the VM running" running "$(vm d state)"
: >"$work/typescript"
{
    type_when "$work/typescript" "tick 1" 'ab\003\r'
    soon log_has "$work/typescript" "input ab"
    printf '\001d'
} | on_terminal "$THAW console d"
check "Ctrl-C is the guest's" log_has "$work/typescript" "tick: input ab"
same "and leaves the VM running" running "$(vm d state)"
within 120 "$THAW" console d >"$work/out" </dev/null &
pid=$!
soon log_has "$work/out" "tick 1"
"$THAW" stop d
wait "$pid"
same "console ends well when the VM is stopped" 0 "$?"
"$THAW" run --name d --guest tick --detach </dev/null
within 120 "$THAW" console d >"$work/out" 2>"$work/err" </dev/null &
pid=$!
soon log_has "$work/out" "tick 1"
kill -9 "$(vm d pid)"
wait "$pid"
same "console says so when the process dies" "1 1" "$? $(grep -c '^thaw: .*died' "$work/err")"
"$THAW" stop d

# A reader that hangs can be ended.
mkfifo "$work/fifo"
"$THAW" run --name h --guest tick --cmdline "interval=1 wait=spin nonce=$(printf '%060d' 0)" --detach </dev/null
# shellcheck disable=SC2217 # it only keeps the pipe open
sleep 5 <"$work/fifo" &
env --default-signal=INT "$THAW" console h >"$work/fifo" </dev/null &
pid=$!
sleep 1
kill -TERM "$pid"
check "console ends on SIGTERM, also while its reader hangs" soon gone "$pid"
"$THAW" stop h

# A guest that writes much: the log is bounded, the guest never waits.
"$THAW" run --name l --guest tick --cmdline "interval=1 nonce=$(printf '%060d' 0) wait=spin" --detach </dev/null
within 3 "$THAW" console l </dev/null | {
    sleep 2
    wc -c >"$work/read"
} &
before=$(vm l marks)
sleep 1
moved() { [ "$(vm l marks)" -gt "$before" ]; }
check "a reader that does not read does not stop the guest" moved
wait
check "the log stays within its bounds" test "$(du -cb "$THAW_RUNTIME"/l/console.log* | tail -n 1 | cut -f 1)" -le 1048576
"$THAW" stop l
finish
