# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Role: keep memory, disk and clocks of the guest busy and checked (load.c), and do what the host says on the console.
# Not its role: saying when (scenario-*.sh).

# Set by the kernel command line: L2_RAM_MIB, how much memory the load checks.
# The console takes, one per line:
#   ask N       answers "L2: answer N ..." with what the load did so far, and random bytes
#   tag NAME    makes a file on the disk, answers "L2: tagged NAME"
#   stop FORKS  stops the load, says how it went and powers off; FORKS: how many times this guest must
#               have been told that it is a clone, if its kernel listens
# shellcheck source=tests/linux/guest/lib.sh
. /guest/lib.sh

tags=

last_answer() {
	/guest/load ask | tr ' ' '\n' | sed -n "s/^$1=//p"
}

found_bad() {
	bad=$(last_answer bad)
	[ "$(echo "$bad" | cut -d/ -f"$1")" = 0 ] || {
		echo "memory/disk/clocks: $bad"
		return 1
	}
}

# The disk knows the tags that memory knows, and no others.
tags_match() {
	(cd /mnt/tags && echo *)
	[ "$(cd /mnt/tags && echo *)" = "$(echo "$tags" | tr ' ' '\n' | sort | xargs echo)" ]
}

# The random generator's driver says so for each notification.
knows_forks() {
	forks=$(dmesg | grep -c 'crng reseeded due to virtual machine fork')
	[ "$forks" = "$1" ] || {
		echo "told $forks times, should be $1"
		return 1
	}
}

# Lines must not come back as echo: the host reads this console.
stty -echo
check "makes and mounts ext4" make_fs
# Not through check, which would wait for them.
mkdir /mnt/load /mnt/tags
/guest/load ram /tmp/ram "$L2_RAM_MIB" &
loads=$!
/guest/load disk /mnt/load &
loads="$loads $!"
/guest/load clock &
loads="$loads $!"
echo "L2: loaded"

while read -r command argument; do
	case $command in
	ask) echo "L2: answer $argument $(/guest/load ask)" ;;
	tag)
		tags="$tags $argument"
		: >"/mnt/tags/$argument"
		echo "L2: tagged $argument"
		;;
	stop) break ;;
	esac
done

status=0
# shellcheck disable=SC2086
kill $loads
for load in $loads; do
	wait "$load" || status=$?
done
check "stops the load" [ $status = 0 ]
check "finds its memory as it left it" found_bad 1
check "finds its disk as it left it" found_bad 2
check "finds that no clock ran backwards" found_bad 3
check "finds the disk's and its memory's tags equal" tags_match
echo "L2: tags$tags"
check "leaves a clean file system" fs_is_clean
if [ -d /sys/bus/acpi/drivers/vmgenid ]; then
	check "knows that it was cloned $argument times" knows_forks "$argument"
fi
check "logs no error" logs_no_error
