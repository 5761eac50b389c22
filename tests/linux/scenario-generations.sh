#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Role: five generations, each the snapshot of a clone of the one before; ancestors are removed, the last is whole.
# Not its role: clones that run at the same time (scenario-snapshot.sh).
# flavours: cloud
set -u
# shellcheck source=tests/linux/lib.sh
. "$(dirname "$0")/lib.sh"

LOAD_RAM_MIB=32
GENERATIONS=5

store_kib() {
	du -sk "$THAW_STORE" | cut -f1
}

# take NAME SNAPSHOT OPTION...
take() {
	vm=$1
	snapshot=$2
	shift 2
	begin_ms=$(now_ms)
	with_timeout 60 "$THAW" snapshot "$vm" --name "$snapshot" "$@" >"$WORK/$snapshot.log" 2>&1 ||
		give_up "snapshot $snapshot ($*)" "$(cat "$WORK/$snapshot.log")"
	pass "snapshot $snapshot ($*)"
	echo "# $FLAVOUR: $snapshot took $(($(now_ms) - begin_ms)) ms, store has $(store_kib) KiB"
}

# What each one is taken with: all ways take part.
options_of() {
	case $1 in
	1) echo --full ;;
	3) echo --diff --stop-and-copy ;;
	4) echo --diff --kill ;;
	*) echo --diff ;;
	esac
}

make_base "$WORK/base.img"
boot_vm vm0 "L2_SCRIPT=load L2_RAM_MIB=$LOAD_RAM_MIB" --disk "$WORK/base.img"
await vm0 60 'L2: loaded'

count=0
tags=
n=1
while [ $n -le $GENERATIONS ]; do
	vm=vm$((n - 1))
	tag $vm $vm
	tags="$tags $vm"
	ask $vm
	check "$vm: goes on from its snapshot" [ "$(field count "$answer")" -ge "$count" ]
	progress $vm 60
	count=$(field count "$answer")

	# shellcheck disable=SC2046
	take $vm s$n $(options_of $n)
	if [ $n -ge 3 ]; then
		check "removes s$((n - 2))" with_timeout 10 "$THAW" rm s$((n - 2))
	fi
	if [ $n != 4 ]; then
		check "stops $vm" with_timeout 15 "$THAW" stop "$vm"
	fi
	await_end "$vm" 15 || fail "$vm: ends with status 0" "$(tail -n 5 "$WORK/$vm.err.log")"

	case $n in
	*[135]) mode=lazy ;;
	*) mode=eager ;;
	esac
	restore_vm vm$n s$n --mode $mode
	n=$((n + 1))
done

last=vm$GENERATIONS
tag $last $last
tags="$tags $last"
progress $last 60
check "removes s$((GENERATIONS - 1))" with_timeout 10 "$THAW" rm s$((GENERATIONS - 1))
echo "# $FLAVOUR: the last alone has $(store_kib) KiB"
check "verifies s$GENERATIONS" with_timeout 60 "$THAW" verify s$GENERATIONS
"$THAW" ls --json >"$WORK/ls.log" 2>&1
check "only s$GENERATIONS is left" grep -q '"total": *1[,}]' "$WORK/ls.log"

tell $last "stop $GENERATIONS"
status=0
await_end $last 60 || status=$?
report_vm $last
check "$last: ends with status 0" [ $status = 0 ]
check "$last: has all that its ancestors wrote" grep -q "L2: tags$tags" "$WORK/$last.log"
check "base image is unchanged" [ "$(digest "$WORK/base.img")" = "$BASE_MD5" ]
