#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Processes that restore the same snapshot share its memory.
# shellcheck disable=SC2317 # functions that are called by name
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/kvm/lib/cli.sh
. tests/kvm/lib/cli.sh
# shellcheck source=tests/kvm/lib/snapshot.sh
. tests/kvm/lib/snapshot.sh

# The file behind a VM's memory: the same number, the same memory.
memory_of() { # VM
    awk '$6 == "/memfd:thaw-image" { print $5; found = 1; exit } END { if (!found) print "none of " FILENAME }' \
        "/proc/$(vm "$1" pid)/maps"
}
# A busy host may take longer to answer than anybody waits.
shares() { # NEW-VM VM
    for attempt in 1 2 3 4 5; do
        "$THAW" restore s --name "$1" --detach || return 1
        [ "$(memory_of "$1")" != "$(memory_of "$2")" ] || return 0
        [ "$attempt" = 5 ] || "$THAW" stop "$1"
    done
    return 1
}
goes_on() { # VM
    marks=$(vm "$1" marks)
    has_more() { [ "$(vm "$1" marks)" -gt "$2" ]; }
    soon has_more "$1" "$marks"
}
ask() { # VM PATH
    curl -s --unix-socket "$THAW_RUNTIME/$1/api.sock" "http://thaw$2"
}

"$build/memtouch-data" -o "$work/data" 8
"$THAW" run --name base --guest memtouch --initrd "$work/data" --mem 64M --cmdline "op=write" --detach
check "a guest checks its memory again and again" goes_on base
check "snapshot" "$THAW" snapshot base --name s
id=$("$THAW" inspect s --json | jq -r .id)
same "a VM that was booted has no memory to share" "wrong-state" \
    "$(ask base "/v1/image?snapshot=$id" | jq -r .error.code)"
"$THAW" stop base

check "the first one reads its memory" "$THAW" restore s --name a --mode eager --detach
check "its guest goes on" goes_on a
check "the second one shares its memory" shares b a
check "its guest goes on, too" goes_on b
check "the first one ends" "$THAW" stop a
check "the third one shares the second one's" shares c b
check "its guest goes on" goes_on c
check "a snapshot of who shares" "$THAW" snapshot c --name s2
check "is restored" "$THAW" restore s2 --name d --mode eager --detach
check "and goes on" goes_on d
same "with memory of its own" "different" "$([ "$(memory_of d)" = "$(memory_of c)" ] || echo different)"
same "memory of another snapshot is not given" "wrong-state" \
    "$(ask d "/v1/image?snapshot=$id" | jq -r .error.code)"
same "nor without saying of which" "wrong-state" "$(ask d /v1/image | jq -r .error.code)"

# Who dies leaves a hint that leads nowhere.
# Its socket goes with the last of its threads.
refuses() { # NAME
    curl -s --max-time 1 --unix-socket "$THAW_RUNTIME/$1/api.sock" http://thaw/v1/vm >/dev/null
    [ $? = 7 ]
}
kill -9 "$(vm b pid)" "$(vm c pid)"
soon refuses b
soon refuses c
check "after those who had it died, memory is read again" "$THAW" restore s --name e --mode eager --detach
check "the guest goes on" goes_on e
same "what they left is gone" "e" "$(ls "$THAW_RUNTIME/.images/$id")"

# Who does not answer is not waited for.
kill -STOP "$(vm e pid)"
check "who stands still holds nobody up" within 20 "$THAW" restore s --name f --mode eager --detach
kill -CONT "$(vm e pid)"
check "its guest goes on" goes_on f
for name in $(names); do
    "$THAW" stop "$name"
done
same "hints go with their VMs" "" "$(ls -A "$THAW_RUNTIME")"
finish
