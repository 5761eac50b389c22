#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Role: the small guests, snapshots of them, and damaged snapshots, on a KVM that runs guest code on the processor.
# Not its role: stock kernels. Where the host's own KVM emulates, this is the only run on another backend.
# flavours: cloud
set -u
# shellcheck source=tests/linux/lib.sh
. "$(dirname "$0")/lib.sh"

GUESTS=$ASSETS/guests

# small NAME COMMAND-LINE ARGUMENT...: runs a small guest to its end, which must be success.
small() {
	small_name=$1
	small_cmdline=$2
	shift 2
	with_timeout 30 "$THAW" run --name "small-$small_name" --kernel "$GUESTS/$small_name" --cmdline "$small_cmdline" \
		"$@" </dev/null
}

# mark_of VM: the number that its guest reported last.
mark_of() {
	"$THAW" ps --json | tr '{' '\n' | sed -n "s/^\"name\":\"$1\".*\"mark\":\([0-9]*\).*/\1/p"
}

# reaches VM COUNT: waits until its guest has reported that number.
reaches() {
	reaches_left=$((100 * SLOWNESS))
	until [ "$(mark_of "$1")" -ge "$2" ] 2>/dev/null; do
		reaches_left=$((reaches_left - 1))
		[ $reaches_left -gt 0 ] || return 1
		sleep 0.2
	done
}

# fails_with_memory VM: waits until it has ended because its memory could not be provided.
fails_with_memory() {
	fails_left=$((100 * SLOWNESS))
	until "$THAW" ps --json | tr '{' '\n' | grep "^\"name\":\"$1\"" | grep -q '"reason":"memory"'; do
		fails_left=$((fails_left - 1))
		[ $fails_left -gt 0 ] || return 1
		sleep 0.2
	done
}

# Flips a bit in the middle of the only pack of a snapshot, which holds the guest's data.
damage() {
	pack=$(echo "$THAW_STORE"/snapshots/"$1"/packs/*)
	middle=$(($(wc -c <"$pack") / 2))
	byte=$(dd if="$pack" bs=1 skip="$middle" count=1 2>/dev/null | od -An -tu1)
	# shellcheck disable=SC2059 # an octal escape is made
	printf "$(printf '\\%03o' $((byte ^ 16)))" | dd of="$pack" bs=1 seek="$middle" conv=notrunc 2>/dev/null
}

id_of() {
	"$THAW" ls --json | tr '{' '\n' | sed -n "s/^\"id\":\"\([0-9a-f]*\)\",\"name\":\"$1\".*/\1/p"
}

check "tick" small tick "ticks=5 interval=1000000"
check "smp" small smp "target=5" --cpus 2
check "timer" small timer "ticks=3"
check "memtouch" small memtouch "passes=2 op=write order=rand" --initrd "$ASSETS/data"
truncate -s 4M "$WORK/disk.img"
check "blkpattern" small blkpattern "blocks=32" --disk "$WORK/disk.img"

"$THAW" run --name counter --kernel "$GUESTS/tick" --cmdline "interval=100000000" --detach
check "a guest counts" reaches counter 3
check "it is saved" "$THAW" snapshot counter --name s1
saved=$(mark_of counter)
check "a clone is restored at once" "$THAW" restore s1 --name eager --mode eager --detach
check "another by demand" "$THAW" restore s1 --name lazy --mode lazy --detach
check "the first counts on" reaches eager $((saved + 3))
check "the second counts on" reaches lazy $((saved + 3))
check "a diff of a clone is saved" "$THAW" snapshot lazy --name s2
check "and verifies" "$THAW" verify s2
"$THAW" stop counter eager lazy

"$THAW" run --name reader --kernel "$GUESTS/memtouch" --initrd "$ASSETS/data" --cmdline "op=read order=rand rate=2" --detach
check "a guest reads its data" reaches reader 1
check "it is saved, and ends" "$THAW" snapshot reader --name bad --kill
damage "$(id_of bad)"
check "damage is found" sh -c "! '$THAW' verify bad"
check "a damaged snapshot is not restored at once" sh -c "! '$THAW' restore bad --name never --mode eager --detach"
if "$THAW" restore bad --name victim --mode lazy --detach 2>"$WORK/victim.log"; then
	check "a guest that touches damaged memory ends, with the reason" fails_with_memory victim
else
	check "a damaged snapshot is refused, with the reason" grep -q bad "$WORK/victim.log"
fi
"$THAW" stop victim >/dev/null 2>&1 || true
