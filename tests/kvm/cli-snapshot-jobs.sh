#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Snapshots that take long: progress, cancelling, two at once, and the control socket behind it.
# shellcheck disable=SC2317 # functions that are called by name
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/kvm/lib/cli.sh
. tests/kvm/lib/cli.sh
# shellcheck source=tests/kvm/lib/snapshot.sh
. tests/kvm/lib/snapshot.sh
url=http://thaw/v1

# A VM whose snapshots can take some seconds: with the highest level of compression.
"$build/memtouch-data" -o "$work/data" 16
"$THAW" run --name a --guest memtouch --initrd "$work/data" --mem 64M --cmdline "ws=1 rate=1" --detach </dev/null
socket=$THAW_RUNTIME/a/api.sock
slow='{"level":19,"mode":"full","name":"%s"}'

call() { # CURL-ARGUMENT...
    curl -s --max-time 60 --unix-socket "$socket" "$@"
}

# The status and what the body has under error.code, of one line or the last of several.
error_of() { # CURL-ARGUMENT...
    status=$(call -o "$work/answer" -w '%{http_code}' "$@")
    echo "$status $(tail -n 1 "$work/answer" | jq -r '.error.code')"
}

body() { # NAME
    # shellcheck disable=SC2059 # the format is ours
    printf "$slow" "$1"
}

exists() { # NAME
    "$THAW" ls --state creating --json | jq -e --arg name "$1" '[.items[] | select(.name == $name)] | length > 0'
}

goes_on() { # VM
    before=$(vm "$1" marks)
    soon marked_more "$1"
}

marked_more() { # VM
    [ "$(vm "$1" marks)" -gt "$before" ]
}

check "it runs" soon ticked a 1

# Ctrl-C.
for signal in INT TERM HUP; do
    env --default-signal=INT "$THAW" snapshot a --name cancelled --level 19 --full >"$work/out" 2>"$work/err" &
    pid=$!
    soon exists cancelled
    kill -s "$signal" "$pid"
    wait "$pid"
    same "SIG$signal cancels the snapshot" "1 thaw: the snapshot was cancelled; VM 'a' goes on " \
        "$? $(cat "$work/err") $(cat "$work/out")"
    same "and none is there" 0 "$("$THAW" ls --state ready --state creating --json | jq .total)"
    check "and the VM goes on" goes_on a
done

# The client is killed.
"$THAW" snapshot a --name killed --level 19 --full >/dev/null 2>&1 &
pid=$!
soon exists killed
kill -9 "$pid"
wait "$pid" 2>/dev/null
is_quiet() { [ "$("$THAW" ls --state creating --json | jq .total)" = 0 ]; }
check "a client that is killed cancels its snapshot" soon is_quiet
same "and none is there" 0 "$("$THAW" ls --state ready --json | jq .total)"

# Of a VM that stands still for it (its first, since a later one finds most of it stored): who wants
# something else is told so, and need not wait.
call -N -d '{"name":"still","level":19,"mode":"full","stop_and_copy":true}' $url/snapshots >"$work/lines" &
pid=$!
soon has_state a paused
same "pausing a VM that stands still for a snapshot" "409 busy" \
    "$(error_of -X PUT -d '{"state":"paused"}' $url/vm/state)"
same "letting it run" "409 busy" "$(error_of -X PUT -d '{"state":"running"}' $url/vm/state)"
same "cancelling the snapshot is heard meanwhile" true "$(call -X DELETE $url/snapshots | jq .cancelling)"
wait "$pid"
same "and done" "failed cancelled" "$(tail -n 1 "$work/lines" | jq -r '"\(.state) \(.error.code)"')"
check "and the VM goes on" goes_on a
"$THAW" pause a
call -N -d "$(body paused)" $url/snapshots >"$work/lines" &
pid=$!
soon exists paused
same "letting a VM run that was paused before" "409 busy" \
    "$(error_of -X PUT -d '{"state":"running"}' $url/vm/state)"
same "cancelling that" true "$(call -X DELETE $url/snapshots | jq .cancelling)"
wait "$pid"
check "it can run afterwards" "$THAW" resume a
check "and does" goes_on a

# A reset, of a clone that has written as much.
"$THAW" run --name w --guest memtouch --initrd "$work/data" --mem 64M --cmdline "op=write" --detach </dev/null
check "a snapshot of it" "$THAW" snapshot w --name w
"$THAW" stop w
check "restored" "$THAW" restore w --name w --detach
socket=$THAW_RUNTIME/w/api.sock
check "it writes" goes_on w
check "all of it" goes_on w
call -N -d '{"name":"dirty","level":19,"mode":"diff","stop_and_copy":true}' $url/snapshots >"$work/lines" &
pid=$!
soon has_state w paused
same "resetting a VM that stands still for a snapshot" "409 busy" "$(error_of -X POST $url/vm/reset)"
same "is answered while it does" paused "$(vm w state)"
same "its snapshot can still be cancelled" true "$(call -X DELETE $url/snapshots | jq .cancelling)"
wait "$pid"
check "and then it is reset" "$THAW" reset w
"$THAW" stop w
"$THAW" rm w >/dev/null
socket=$THAW_RUNTIME/a/api.sock

# Two at once.
"$THAW" snapshot a --name first --level 19 --full >"$work/first" 2>&1 &
pid=$!
soon exists first
refused "a second snapshot at the same time" 1 "" "$THAW" snapshot a --name second
same "over HTTP" "409 busy" "$(error_of -d "$(body second)" $url/snapshots)"
refused "rm of one that is being created" 1 "being created" "$THAW" rm first
refused "restore of one that is being created" 1 "snapshot 'first' is still being created" "$THAW" restore first --detach
same "ls shows it" creating "$(snapshot first state)"
same "the VM answers meanwhile" "a " "$("$THAW" ps --json | jq -r '.items[] | "\(.name) \(.detail)"')"
check "and goes on while its memory is written" goes_on a
same "which still is" creating "$(snapshot first state)"
wait "$pid"
same "the first is taken all the same" "0 first ready" "$? $(cat "$work/first") $(snapshot first state)"
check "and the VM goes on" goes_on a
same "and the second is not there" first "$("$THAW" ls --state ready --json | jq -r '.items[].name')"

# The progress bar.
after_bar() { tr -d '\r' <"$work/typescript" | sed -n 's/.*\x1b\[K//p' | tail -n 1; }
script -qec "'$THAW' snapshot a --name bar --full --level 3" "$work/typescript" >/dev/null 2>&1 </dev/null
check "a progress bar on a terminal" grep -q '% ' "$work/typescript"
same "which is gone at the end" bar "$(after_bar)"
"$THAW" snapshot a --name plain --full --level 3 >/dev/null 2>"$work/err"
same "none elsewhere" "" "$(cat "$work/err")"
script -qec "'$THAW' verify bar" "$work/typescript" >/dev/null 2>&1 </dev/null
same "verify on a terminal" ok "$(after_bar)"

# The control socket.
call -N -d '{"name":"http","level":6,"mode":"full"}' $url/snapshots >"$work/lines"
check "every line is JSON" jq -e -s 'length >= 2' "$work/lines"
check "progress never goes back" jq -e -s '[.[] | select(.state == "running") | .done_bytes] | . == sort' "$work/lines"
same "the last is the snapshot" "done http ready" "$(tail -n 1 "$work/lines" | jq -r '"\(.state) \(.snapshot.name) \(.snapshot.state)"')"
same "the content is named" 1 "$(call -i -d '{"name":"i"}' $url/snapshots | grep -ci '^content-type: application/x-ndjson')"
same "HTTP/1.0" "done" "$(call -0 -d '{"name":"ten"}' $url/snapshots | tail -n 1 | jq -r .state)"
check "a body that is empty" sh -c "test \"\$(curl -s --unix-socket '$socket' -X POST $url/snapshots | tail -n 1 | jq -r .state)\" = done"
call -N -d "$(body stopped)" $url/snapshots >"$work/lines" &
pid=$!
soon exists stopped
same "DELETE cancels" true "$(call -X DELETE $url/snapshots | jq .cancelling)"
wait "$pid"
same "which the stream tells" "failed cancelled" "$(tail -n 1 "$work/lines" | jq -r '"\(.state) \(.error.code)"')"
same "DELETE of none" false "$(call -X DELETE $url/snapshots | jq .cancelling)"
same "a name that is taken" "409 exists" "$(error_of -d '{"name":"http"}' $url/snapshots)"
same "GET" "405 method-not-allowed" "$(error_of $url/snapshots)"
same "and says what would do" "POST, DELETE" "$(call -i $url/snapshots | tr -d '\r' | sed -n 's/^Allow: //p')"
for bad in '{' '[]' '"x"' '{"name":1}' '{"frob":1}' '{"mode":"half"}' '{"store":"relative"}' \
    '{"metadata":[]}' '{"level":"1"}' '{"level":99}' '{"kill":1}' '{"name":"a/b"}' '{"name":"a","name":"b"}'; do
    same "bad body $bad" "400 invalid" "$(error_of -d "$bad" $url/snapshots)"
done
streams=""
for _ in $(seq 16); do
    curl -s -N --max-time 20 --unix-socket "$socket" "$url/console?follow=1&tail=0" >/dev/null 2>&1 &
    streams="$streams $!"
done
sleep 0.5
check "readers of the console keep nobody from taking a snapshot" "$THAW" snapshot a --name crowd
# shellcheck disable=SC2086
kill $streams 2>/dev/null

# Stopping the VM.
"$THAW" snapshot a --name late --level 19 --full >"$work/out" 2>"$work/err" &
pid=$!
soon exists late
check "a VM can be stopped meanwhile" "$THAW" stop a
wait "$pid"
same "the snapshot is given up, with a reason" "1 1" "$? $(grep -c '^thaw: ' "$work/err")"
same "and not there" 0 "$("$THAW" ls --query late --state ready --state creating --json | jq .total)"
same "nothing is left of the VM" "" "$(ls "$THAW_RUNTIME")"

# A foreground VM that takes --kill.
"$THAW" run --name f --guest tick </dev/null >/dev/null 2>"$work/err" &
pid=$!
soon ticked f 2
check "--kill of a VM in the foreground" "$THAW" snapshot f --name f --kill
wait "$pid"
same "whose status is 0" "0 " "$? $(cat "$work/err")"
check "it goes on" "$THAW" restore f --detach
check "and on" soon ticked_on f
"$THAW" stop f
finish
