#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the command refuses: each time one line that says why, and status 1 or 2.
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/kvm/lib/cli.sh
. tests/kvm/lib/cli.sh
tick=$build/guests/tick

# Usage.
refused "no command" 2 "see 'thaw --help'" "$THAW"
refused "unknown command" 2 "unknown command 'frob'" "$THAW" frob
refused "unknown option" 2 "unknown option '--frob'" "$THAW" ps --frob
refused "unknown short option" 2 "unknown option '-x'" "$THAW" ps -x
refused "option without its argument" 2 "'--name' needs an argument" "$THAW" run --guest tick --name
refused "flag with an argument" 2 "takes no argument" "$THAW" run --name x --guest tick --detach=yes
refused "unexpected argument" 2 "unexpected argument 'x'" "$THAW" ps x
refused "run without a name" 2 "'--name' is missing" "$THAW" run --guest tick
refused "run without guest and kernel" 2 "either --guest or --kernel" "$THAW" run --name x
refused "run with both" 2 "either --guest or --kernel" "$THAW" run --name x --guest tick --kernel "$tick"
for command in pause resume stop console; do
    refused "$command without a name" 2 "name is missing" "$THAW" "$command"
    refused "$command of an unknown VM" 1 "no VM named 'nobody'" "$THAW" "$command" nobody
    refused "$command of a name that is none" 1 "no VM named '../x'" "$THAW" "$command" ../x
done
for name in "" . .. ../x a/b -a "a b" "$(printf '%065d' 0)" "$(printf 'a\nb')" ä; do
    refused "bad name '$(printf %s "$name" | tr '\n' ' ' | cut -c1-20)'" 2 "is no VM name" \
        "$THAW" run --guest tick "--name=$name"
done
for mem in "" 0 8 15M 1T1 2T 12X M -5 +5 1.5G 0x10 512MB 18446744073709551616 99999999999999999999G 17000K; do
    refused "bad memory size '$mem'" 2 "memory" "$THAW" run --name x --guest tick "--mem=$mem"
done
for cpus in "" 0 17 -1 1x 99999999999999999999; do
    refused "bad number of vCPUs '$cpus'" 2 "number of vCPUs" "$THAW" run --name x --guest tick "--cpus=$cpus"
done
set --
for i in 1 2 3 4 5 6 7 8 9; do set -- "$@" --disk "/disk$i"; done
refused "too many disks" 2 "too many disks" "$THAW" run --name x --guest tick "$@"

# Files.
head -c 4096 /dev/urandom >"$work/noise"
head -c 3000 "$tick" >"$work/short"
: >"$work/empty"
refused "unknown guest: lists those that there are" 1 "tick" "$THAW" run --name x --guest nosuch
refused "a guest is a name, not a path" 1 "unknown guest" "$THAW" run --name x --guest ../guests/tick
refused "no guests where THAW_GUESTS points" 1 "no guests found" env THAW_GUESTS="$work/none" \
    "$THAW" run --name x --guest tick
refused "kernel missing" 1 "$work/none" "$THAW" run --name x --kernel "$work/none"
refused "kernel that is a directory" 1 "$work" "$THAW" run --name x --kernel "$work"
refused "kernel that is none" 1 "$work/noise" "$THAW" run --name x --kernel "$work/noise"
refused "kernel that is empty" 1 "$work/empty" "$THAW" run --name x --kernel "$work/empty"
refused "kernel that is truncated" 1 "$work/short" "$THAW" run --name x --kernel "$work/short"
refused "initrd missing" 1 "$work/none" "$THAW" run --name x --guest tick --initrd "$work/none"
truncate -s 200M "$work/large"
refused "initrd that is larger than the memory" 1 "initrd" \
    "$THAW" run --name x --guest tick --mem 128M --initrd "$work/large"
refused "command line too long" 1 "command line" "$THAW" run --name x --guest tick --cmdline "$(printf '%03000d' 0)"
refused "disk missing" 1 "$work/none" "$THAW" run --name x --guest tick --disk "$work/none"
head -c 1000 /dev/zero >"$work/odd"
refused "disk that is no multiple of 512 bytes" 1 "512" "$THAW" run --name x --guest tick --disk "$work/odd"
refused "disk that is a directory" 1 "$work" "$THAW" run --name x --guest tick --disk "$work:ro"
refused "errors reach the user of --detach, too" 1 "$work/noise" \
    "$THAW" run --name x --kernel "$work/noise" --detach

# Places.
refused "runtime directory that cannot be made" 1 "runtime directory" env THAW_RUNTIME="$work/noise/run" \
    "$THAW" run --name x --guest tick
mkdir -m 777 "$work/open"
refused "runtime directory that others can change" 1 "THAW_RUNTIME" env THAW_RUNTIME="$work/open" \
    "$THAW" run --name x --guest tick
# Where all may make directories, somebody else's may have a VM's name.
mkdir -m 1777 "$work/sticky"
mkdir -m 777 "$work/sticky/ours" "$work/sticky/theirs"
refused "a VM's directory that others can change" 1 "can be changed by others" \
    env THAW_RUNTIME="$work/sticky" "$THAW" run --name ours --guest tick \
    --cmdline 'ticks=1 interval=1000'
if chown 65534 "$work/sticky/theirs" 2>/dev/null; then
    echo '{"name":"theirs"}' >"$work/sticky/theirs/status.json"
    echo precious >"$work/victim"
    ln -s "$work/victim" "$work/sticky/theirs/console.log"
    for mode in 777 700; do
        chmod $mode "$work/sticky/theirs"
        refused "a VM's directory that is another user's, with mode $mode" 1 "is another user's" \
            env THAW_RUNTIME="$work/sticky" "$THAW" run --name theirs --guest tick \
            --cmdline 'ticks=1 interval=1000'
        same "nothing was made or removed in it" "console.log
status.json" "$(ls "$work/sticky/theirs")"
        same "nor written through a link of theirs" precious "$(cat "$work/victim")"
    done
    chmod 777 "$work/sticky/theirs"
    refused "nor is it read, if others can change it" 1 "cannot read" \
        env THAW_RUNTIME="$work/sticky" "$THAW" stop theirs
    same "nor listed" 0 "$(THAW_RUNTIME=$work/sticky "$THAW" ps --json | jq '.items | length')"
else
    skip "a VM's directory that is another user's" "only root can make one"
fi
refused "runtime directory whose path is too long for a socket" 1 "shorter" \
    env THAW_RUNTIME="$work/$(printf '%0100d' 0)" "$THAW" run --name x --guest tick
refused "store that is no directory" 1 "store" "$THAW" run --name x --guest tick --store "$work/noise"
refused "the same from the environment" 1 "store" env THAW_STORE="$work/noise" "$THAW" run --name x --guest tick
check "a store that is not there yet is fine" sh -c \
    "'$THAW' --store '$work/none' run --name s --guest tick --cmdline 'ticks=1 interval=1000' </dev/null"
"$THAW" stop s
if [ -e /dev/full ]; then
    refused "output that cannot be written" 1 "cannot write the output" sh -c "'$THAW' ps >/dev/full"
fi
without_kvm() {
    unshare -m sh -c 'mount -t tmpfs none /dev && mknod /dev/null c 1 3 && exec "$@" </dev/null' - "$@"
}
if without_kvm true 2>/dev/null; then
    refused "no /dev/kvm" 1 "/dev/kvm" unshare -m sh -c \
        'mount -t tmpfs none /dev && mknod /dev/null c 1 3 && exec "$@" </dev/null' - \
        "$THAW" run --name x --guest tick
    without_kvm "$THAW" doctor --json >"$work/out" 2>"$work/err"
    same "doctor says that it is missing: status 1" "1 missing" "$? $(jq -r .status "$work/out")"
else
    skip "no /dev/kvm" "not allowed to mount"
fi
same "nothing is left behind" "" "$(ls "$THAW_RUNTIME" 2>/dev/null)"
finish
