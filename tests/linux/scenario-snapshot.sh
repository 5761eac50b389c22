#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Role: a stock kernel under load is snapshotted, runs on, is restored twice at once, and reset; nobody loses or shares anything.
# Not its role: snapshots of clones (scenario-generations.sh).
# The cloud kernel has its snapshots in scenario-generations.sh.
# flavours: generic
set -u
# shellcheck source=tests/linux/lib.sh
. "$(dirname "$0")/lib.sh"

LOAD_RAM_MIB=100
CLOCK_GAP_MS=5000 # far above what a busy host makes clocks jump

in_range() {
	if [ "$1" -lt "$2" ] || [ "$1" -gt "$3" ]; then
		echo "$1 is not from $2 to $3"
		return 1
	fi
}

# wall_agrees BEFORE NOW AFTER: three answers, asked one after the other.
wall_agrees() {
	in_range "$(field wall_s "$2")" $(($(field wall_s "$1") - 1)) $(($(field wall_s "$3") + 1))
}

different() {
	[ "$1" != "$2" ] || {
		echo "both are $1"
		return 1
	}
}

make_base "$WORK/base.img"
boot_vm source "L2_SCRIPT=load L2_RAM_MIB=$LOAD_RAM_MIB" --disk "$WORK/base.img"
await source 60 'L2: loaded'
tag source before
progress source 60

before=$answer
snapshot_begin_ms=$(now_ms)
with_timeout 60 "$THAW" snapshot source --name loaded --full --json >"$WORK/snapshot.log" 2>&1 ||
	give_up "snapshots a loaded guest" "$(cat "$WORK/snapshot.log")"
snapshot_end_ms=$(now_ms)
pass "snapshots a loaded guest"
echo "# $FLAVOUR: snapshot took $((snapshot_end_ms - snapshot_begin_ms)) ms"
tag source source
progress source 60
while [ $(($(now_ms) - snapshot_end_ms)) -lt $CLOCK_GAP_MS ]; do
	sleep 0.5
done
check "verifies the snapshot" with_timeout 60 "$THAW" verify loaded

restore_begin_ms=$(now_ms)
gap_ms=$((restore_begin_ms - snapshot_end_ms))
restore_vm eager loaded --mode eager --clock continue
restore_vm lazy loaded --mode lazy --clock host
ask eager
eager=$answer
eager_ms=$(now_ms)
ask source
source=$answer
ask lazy
lazy=$answer
lazy_ms=$(now_ms)
ask source

echo "# $FLAVOUR: first answers $((eager_ms - restore_begin_ms)) and $((lazy_ms - restore_begin_ms)) ms after restore"
for vm in eager lazy; do
	eval "first=\$$vm"
	# shellcheck disable=SC2154
	check "$vm: goes on from the snapshot" \
		in_range "$(field count "$first")" "$(field count "$before")" "$(field count "$answer")"
done
check "eager: clocks continue" in_range "$(field jump_ms "$eager")" 0 $((gap_ms / 2))
check "lazy: clocks jump by the time that passed" \
	in_range "$(field jump_ms "$lazy")" $((gap_ms - 500)) $((lazy_ms - snapshot_begin_ms + 500))
check "lazy: wall clock is right" wall_agrees "$source" "$lazy" "$answer"
if [ "$FLAVOUR" = generic ]; then
	check "random numbers of the clones differ" different "$(field rnd "$eager")" "$(field rnd "$lazy")"
	check "random numbers of eager and source differ" different "$(field rnd "$eager")" "$(field rnd "$source")"
	check "random numbers of lazy and source differ" different "$(field rnd "$lazy")" "$(field rnd "$source")"
fi
if with_timeout 10 "$THAW" rm loaded >"$WORK/rm.log" 2>&1; then
	fail "a snapshot in use is not removed" "$(cat "$WORK/rm.log")"
else
	pass "a snapshot in use is not removed"
fi

# What a clone did since then is undone, on its disk as in its memory (the tag is gone in the end),
# but not the host's time.
tag eager lost
progress eager 90
reset_begin_ms=$(now_ms)
check "eager: is reset while it works" with_timeout 60 "$THAW" reset eager --clock host
check "eager: resumes" with_timeout 60 "$THAW" resume eager
ask source
source=$answer
ask eager
reset=$answer
reset_ms=$(now_ms)
ask source
echo "# $FLAVOUR: first answer $((reset_ms - reset_begin_ms)) ms after reset"
check "eager: clocks jump by the time that passed since the snapshot" \
	in_range "$(field jump_ms "$reset")" $((reset_begin_ms - snapshot_end_ms - 500)) $((reset_ms - snapshot_begin_ms + 500))
check "eager: wall clock is right after the reset" wall_agrees "$source" "$reset" "$answer"
if [ "$FLAVOUR" = generic ]; then
	check "random numbers differ after the reset" different "$(field rnd "$eager")" "$(field rnd "$reset")"
fi

tag eager eager
tag lazy lazy
tell source "stop 0"
progress eager 90
progress lazy 90
tell eager "stop 1"
tell lazy "stop 1"
for vm in source eager lazy; do
	status=0
	await_end $vm 60 || status=$?
	report_vm $vm
	check "$vm: ends with status 0" [ $status = 0 ]
	[ $status = 0 ] || echo "    status $status: $(tail -n 5 "$WORK/$vm.err.log")"
	check "$vm: has its own disk" grep -q "L2: tags before $vm" "$WORK/$vm.log"
done
check "base image is unchanged" [ "$(digest "$WORK/base.img")" = "$BASE_MD5" ]
check "snapshot is unchanged" with_timeout 60 "$THAW" verify loaded
check "removes the snapshot" with_timeout 10 "$THAW" rm loaded
