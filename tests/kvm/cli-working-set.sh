#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Recording a working set through the command, and what is told of it.
# shellcheck disable=SC2317 # functions that are called by name
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/kvm/lib/cli.sh
. tests/kvm/lib/cli.sh
# shellcheck source=tests/kvm/lib/snapshot.sh
. tests/kvm/lib/snapshot.sh

recorded() { # VM
    [ "$(vm "$1" working_set.recording)" = false ]
}

pages_of() { # SNAPSHOT
    "$THAW" inspect "$1" --json | jq -r '.working_set.pages'
}

"$build/memtouch-data" -o "$work/data" 4
"$THAW" run --name m --guest memtouch --initrd "$work/data" --mem 32 --detach \
    --cmdline "op=read order=rand ws=1" </dev/null
soon ticked m 2
"$THAW" pause m
pass=$(vm m mark)
check "a snapshot" "$THAW" snapshot m --name s --kill
same "has no working set" "0 null" "$(snapshot s hot_bytes) $("$THAW" inspect s --json | jq -c .working_set)"

refused "--record-until alone" 2 "needs --record-working-set" "$THAW" restore s --record-until 3
refused "recording what is read first" 2 "lazily" "$THAW" restore s --record-working-set --mode eager
for until in 0 3601 ""; do
    refused "bad --record-until '$until'" 2 "neither" \
        "$THAW" restore s --record-working-set "--record-until=$until"
done

"$THAW" restore s --name none --detach </dev/null
same "a VM that is not recorded says so" null "$(vm none working_set)"
"$THAW" stop none

# Until a text.
"$THAW" restore s --name text --record-working-set --record-until "pass $((pass + 2)) " --paused --detach --json \
    >"$work/vm" </dev/null
same "it is recorded from the start" "true 0 null" \
    "$(jq -r '.working_set | "\(.recording) \(.pages) \(.error)"' "$work/vm")"
"$THAW" resume text
check "the text ends it" soon recorded text
check "and the VM goes on" soon ticked_on text
check "it has the pages of the guest" test "$(vm text working_set.pages)" -ge 256
check "and no others" test "$(vm text working_set.pages)" -le 400
same "inspect tells the same" "$(vm text working_set.pages)" "$(pages_of s)"
same "and ls its size" "$(vm text working_set.bytes)" "$(snapshot s hot_bytes)"
check "the snapshot verifies" "$THAW" verify s
"$THAW" stop text

# With it.
"$THAW" restore s --name with --detach </dev/null
check "a VM that uses it runs" soon ticked_on with
"$THAW" stop with

# For some time.
"$THAW" restore s --name time --record-working-set --record-until 1 --detach </dev/null
check "time ends it" soon recorded time
"$THAW" stop time

# To the end of the VM.
"$THAW" restore s --name end --record-working-set --record-until 'never printed' --json \
    >"$work/vm" 2>"$work/err" </dev/null &
pid=$!
soon ticked_on end
"$THAW" stop end
wait "$pid"
check "the end of the VM ends it" \
    jq -e '.state == "stopped" and .working_set.recording == false and .working_set.pages >= 256' \
    "$work/vm"

# While much is being stored.
"$build/memtouch-data" -o "$work/data" 64
"$THAW" run --name b --guest memtouch --initrd "$work/data" --mem 128 --detach --cmdline "op=read ws=60" </dev/null
soon ticked b 1
"$THAW" pause b
until="memtouch: pass $(($(vm b mark) + 2)) "
"$THAW" snapshot b --name big --kill >/dev/null
record() { # VM
    "$THAW" restore big --name "$1" --record-working-set --record-until "$until" --detach </dev/null
    soon log_has "$THAW_RUNTIME/$1/console.log" "$until"
}
record answers
same "the VM answers" "true 0 null" "$(vm answers "working_set | \"\(.recording) \(.pages) \(.error)\"")"
check "until it is stored" soon recorded answers
same "what it has then is what is there" "$(vm answers working_set.pages)" "$(pages_of big)"
"$THAW" stop answers
before=$(stat -c %i "$work/store/hot/$(id_of big)")
record stopped
pid=$(vm stopped pid)
same "it can be stopped" "0 " "$("$THAW" stop stopped 2>&1; echo $?) $(names)"
check "which ends its process" gone "$pid"
check "once it is stored" test "$(stat -c %i "$work/store/hot/$(id_of big)")" != "$before"
check "the snapshot verifies" "$THAW" verify big
"$THAW" rm big

# Damage.
hot=$work/store/hot/$(id_of s)
printf x | dd of="$hot" bs=1 seek=40 conv=notrunc 2>/dev/null
same "a damaged one is like none" null "$("$THAW" inspect s --json | jq -c .working_set)"
"$THAW" restore s --name damaged >"$work/console" 2>"$work/err" </dev/null &
pid=$!
check "the VM runs" soon grep -q 'memtouch: pass' "$work/console"
kill "$pid"
wait "$pid"
same "and it is said once" 1 "$(grep -c 'working set.*costs time only' "$work/err")"

check "it goes with the snapshot" "$THAW" rm s
same "which leaves nothing" 0 "$(find "$work/store/hot" -type f | wc -l)"
finish
