#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The life of a VM through the command: run, ps, pause, resume, stop, its record, and exit statuses.
# shellcheck disable=SC2317 # functions that are called by name
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/kvm/lib/cli.sh
. tests/kvm/lib/cli.sh

# Help and version.
check "help goes to stdout" "$THAW" --help
for command in doctor run ps pause resume stop console; do
    "$THAW" "$command" --help >"$work/out" 2>"$work/err" </dev/null
    same "$command --help: status 0, on stdout only" "0 1 0" \
        "$? $(grep -c '^usage: thaw ' "$work/out") $(wc -l <"$work/err")"
done
check "version" sh -c "'$THAW' --version | grep -q '^thaw [0-9]'"
same "no VMs: an empty list" '{"items":[],"total":0}' "$("$THAW" ps --json)"
same "no VMs: only the head of the table" 1 "$("$THAW" ps | wc -l)"
check "doctor --json names its checks" sh -c \
    "'$THAW' doctor --json | jq -e '.total == (.items | length) and .items[0].name and .status'"
check "doctor's table has every check" sh -c \
    "test \$('$THAW' doctor | grep -cE ' (ok|degraded|missing) ') = \$('$THAW' doctor --json | jq .total)"

# In the foreground.
same "foreground: the guest's console is on stdout" "tick: ready
tick 1
tick 2" "$("$THAW" run --name fg --guest tick --cmdline "ticks=2 interval=1000" 2>/dev/null </dev/null |
    tr -d '\r' | sed 's/ready.*/ready/')"
check "foreground: exit status 0 for a guest that exits with 0" \
    "$THAW" run --name fg --guest tick --cmdline "ticks=2 interval=1000"
same "a VM that ended by itself leaves its record" "stopped exit 0" \
    "$(vm fg state) $(vm fg reason) $(vm fg exit_status)"
check "its console can still be read" sh -c "'$THAW' console fg | grep -q 'tick 2'"
check "its name can be used again" "$THAW" run --name fg --guest tick --cmdline "ticks=1 interval=1000"
refused "a VM that ended cannot be paused" 1 "VM 'fg' has ended" "$THAW" pause fg
check "stop removes the record" "$THAW" stop fg
same "and it is gone" "" "$(names)"
"$THAW" run --name bad --guest memtouch >"$work/out" 2>"$work/err" </dev/null
same "foreground: a guest's exit status other than 0 is 1, and said" "1 thaw: VM 'bad' ended with exit status 1" \
    "$? $(cat "$work/err")"
same "and is recorded" "stopped exit 1" "$(vm bad state) $(vm bad reason) $(vm bad exit_status)"
check "foreground --json: the VM on stdout when it has ended" sh -c \
    "'$THAW' run --name j --guest tick --cmdline 'ticks=1 interval=1000' --json </dev/null | jq -e '.state == \"stopped\"'"
"$THAW" stop bad j

# Signals in the foreground.
for signal in INT TERM HUP; do
    # A shell's background commands ignore SIGINT; env gives it back.
    env --default-signal=INT "$THAW" run --name sig --guest tick >"$work/console" 2>&1 </dev/null &
    pid=$!
    soon has_state sig running
    soon log_has "$work/console" "tick 1"
    kill -s "$signal" "$pid"
    wait "$pid"
    same "SIG$signal stops the VM: status 0, no record" "0 " "$? $(names)"
done
same "nothing is left in the runtime directory" "" "$(ls "$THAW_RUNTIME")"
check "a closed pipe ends the VM" sh -c "'$THAW' run --name p --guest tick --cmdline interval=1000 </dev/null | head -n 1"
soon test -z "$(names)"

# Detached.
"$THAW" run --name d --guest tick --detach --mem 64M --template base --json >"$work/vm" </dev/null
same "detach --json prints the running VM" "d running 67108864 base tick 1" \
    "$(jq -r '"\(.name) \(.state) \(.mem_bytes) \(.template) \(.guest) \(.cpus)"' "$work/vm")"
same "ps --json knows it" "d running $(jq .pid "$work/vm")" "$(vm d '| "\(.name) \(.state) \(.pid)"' | sed 's/^\.//')"
check "it is its own session, and its directory is private" sh -c \
    "test \$(ps -o sid= -p $(vm d pid)) = $(vm d pid) && test \$(stat -c %a '$THAW_RUNTIME/d') = 700"
same "ps shows it" 1 "$("$THAW" ps | grep -cE '^d +[0-9]+ +running +1 +64M +[0-9]+s +base$')"
exec 9>"$work/lock"
flock 9
"$THAW" run --name o --guest tick --detach </dev/null
exec 9>&-
check "a detached process holds nothing of its starter's" flock -n "$work/lock" true
"$THAW" stop o
refused "a name is used once" 1 "in use" "$THAW" run --name d --guest tick --detach
check "pause" "$THAW" pause d
same "it is paused" "paused request" "$(vm d state) $(vm d reason)"
before=$(vm d marks)
sleep 0.3
same "a paused VM does nothing" "$before" "$(vm d marks)"
check "pausing a paused VM is fine" "$THAW" pause d
same "resume --json prints the running VM" running "$("$THAW" resume d --json | jq -r .state)"
check "resuming a running VM is fine" "$THAW" resume d
moved() { [ "$(vm d marks)" -gt "$before" ]; }
check "it goes on" soon moved
pid=$(vm d pid)
same "stop --json prints the stopped VM" stopped "$("$THAW" stop d --json | jq -r .state)"
check "stop waits until the process is gone" gone "$pid"
same "a VM that was stopped leaves nothing" "" "$(ls "$THAW_RUNTIME")"
refused "stop of an unknown name" 1 "no VM named 'd'" "$THAW" stop d

# A process that dies without a word.
"$THAW" run --name k --guest tick --detach </dev/null
kill -9 "$(vm k pid)"
check "a killed process is noticed" soon has_state k failed
same "and shown as such" "process died" "$(vm k detail)"
check "its console can be read" sh -c "'$THAW' console k >/dev/null"
check "its name can be used again" "$THAW" run --name k --guest tick --detach
same "and runs" running "$(vm k state)"

# A process that does not answer.
kill -STOP "$(vm k pid)"
same "a process that hangs is shown as such" "running does not answer" "$(vm k state) $(vm k detail)"
kill -CONT "$(vm k pid)"
check "and can be stopped once it answers" "$THAW" stop k

# Relative paths stay good.
ln -s "$(realpath "$build/guests/tick")" "$work/my kernel.elf"
check "a kernel by relative path" sh -c \
    "thaw=\$(realpath '$THAW') && cd '$work' && \$thaw run --name r --kernel './my kernel.elf' --cmdline 'ticks=1 interval=1000' </dev/null"
same "its template is the kernel's name, as a name" "tick" "$(vm r template)"
check "a relative THAW_RUNTIME" sh -c \
    "thaw=\$(realpath '$THAW') && cd '$work' && THAW_RUNTIME=rel \$thaw run --name r --guest tick --detach && THAW_RUNTIME=rel \$thaw stop r"
"$THAW" stop r
finish
