# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Role: what every scenario shares: reporting, running a guest, reading its console, a base disk with a known digest.
# Not its role: deciding where scenarios run or which kernels they get (run.sh).

# A scenario is a POSIX sh script (dash and busybox) that run.sh starts with
#   THAW      the program under test
#   ASSETS    folder with FLAVOUR.kernel and FLAVOUR.initrd
#   FLAVOUR   cloud or generic
#   WORK      an empty folder of its own; *.log in it is kept
#   SLOWNESS  1 on a fast host, more where the guest is nested: multiply timeouts by it
# and that sources this file. Its header says "# flavours: ..." (those it makes sense for).
# Results are "ok - NAME" and "not ok - NAME" with indented detail; run.sh numbers them.

: "${THAW:?run scenarios through run.sh}" "${ASSETS:?}" "${FLAVOUR:?}" "${WORK:?}" "${SLOWNESS:=1}"

# Nothing of the user's own store or running VMs is touched.
export THAW_STORE="$WORK/store" THAW_RUNTIME="$WORK/run"
mkdir -p "$THAW_STORE" "$THAW_RUNTIME"

KERNEL=$ASSETS/$FLAVOUR.kernel
INITRD=$ASSETS/$FLAVOUR.initrd

# quiet: under nesting every character on the console is an exit.
# reboot=t: a panicking guest ends by triple fault, which every VMM notices.
# softlockup_panic: a stuck guest says where, in spite of quiet, and ends.
CMDLINE="console=ttyS0 quiet loglevel=3 panic=-1 reboot=t softlockup_panic=1"

pass() {
	echo "ok - $FLAVOUR: $1"
}

# fail NAME [DETAIL]
fail() {
	echo "not ok - $FLAVOUR: $1"
	[ -z "${2:-}" ] || echo "$2" | tr -d '\r' | sed 's/^/    /'
}

# check NAME COMMAND...: passes if the command succeeds, fails with its output otherwise.
check() {
	check_name=$1
	shift
	if check_output=$("$@" 2>&1); then
		pass "$check_name"
	else
		fail "$check_name" "$check_output"
	fi
}

# with_timeout SECONDS COMMAND...: SECONDS as on a fast host; status 124 or 143 when it took longer.
with_timeout() {
	timeout_s=$(($1 * SLOWNESS))
	shift
	timeout -k 5 "$timeout_s" "$@"
}

# wait_for SECONDS FILE REGEX: succeeds once a line of FILE matches.
wait_for() {
	wait_left=$(($1 * SLOWNESS * 5))
	until grep -qE "$3" "$2" 2>/dev/null; do
		wait_left=$((wait_left - 1))
		[ $wait_left -gt 0 ] || return 1
		sleep 0.2
	done
}

# make_base FILE: a sparse disk of 256 MiB with a few marked places, so that its digest says
# something. The digest is BASE_MD5, written down because nested computing it takes 4 s.
# shellcheck disable=SC2034
BASE_MIB=256
# shellcheck disable=SC2034
BASE_MD5=5848dff6e0d159bfaeac6de2790dcb85
make_base() {
	truncate -s "${BASE_MIB}M" "$1"
	for base_place in 0 1 7 4095 32768 65535; do
		printf 'base image, block %4078d' "$base_place" | dd of="$1" bs=4096 seek="$base_place" count=1 conv=notrunc 2>/dev/null
	done
}

# Far cheaper than a cryptographic digest where SHA is emulated, and what it guards against is no attacker.
digest() {
	md5sum "$1" | cut -d' ' -f1
}

# start_vm NAME COMMAND...: runs COMMAND, a "thaw run" or "thaw restore" in the foreground of a VM that is
# called NAME. Its console is NAME.log, what thaw says NAME.err.log.
VMS=
start_vm() {
	vm=$1
	shift
	mkfifo "$WORK/$vm.in"
	{
		vm_status=0
		"$@" <>"$WORK/$vm.in" >"$WORK/$vm.log" 2>"$WORK/$vm.err.log" || vm_status=$?
		echo $vm_status >"$WORK/$vm.ends"
		mv "$WORK/$vm.ends" "$WORK/$vm.status"
	} &
	VMS="$VMS $vm"
	# Whatever is written to a pipe that nobody has opened is lost.
	until [ -e "$WORK/$vm.log" ]; do
		sleep 0.1
	done
}

# Detached ones too; those that have ended are not meant to be found.
stop_vms() {
	trap '' INT TERM HUP
	for vm in $VMS; do
		[ -e "$WORK/$vm.status" ] || with_timeout 5 "$THAW" stop "$vm" >/dev/null 2>&1
	done
}
trap stop_vms EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# give_up NAME [DETAIL]: fails, and ends the scenario where going on makes no sense.
give_up() {
	fail "$@"
	exit 1
}

# boot_vm NAME PARAMETERS THAW-ARGUMENT...: boots the guest with 2 CPUs and 512 MiB. PARAMETERS reach the
# guest's script as its environment; L2_SCRIPT names it (a file of tests/linux/guest/ without .sh).
boot_vm() {
	vm=$1
	vm_parameters=$2
	shift 2
	start_vm "$vm" "$THAW" run --name "$vm" --kernel "$KERNEL" --initrd "$INITRD" --cpus 2 --mem 512M \
		--cmdline "$CMDLINE L2_CPUS=2 L2_MEM_MIB=512 $vm_parameters" "$@"
}

# restore_vm NAME SNAPSHOT THAW-ARGUMENT...
restore_vm() {
	vm=$1
	vm_snapshot=$2
	shift 2
	start_vm "$vm" "$THAW" restore "$vm_snapshot" --name "$vm" "$@"
}

# await_end NAME SECONDS: waits until the VM's thaw has ended and returns its status; 124 if that takes longer.
await_end() {
	wait_for "$2" "$WORK/$1.status" . || return 124
	return "$(cat "$WORK/$1.status")"
}

# tell NAME TEXT: a line for the guest. Never waits, not even where no VM reads any more.
tell() {
	echo "$2" 1<>"$WORK/$1.in"
}

# await NAME SECONDS REGEX: waits for a line on the VM's console; gives up when there is none or the VM ends.
await() {
	await_end_ms=$(($(now_ms) + $2 * SLOWNESS * 1000))
	until grep -qE "$3" "$WORK/$1.log" 2>/dev/null; do
		if [ -e "$WORK/$1.status" ] || [ "$(now_ms)" -gt $await_end_ms ]; then
			grep -qE "$3" "$WORK/$1.log" ||
				give_up "$1: says $3" "$(tail -n 15 "$WORK/$1.log" "$WORK/$1.err.log")"
		fi
		sleep 0.2
	done
}

# ask NAME: sets answer to what a guest that runs load.sh says of itself; "field KEY ANSWER" is a part of it.
# Like what follows, not to be used in a subshell: questions are numbered.
asked=0
ask() {
	asked=$((asked + 1))
	tell "$1" "ask $asked"
	await "$1" 60 "L2: answer $asked .* end"
	answer=$(tr -d '\r' <"$WORK/$1.log" | sed -n "s/^.*L2: answer $asked //p")
}

field() {
	echo "$2" | tr ' ' '\n' | sed -n "s/^$1=//p"
}

# tag NAME TAG: makes a file on the disk of a guest that runs load.sh.
tag() {
	tell "$1" "tag $2"
	await "$1" 60 "L2: tagged $2"
}

# progress NAME SECONDS: waits until the guest has checked all of its load's memory again; it counts MiB.
progress() {
	ask "$1"
	progress_goal=$(($(field count "$answer") + LOAD_RAM_MIB))
	progress_end_ms=$(($(now_ms) + $2 * SLOWNESS * 1000))
	until [ "$(field count "$answer")" -ge $progress_goal ]; do
		[ "$(now_ms)" -lt $progress_end_ms ] || give_up "$1: works" "in $2 * $SLOWNESS s not to $progress_goal: $answer"
		sleep 0.5
		ask "$1"
	done
	pass "$1: works"
}

now_ms() {
	sed 's/\.\(..\) .*/\10/' /proc/uptime
}

# report_vm NAME: the guest's own results as results of the scenario. A guest that did not
# finish its script is a failure, with the end of its console.
report_vm() {
	tr -d '\r' <"$WORK/$1.log" | sed -n "
		s/^.*L2: ok \(.*\)/ok - $FLAVOUR $1: \1/p
		s/^.*L2: info /# $FLAVOUR $1: /p
		/^.*L2: FAIL /{
			s/^.*L2: FAIL \([^:]*\): /not ok - $FLAVOUR $1: \1|/
			s/|\$//
			s/|/\n    /g
			p
		}"
	if grep -q 'L2: done' "$WORK/$1.log"; then
		pass "$1: finishes its script"
	else
		fail "$1: finishes its script" "$(tail -n 15 "$WORK/$1.log")"
	fi
}
