#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the commands for snapshots refuse, what they say of damage, and ls with many snapshots.
# shellcheck disable=SC2317 # functions that are called by name
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/kvm/lib/cli.sh
. tests/kvm/lib/cli.sh
# shellcheck source=tests/kvm/lib/snapshot.sh
. tests/kvm/lib/snapshot.sh

# Usage.
refused "snapshot without a VM" 2 "name is missing" "$THAW" snapshot
refused "snapshot of two VMs" 2 "unexpected argument 'b'" "$THAW" snapshot a b
refused "both --diff and --full" 2 "either --diff or --full" "$THAW" snapshot a --diff --full
for level in "" 0 20 -1 x; do
    refused "bad level '$level'" 2 "level of compression" "$THAW" snapshot a "--level=$level"
done
for name in "" . ../x a/b "a b" "$(printf '%065d' 0)" "$(printf 'a\nb')"; do
    shown=$(printf %s "$name" | tr '\n' ' ' | cut -c1-20)
    refused "bad snapshot name '$shown'" 2 "is no snapshot name" "$THAW" snapshot a "--name=$name"
    refused "bad template name '$shown'" 2 "is no template name" "$THAW" snapshot a "--template=$name"
    refused "bad VM name '$shown' to restore" 2 "is no VM name" "$THAW" restore s "--name=$name"
done
for command in restore inspect verify flatten rm; do
    refused "$command without a snapshot" 2 "the snapshot is missing" "$THAW" "$command"
    refused "$command without a store" 1 "there is no store at '$THAW_STORE' yet" "$THAW" "$command" s
done
refused "restore of two" 2 "unexpected argument 'b'" "$THAW" restore a b
refused "bad mode" 2 "'slow' is no mode" "$THAW" restore s --mode slow
refused "bad clock" 2 "'x' is no clock policy" "$THAW" restore s --clock x
for disk in "" 0 = 0= x=/d -1=/d 8=/d 0x1=/d 00000=/d; do
    refused "bad disk '$disk'" 2 "K=PATH" "$THAW" restore s "--disk=$disk"
done
refused "a disk twice" 2 "disk 1 is given twice" "$THAW" restore s --disk 1=/a --disk 01=/b
refused "bad state" 2 "'nice' is no state" "$THAW" ls --state nice
refused "ls takes no operand" 2 "unexpected argument 'x'" "$THAW" ls x
for page in "" 0 -1 x 4294967296; do
    refused "bad page '$page'" 2 "is no page" "$THAW" ls "--page=$page"
    refused "bad page size '$page'" 2 "is no page size" "$THAW" ls "--page-size=$page"
done
mkdir "$work/full"
: >"$work/full/file"
refused "ls where something else is" 1 "is not a store" "$THAW" ls --store "$work/full"
mkdir "$work/empty"
same "ls of an empty directory" 0 "$("$THAW" ls --store "$work/empty" --json | jq .total)"

# Of VMs.
refused "snapshot of an unknown VM" 1 "no VM named 'nobody'" "$THAW" snapshot nobody
"$THAW" run --name gone --guest tick --cmdline "ticks=1 interval=1000" </dev/null >/dev/null
refused "snapshot of a VM that has ended" 1 "has ended" "$THAW" snapshot gone
"$THAW" stop gone
"$THAW" run --name a --guest tick --detach </dev/null
soon ticked a 2
refused "--diff without a base" 1 "" "$THAW" snapshot a --diff --name early
same "leaves no name behind" 0 "$("$THAW" ls --query early --state ready --json | jq .total)"
refused "a store that is none" 1 "nor a store" "$THAW" snapshot a --store "$work/full"
refused "metadata that is no JSON" 1 "no JSON object" "$THAW" snapshot a --metadata '{"x"'
refused "metadata that is no object" 1 "no JSON object" "$THAW" snapshot a --metadata '[1]'
refused "metadata out of no file" 1 "cannot read the metadata file" "$THAW" snapshot a --metadata "@$work/nosuch"
{
    printf '{"x":"'
    head -c 65000 /dev/zero | tr '\0' x
    printf '"}'
} >"$work/large"
check "64 KiB of metadata are fine" "$THAW" snapshot a --name large --metadata "@$work/large"
head -c 70000 /dev/zero | tr '\0' ' ' >"$work/larger"
refused "more are not" 1 "more than 64 KiB" "$THAW" snapshot a --metadata "@$work/larger"
refused "nor on the command line" 1 "more than 64 KiB" "$THAW" snapshot a --metadata "$(cat "$work/larger")"
refused "nor 13 levels" 1 "nested more than 12 deep" "$THAW" snapshot a --metadata '{"x":[[[[[[[[[[[[1]]]]]]]]]]]]}'
same "and nothing is left of that" 0 "$("$THAW" ls --state failed --json | jq .total)"
"$THAW" snapshot a --name s --full >/dev/null
refused "a name that is taken" 1 "s" "$THAW" snapshot a --name s
same "leaves the one that has it" "ready" "$(snapshot s state)"
id=$(id_of s)
refused "an id as a name" 1 "" "$THAW" snapshot a --name "$id"
kill -STOP "$(vm a pid)"
within 60 "$THAW" snapshot a --name hung >"$work/out" 2>"$work/err"
same "a process that hangs" "1 thaw: VM 'a' does not answer" "$? $(cat "$work/err")"
kill -CONT "$(vm a pid)"
check "and what was given up does not come later" soon sh -c "'$THAW' snapshot a --name after"
same "and the VM still runs" running "$(vm a state)"
"$THAW" stop a

# Of snapshots.
for command in restore inspect verify flatten rm; do
    refused "$command of an unknown snapshot" 1 "nosuch" "$THAW" "$command" nosuch
    refused "$command of a path" 1 "../s" "$THAW" "$command" ../s
done
check "a snapshot by the beginning of its id" "$THAW" verify "$(echo "$id" | cut -c1-8)"
refused "a disk that it does not have" 1 "has no disk 0" "$THAW" restore s --disk "0=$work/large" --detach
same "restoring what cannot be leaves no VM" "" "$(names)"
same "rm goes on after one that fails" 1 "$("$THAW" rm nosuch large after 2>/dev/null; echo $?)"
same "with the others" s "$("$THAW" ls --state ready --json | jq -r '.items[].name')"

# Damage: a flipped byte anywhere is found, and named.
flip() { # FILE OFFSET
    # shellcheck disable=SC2059 # the format is one byte
    printf "\\$(printf %o $((255 - $(od -An -tu1 -j "$2" -N 1 "$1"))))" |
        dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
same "verify of a good one" ok "$("$THAW" verify s)"
same "verify --json of a good one" "s true" "$("$THAW" verify s --json | jq -r '"\(.name) \(.ok)"')"
dir=$THAW_STORE/snapshots/$id
pack=$(find "$dir/packs" -type f)
for file in "$pack" "$dir/vmstate" "$dir/ram.index"; do
    short=$(basename "$file")
    offset=$(($(stat -c %s "$file") / 2))
    flip "$file" "$offset"
    refused "verify names $(echo "$short" | sed "s/$(basename "$pack")/the pack/")" 1 "$short" "$THAW" verify s
    flip "$file" "$offset"
    check "and is content when it is good again" "$THAW" verify s
done
flip "$dir/vmstate" 100
refused "restore of a damaged one names the file" 1 "vmstate" "$THAW" restore s --detach
same "and leaves no VM" "" "$(names)"
flip "$dir/vmstate" 100
flip "$dir/manifest.json" 100
same "ls shows that one is damaged" "$id damaged" "$("$THAW" ls --state damaged --json | jq -r '.items[] | "\(.id) \(.state)"')"
refused "restore of it" 1 "manifest" "$THAW" restore "$id" --detach
check "it can be deleted" "$THAW" rm "$id"

# Another host's.
"$THAW" run --name a --guest tick --detach </dev/null
soon ticked a 2
"$THAW" snapshot a --name other --kill >/dev/null
"$build/tests/tools/other_host" "$THAW_STORE/snapshots/$(id_of other)" backend feature
same "what another host wrote is whole" ok "$("$THAW" verify other)"
refused "restore says what this host lacks" 1 "lacks what the guest was started with: KVM backend kvm_other (this is " \
    "$THAW" restore other --detach
refused "all of it" 1 ", cpuid 0x7.0 ebx bit 22" "$THAW" restore other --detach
same "and leaves no VM" "" "$(names)"
check "--force restores it all the same" "$THAW" restore other --force --detach
check "and it goes on" soon ticked_on other
"$THAW" stop other
"$THAW" rm other

# Many.
"$THAW" run --name a --guest tick --mem 16M --detach </dev/null
"$THAW" run --name b --guest tick --mem 16M --detach --template other </dev/null
for i in 1 2 3 4 5 6 7; do "$THAW" snapshot a --name "web-$i" >/dev/null; done
for i in 1 2 3; do "$THAW" snapshot b --name "db-$i" >/dev/null; done
list() { # OPTION...
    "$THAW" ls --json "$@" | jq -r '"\(.total): \([.items[].name] | join(" "))"'
}
same "the newest first" "10: db-3 db-2 db-1 web-7 web-6 web-5 web-4 web-3 web-2 web-1" "$(list)"
same "--source" "3: db-3 db-2 db-1" "$(list --source b)"
same "--source of none" "0: " "$(list --source c)"
same "--template" "3: db-3 db-2 db-1" "$(list --template other)"
same "--template of none" "0: " "$(list --template othe)"
same "--query" "2: db-3 web-3" "$(list --query -3)"
same "--query by id" "1: web-5" "$(list --query "$(id_of web-5 | cut -c1-10)")"
same "--state" "10 0" "$("$THAW" ls --state ready --json | jq .total) $("$THAW" ls --state creating --state deleting --json | jq .total)"
same "--page-size" "10: db-3 db-2 db-1 web-7" "$(list --page-size 4)"
same "--page" "10: web-6 web-5 web-4 web-3" "$(list --page-size 4 --page 2)"
same "the last page" "10: web-2 web-1" "$(list --page-size 4 --page 3)"
same "past the last page" "10: " "$(list --page-size 4 --page 4)"
same "--page alone" "10: db-3" "$(list --page 1 | cut -c1-8)"
same "all together" "7: web-4 web-3 web-2" "$(list --source a --query web --page 2 --page-size 3)"
same "the table says what is not on it" "4 of 10" "$("$THAW" ls --page-size 4 | tail -n 1)"
same "options may stand before the command" 10 "$(env -u THAW_STORE "$THAW" --store "$THAW_STORE" --json ls | jq .total)"
same "rm --json prints what is gone" "web-1 deleted
web-2 deleted" "$("$THAW" rm --json web-1 web-2 | jq -r '"\(.name) \(.state)"')"
same "and it is" 8 "$("$THAW" ls --json | jq .total)"
finish
