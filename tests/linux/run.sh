#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Role: run the Linux scenarios, natively or nested under QEMU's software CPU, and print TAP.
# Not its role: what a scenario checks (scenario-*.sh), building thaw.
set -eu

here=$(cd "$(dirname "$0")" && pwd)

usage() {
	cat <<'USAGE'
usage: run.sh [OPTION]... [SCENARIO]...

Runs each SCENARIO (the part of scenario-NAME.sh that is NAME; default: all), once
for every kernel flavour that its header names.

  --thaw PATH      program under test (default: $THAW, else build/thaw)
  --nested         inside QEMU's software CPU
  --direct         on this host's /dev/kvm (default where it runs guest code natively)
  --flavour F      only this kernel: cloud or generic
  --jobs N         jobs at once (default 2)
  --timeout SECS   for everything (default 900)
  --kernels DIR    kernels from fetch-kernels.sh (default: its cache; fetched if absent)
  --add DIR        copy DIR's contents into QEMU's file system (strace, gdb, a stand-in)
  --keep           keep the folder with images and logs also when all is well
  --interactive    one SCENARIO and --flavour, nested: a shell instead of the run
  --list           print the jobs

Exit status: 0 all passed, 1 something failed, 2 usage.
USAGE
}

die() {
	echo "run.sh: $*" >&2
	exit 1
}

bad_usage() {
	echo "run.sh: $*" >&2
	usage >&2
	exit 2
}

# Only hardware virtualisation runs a stock kernel: /dev/kvm alone may be an emulator.
kvm_is_native() {
	[ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo
}

thaw=${THAW:-$here/../../build/thaw}
mode=
only=
parallel=2
limit_s=900
keep=
interactive=
list=
extra=
kernels=${XDG_CACHE_HOME:-$HOME/.cache}/thaw/linux
scenarios=
while [ $# -gt 0 ]; do
	case $1 in
	--thaw | --flavour | --jobs | --timeout | --kernels | --add)
		[ $# -ge 2 ] || bad_usage "$1 needs a value"
		;;
	esac
	case $1 in
	--thaw) thaw=$2 && shift ;;
	--flavour) only=$2 && shift ;;
	--jobs) parallel=$2 && shift ;;
	--timeout) limit_s=$2 && shift ;;
	--kernels) kernels=$2 && shift ;;
	--add) extra=$2 && shift ;;
	--nested) mode=nested ;;
	--direct) mode=direct ;;
	--keep) keep=1 ;;
	--interactive) interactive=1 ;;
	--list) list=1 ;;
	-h | --help)
		usage
		exit 0
		;;
	-*) bad_usage "unknown option $1" ;;
	*)
		[ -f "$here/scenario-$1.sh" ] || bad_usage "no scenario $1: see $here"
		scenarios="$scenarios $1"
		;;
	esac
	shift
done
case $only in '' | cloud | generic) ;; *) bad_usage "unknown flavour $only" ;; esac
if [ -z "$scenarios" ]; then
	for file in "$here"/scenario-*.sh; do
		name=${file##*/scenario-}
		scenarios="$scenarios ${name%.sh}"
	done
fi
if [ -z "$mode" ]; then
	if kvm_is_native; then mode=direct; else mode=nested; fi
fi

jobs=
for name in $scenarios; do
	flavours=$(sed -n 's/^# flavours: //p' "$here/scenario-$name.sh")
	for flavour in $flavours; do
		[ -z "$only" ] || [ "$only" = "$flavour" ] || continue
		jobs="$jobs $name:$flavour"
	done
done
[ -n "$jobs" ] || die "no job: no chosen scenario is for flavour '$only'"
if [ -n "$list" ]; then
	echo "$jobs" | tr ' ' '\n' | sed '/^$/d'
	exit 0
fi
[ -x "$thaw" ] || die "no program $thaw: build it, or name one with --thaw"
thaw=$(cd "$(dirname "$thaw")" && pwd)/${thaw##*/}

guard="timeout -k 5 $limit_s"
begin_s=$(date +%s)
work=$(mktemp -d "${TMPDIR:-/tmp}/thaw-linux.XXXXXX")
failed=0
workers=

stop_workers() {
	: >"$work/stop"
	for file in "$work"/*/pid; do
		[ -f "$file" ] || continue
		kill "$(cat "$file")" 2>/dev/null || :
	done
	for worker in $workers; do
		wait "$worker" 2>/dev/null || :
	done
	workers=
}

finish() {
	status=$?
	trap '' INT TERM HUP
	stop_workers
	if [ -n "$keep" ] || [ $failed -gt 0 ]; then
		rm -rf "$work/guests" "$work/data"
		rm -f "$work"/*.initrd "$work"/*.kernel "$work"/*/host.initrd
		echo "# logs: $work"
	else
		rm -rf "$work"
	fi
	exit $status
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The small guests lie where the program under test was built.
mkdir "$work/guests"
cp "${thaw%/*}"/guests/* "$work/guests/" 2>/dev/null || die "no small guests beside $thaw"
"${thaw%/*}/memtouch-data" -o "$work/data" 4

"$here/fetch-kernels.sh" "$kernels"
for flavour in cloud generic; do
	case $jobs in *:$flavour*) ;; *) continue ;; esac
	cp "$kernels/$flavour"/boot/vmlinuz-* "$work/$flavour.kernel"
	"$here/mkinitrd.sh" guest "$kernels/$flavour" "$work/$flavour.initrd"
done

# What is left of the time limit for a job that starts now, less what it takes to hand over its logs.
remaining_s() {
	left_s=$((limit_s - 20 - ($(date +%s) - begin_s)))
	[ $left_s -gt 1 ] || left_s=1
	echo $left_s
}

# What a job needs inside QEMU, as a tree: scripts, assets and the job's description.
prepare_nested() {
	tree=$1/tree
	mkdir -p "$tree/tests" "$tree/assets"
	cp "$here"/lib.sh "$here"/scenario-*.sh "$tree/tests/"
	ln "$work/$flavour.kernel" "$work/$flavour.initrd" "$tree/assets/"
	cp -r "$work/guests" "$work/data" "$tree/assets/"
	echo "SCENARIO=$name FLAVOUR=$flavour SLOWNESS=4 LIMIT_S=$(remaining_s) INTERACTIVE=$interactive" >"$tree/job"
	"$here/mkinitrd.sh" host "$kernels/cloud" "$1/host.initrd" \
		"$tree" "$thaw=/thaw/thaw" ${extra:+"$extra"} || return 1
	rm -rf "$tree"
}

# level1 FOLDER FIRST-SERIAL: becomes QEMU. No disk, no network: all is in the initramfs. The first of
# its CPUs is not for VMs (host/init).
level1() {
	set -- "$1" "$2" "$kernels"/cloud/boot/vmlinuz-*
	# shellcheck disable=SC2086
	exec $guard qemu-system-x86_64 -M pc,vmport=off -accel tcg,thread=multi -cpu max,+svm,-xsave -smp 3 -m 3072 \
		-nodefaults -no-user-config -display none -no-reboot -kernel "$3" -initrd "$1/host.initrd" \
		-append "console=ttyS1 no_timer_check quiet loglevel=4 panic=-1 reboot=t mitigations=off nokaslr tsc=reliable" \
		-serial "$2" -serial "file:$1/console.log"
}

# Level 1 says that it is alive every few seconds. If it stops, QEMU has killed it (README.md, Facts): whatever thaw
# and its guests do in there, another process goes on.
silence_max_s=90
stood_still=99

# The first serial port is the job's results, the second one its logs.
start_nested() {
	command -v qemu-system-x86_64 >/dev/null || {
		echo "not ok - $flavour: qemu-system-x86_64 not found: install the package qemu-system-x86" >"$1/results"
		return 1
	}
	prepare_nested "$1" 2>"$1/prepare.log" || return 1
	[ ! -e "$work/stop" ] || return 1
	level1 "$1" "file:$1/results" >"$1/qemu.log" 2>&1 &
	echo $! >"$1/pid"
	while kill -0 $! 2>/dev/null; do
		sleep 1
		said_s=$(stat -c %Y "$1/results" 2>/dev/null) || continue
		[ $(($(date +%s) - said_s)) -gt $silence_max_s ] || continue
		kill $! || :
		wait $! || :
		return $stood_still
	done
	wait $!
}

start_direct() {
	mkdir "$1/work"
	THAW=$thaw ASSETS=$work FLAVOUR=$flavour WORK=$1/work SLOWNESS=1 \
		timeout -k 5 "$(remaining_s)" sh "$here/scenario-$name.sh" >"$1/results" 2>"$1/console.log" </dev/null &
	echo $! >"$1/pid"
	wait $! && echo "# job status 0" >>"$1/results"
}

# tap_of FOLDER: what the job has said.
tap_of() {
	tr -d '\r' <"$1/results" | sed '/^# alive/d'
}

# A job whose level 1 died is run once more, unless something had failed before that.
run_job() {
	job_status=0
	"start_$mode" "$work/$job" || job_status=$?
	if [ $job_status = $stood_still ] && ! grep -q '^not ok' "$work/$job/results"; then
		{
			echo "# level 1 stood still, run once more; before that:"
			tap_of "$work/$job" | sed 's/^/#   /'
		} >"$work/$job/before"
		mv "$work/$job/console.log" "$work/$job/console-before.log"
		job_status=0
		"start_$mode" "$work/$job" || job_status=$?
	fi
	[ $job_status = 0 ] || echo "# ended with status $job_status" >>"$work/$job/qemu.log"
	rm -f "$work/$job/pid" "$work/$job/host.initrd"
}

# Takes jobs that nobody has taken, until none is left. The last ones take longest: begun first, they leave
# no CPU idle at the end.
work_off() {
	for job in $(echo "$jobs" | tr ' ' '\n' | tac); do
		[ ! -e "$work/stop" ] || return 0
		mkdir "$work/$job" 2>/dev/null || continue
		name=${job%:*}
		flavour=${job#*:}
		run_job
		: >"$work/$job/done"
	done
}

if [ -n "$interactive" ]; then
	# shellcheck disable=SC2086
	set -- $jobs
	[ $# = 1 ] || bad_usage "--interactive is for one scenario and one flavour, not:$jobs"
	name=${1%:*}
	flavour=${1#*:}
	mkdir "$work/$1"
	prepare_nested "$work/$1"
	guard=
	(level1 "$work/$1" mon:stdio)
	exit 0
fi

worker=0
while [ $worker -lt "$parallel" ]; do
	work_off &
	workers="$workers $!"
	worker=$((worker + 1))
done

# Results in the order of the jobs, each job's as soon as it is complete.
count=0
report() {
	while IFS= read -r line; do
		case $line in
		'ok - '* | 'not ok - '*)
			count=$((count + 1))
			[ "${line#not}" = "$line" ] || failed=$((failed + 1))
			echo "${line%% - *} $count - $name ${line#* - }"
			;;
		*) echo "$line" ;;
		esac
	done
}

echo "TAP version 13"
echo "# $mode, $thaw"
for job in $jobs; do
	name=${job%:*}
	while [ ! -e "$work/$job/done" ]; do
		if [ $(($(date +%s) - begin_s)) -ge "$limit_s" ]; then
			stop_workers
			echo "# out of time after $limit_s s"
			break
		fi
		sleep 0.2
	done
	failed_before=$failed
	mkdir -p "$work/$job"
	[ -f "$work/$job/results" ] || : >"$work/$job/results"
	{
		[ ! -f "$work/$job/before" ] || cat "$work/$job/before"
		tap_of "$work/$job"
	} >"$work/$job/tap"
	grep -q '^# job status 0' "$work/$job/tap" ||
		echo "not ok - ${job#*:}: job runs to its end" >>"$work/$job/tap"
	report <"$work/$job/tap"
	if [ $failed -gt "$failed_before" ]; then
		for log in "$work/$job"/*.log "$work/$job"/work/*.log; do
			[ -s "$log" ] || continue
			echo "# tail of ${log#"$work/"}:"
			tail -n 30 "$log" | tr -d '\r' | sed 's/^/#   /'
		done
	fi
done
echo "1..$count"
echo "# $failed of $count failed, $(($(date +%s) - begin_s)) s"
[ $failed = 0 ] && [ $count -gt 0 ] || exit 1
