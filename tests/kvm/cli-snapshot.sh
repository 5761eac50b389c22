#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The life of snapshots through the command: taken, listed, restored, deleted, while VMs go on.
# shellcheck disable=SC2317 # functions that are called by name
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/kvm/lib/cli.sh
. tests/kvm/lib/cli.sh
# shellcheck source=tests/kvm/lib/snapshot.sh
. tests/kvm/lib/snapshot.sh

# Help.
for command in snapshot restore reset ls inspect verify flatten rm; do
    "$THAW" "$command" --help >"$work/out" 2>"$work/err" </dev/null
    same "$command --help: status 0, on stdout only" "0 1 0" \
        "$? $(grep -c '^usage: thaw ' "$work/out") $(wc -l <"$work/err")"
done

# No store yet.
same "ls without a store: an empty list" '{"items":[],"total":0}' "$("$THAW" ls --json)"
same "ls without a store: only the head of the table" 1 "$("$THAW" ls | wc -l)"
check "and none is made" test ! -e "$THAW_STORE"

# Take one, and the VM goes on.
"$THAW" run --name a --guest tick --template base --detach </dev/null
soon ticked a 3
same "snapshot prints its name" s1 "$("$THAW" snapshot a --name s1)"
before=$(vm a mark)
check "the VM goes on" soon ticked a $((before + 2))
same "ls shows it" 1 "$("$THAW" ls | grep -cE '^s1 +[0-9a-f]{12} +ready +[0-9T:-]+Z +a +base +128M +[0-9.]+[KM] +0B$')"
same "ls --json shows it" "s1 ready a base null 1 134217728 1 0 null" \
    "$("$THAW" ls --json | jq -r '.items[0] | "\(.name) \(.state) \(.source) \(.template) \(.parent) \(.cpus) \(.mem_bytes) \(.stored_bytes > 0 | if . then 1 else 0 end) \(.disks) \(.error)"')"
check "the time is RFC 3339, and now" created_now s1
"$THAW" snapshot a --json >"$work/s2"
same "a snapshot without a name is named after the template" 1 "$(jq -r .name "$work/s2" | grep -cE '^base-[0-9a-z]{6}$')"
same "the second one is a diff of the first" "true $(id_of s1) ready" "$(jq -r '"\(.diff) \(.parent) \(.state)"' "$work/s2")"
check "its cost is told" jq -e '.pause_ns > 0 and .total_ns >= .pause_ns and .pages > 0 and .stored_bytes > 0' "$work/s2"
s2=$(jq -r .name "$work/s2")
same "--full depends on none" "false null" "$("$THAW" snapshot a --name full --full --json | jq -r '"\(.diff) \(.parent)"')"
same "--diff is one" "true" "$("$THAW" snapshot a --name d3 --diff --json | jq -r '.diff')"
check "--stop-and-copy" "$THAW" snapshot a --name s4 --stop-and-copy --level 3 --template other
same "its template" other "$(snapshot s4 template)"
check "a paused VM" "$THAW" pause a
check "can be taken a snapshot of" "$THAW" snapshot a --name paused
same "and is still paused" paused "$(vm a state)"
"$THAW" stop a

# Restore, twice at a time; both go on from the same count.
"$THAW" restore d3 --name r1 --detach --json --paused >"$work/r1" </dev/null
same "restore --detach --json prints the VM" "r1 paused d3 $(id_of d3) base 1 134217728 null" \
    "$(jq -r '"\(.name) \(.state) \(.snapshot) \(.snapshot_id) \(.template) \(.cpus) \(.mem_bytes) \(.kernel)"' "$work/r1")"
"$THAW" restore d3 --name r2 --detach --paused --mode eager </dev/null
same "a restored VM that is paused does nothing" "0 0" "$(vm r1 marks) $(vm r2 marks)"
check "resume lets them run" "$THAW" resume r1 r2
check "the first goes on" soon ticked_on r1
check "the second goes on" soon ticked_on r2
same "both from the same count" "$(first_tick r1)" "$(first_tick r2)"
check "which is not the beginning" test "$(first_tick r1)" -gt 3
same "ps shows where they came from" 2 "$("$THAW" ps | grep -cE ' base +d3$')"
check "a snapshot of a clone" "$THAW" snapshot r1 --name c1
same "is a diff of what it was restored from" "true $(id_of d3) base r1" \
    "$("$THAW" snapshot r2 --name c2 --json | jq -r '"\(.diff) \(.parent) \(.template) \(.source)"' | sed 's/r2$/r1/')"
# Back to what they were restored from.
first=$(first_tick r1)
same "reset --json prints the VM" "r1 paused 0" \
    "$("$THAW" reset r1 --json | jq -r '"\(.name) \(.state) \(.marks)"')"
check "reset takes several names, and a paused VM" "$THAW" reset r1 r2 --clock host
check "they go on" "$THAW" resume r1 r2
check "from the snapshot" soon ticked_on r1
same "with the same count again" "$first" "$(first_tick r1)"
refused "another clock policy" 2 "no clock policy" "$THAW" reset r1 --clock never
"$THAW" run --name booted --guest tick --detach </dev/null
refused "a VM that was booted has nothing to go back to" 1 "not restored" "$THAW" reset booted
check "and runs on" has_state booted running
"$THAW" stop r1 r2 booted

# Ancestors may go.
check "rm of several, by name and by id" "$THAW" rm s1 "$s2" full "$(id_of d3 | cut -c1-8)" s4 paused
same "only the descendants are left" "c2 c1" "$("$THAW" ls --json | jq -r '[.items[].name] | join(" ")')"
check "a descendant of what is gone can be restored" "$THAW" restore c2 --detach
check "and goes on" soon ticked_on c2
check "and verifies" test "$("$THAW" verify c2)" = ok

# Names.
same "without --name it has the snapshot's" "c2 running" "$(vm c2 name) $(vm c2 state)"
"$THAW" restore c2 --detach && "$THAW" restore c2 --detach
same "and with a number where that is taken" "c2 c2-2 c2-3" "$(names)"
refused "a name that is asked for is not changed" 1 "in use" "$THAW" restore c2 --name c2-2 --detach
refused "rm while it is used says by whom" 1 "c2-2" "$THAW" rm c2
"$THAW" stop c2 c2-2 c2-3

# In the foreground.
"$THAW" restore c1 --name fg >"$work/console" 2>"$work/err" </dev/null &
pid=$!
check "foreground: the console is on stdout" soon grep -qE '^tick [0-9]+' "$work/console"
kill "$pid"
wait "$pid"
same "SIGTERM stops it: status 0, no record" "0 " "$? $(names)"
"$THAW" run --name e --guest tick --cmdline "ticks=60" --detach </dev/null
soon ticked e 2
"$THAW" snapshot e --name ends --kill >/dev/null
"$THAW" restore ends --name e >"$work/console" </dev/null
same "foreground: the exit status of a guest that ends" "0 tick 60" "$? $(tail -n 1 "$work/console" | tr -d '\r')"
"$THAW" stop e

# --kill.
"$THAW" run --name k --guest tick --detach </dev/null
soon ticked k 2
pid=$(vm k pid)
same "--kill prints the snapshot" killed "$("$THAW" snapshot k --name killed --kill --json | jq -r .name)"
check "and returns when the process is gone" gone "$pid"
same "which leaves no record" "" "$(names)"
check "it can be restored under the same name" "$THAW" restore killed --name k --detach
check "and goes on" soon ticked_on k
"$THAW" stop k

# Flatten.
same "flatten prints the new snapshot's name" flat "$("$THAW" flatten c2 --name flat)"
same "which shares nothing" "0 null" "$(snapshot flat shared_bytes) $(snapshot flat parent)"
check "rm of all but it" "$THAW" rm c1 c2 ends killed
check "it verifies" "$THAW" verify flat
check "and can be restored" "$THAW" restore flat --detach
check "and goes on" soon ticked_on flat
"$THAW" stop flat

# A disk whose base image is elsewhere now.
truncate -s 1M "$work/base"
"$THAW" run --name d --guest blkpattern --cmdline "blocks=8 stride=3 loop=1" --disk "$work/base" --detach </dev/null
soon ticked d 3
"$THAW" snapshot d --name disk --kill >/dev/null
mv "$work/base" "$work/moved"
refused "restore without the base image" 1 "$work/base" "$THAW" restore disk --detach
check "--disk says where it is, by a relative path" sh -c \
    "thaw=\$(realpath '$THAW') && cd '$work' && \$thaw restore disk --name d --disk 0=moved --detach"
check "the guest finds on it what it wrote" soon ticked_on d
same "ps --json shows the path" "$(realpath "$work/moved")" "$(vm d disks[0].path)"
check "a snapshot of it" "$THAW" snapshot d --name again --kill
check "needs no --disk any more" "$THAW" restore again --name d --detach
check "and goes on" soon ticked_on d
"$THAW" stop d
"$THAW" rm disk again

# Other stores.
"$THAW" run --name o --guest tick --detach --store "$work/own" </dev/null
check "without --store and THAW_STORE it is the VM's own" env -u THAW_STORE "$THAW" snapshot o --name own
check "and another one, by a relative path" sh -c \
    "thaw=\$(realpath '$THAW') && cd '$work' && \$thaw snapshot o --name there --store other"
"$THAW" stop o
same "each is where it should be" "own there flat" \
    "$("$THAW" ls --store "$work/own" --json | jq -r '.items[].name') $("$THAW" ls --store "$work/other" --json | jq -r '.items[].name') $("$THAW" ls --json | jq -r '.items[].name')"

# Metadata.
"$THAW" run --name m --guest tick --detach </dev/null
echo '{"from":"a file"}' >"$work/meta"
"$THAW" snapshot m --name m1 --metadata '{"timeout":[1,2]}' >/dev/null
"$THAW" snapshot m --name m2 --metadata "@$work/meta" >/dev/null
same "metadata is kept" '{"timeout":[1,2]} {"from":"a file"}' \
    "$("$THAW" inspect m1 --json | jq -c .metadata) $("$THAW" inspect m2 --json | jq -c .metadata)"
same "inspect for people shows it, too" 1 "$("$THAW" inspect m2 | grep -c 'a file')"
same "inspect names memory" 1 "$("$THAW" inspect m2 | grep -c '^ *- *name ram\|^ *name: ram')"
"$THAW" stop m
finish
