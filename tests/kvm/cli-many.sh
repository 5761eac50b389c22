#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Many VMs at once, and many who want the same name.
# shellcheck disable=SC2317 # functions that are called by name
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/kvm/lib/cli.sh
. tests/kvm/lib/cli.sh

for i in $(seq 20); do
    "$THAW" run --name "m$i" --guest tick --mem 32M --detach </dev/null 2>>"$work/errors" &
done
wait
same "20 VMs started at once" "20 " "$("$THAW" ps --json | jq '[.items[] | select(.state == "running")] | length') $(cat "$work/errors")"
same "ps lists them in order" "$(names | tr ' ' '\n' | LC_ALL=C sort | tr '\n' ' ')" "$(names | tr ' ' '\n' | tr '\n' ' ')"
all_tick() { "$THAW" ps --json | jq -e '[.items[].marks > 2] | all'; }
check "all of them run" soon all_tick
# shellcheck disable=SC2046
check "pause takes several names" "$THAW" pause $(names)
same "all are paused" 20 "$("$THAW" ps --json | jq '[.items[] | select(.state == "paused")] | length')"
for i in $(seq 20); do
    "$THAW" stop "m$i" 2>>"$work/errors" &
done
for i in $(seq 20); do
    "$THAW" ps >/dev/null 2>>"$work/errors"
done
wait
same "20 VMs stopped at once, while others look" " " "$(names) $(cat "$work/errors")"
same "nothing is left" "" "$(ls "$THAW_RUNTIME")"

for i in $(seq 10); do
    "$THAW" run --name same --guest tick --detach </dev/null 2>>"$work/errors" && echo "$i" >>"$work/winners" &
done
wait
same "of ten who want a name one gets it" "1 9" "$(wc -l <"$work/winners") $(grep -c 'in use' "$work/errors")"
for i in 1 2 3 4 5; do
    "$THAW" stop same && "$THAW" run --name same --guest tick --detach </dev/null || echo "$i" >>"$work/lost"
done
check "a name is free as soon as stop returns" test ! -e "$work/lost"
{ "$THAW" stop same 2>>"$work/errors2" & "$THAW" stop same 2>>"$work/errors2"; }
wait
same "two who stop the same VM" "" "$(names)"
finish
