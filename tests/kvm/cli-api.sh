#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The control socket: what it answers, what it refuses, and that nobody can block it.
# shellcheck disable=SC2317 # functions that are called by name
set -u
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/kvm/lib/cli.sh
. tests/kvm/lib/cli.sh
url=http://thaw/v1

"$THAW" run --name a --guest tick --detach </dev/null
socket=$THAW_RUNTIME/a/api.sock

call() { # CURL-ARGUMENT...
    curl -s --max-time 10 --unix-socket "$socket" "$@"
}

status_of() { # CURL-ARGUMENT...
    call -o "$work/answer" -w '%{http_code}' "$@"
}

error_of() { # CURL-ARGUMENT...
    echo "$(status_of "$@") $(jq -r '.error.code' "$work/answer")"
}

# Sends bytes as they are, and prints the first line of the answer.
raw() {
    within 10 curl -s --max-time 8 --unix-socket "$socket" "telnet://thaw" 2>/dev/null | head -n 1 | tr -d '\r'
}

# What it answers.
same "GET /v1/vm" "a running tick" "$(call $url/vm | jq -r '"\(.name) \(.state) \(.guest)"')"
same "the same as ps" "$(vm a pid)" "$(call $url/vm | jq .pid)"
same "PUT paused" "200 paused" "$(status_of -X PUT -d '{"state":"paused"}' $url/vm/state) $(jq -r .state "$work/answer")"
same "PUT paused again" "200" "$(status_of -X PUT -d '{"state":"paused"}' $url/vm/state)"
same "PUT running" "200 running" "$(status_of -X PUT -d '{"state":"running"}' $url/vm/state) $(jq -r .state "$work/answer")"
same "GET /v1/console has all" 1 "$(call $url/console | grep -c '^tick: ready')"
same "GET /v1/console?tail=4 has four bytes" 4 "$(call "$url/console?tail=4" | wc -c)"
same "POST /v1/console takes input" 6 "$(printf 'hello\n' | call --data-binary @- $url/console | jq .taken)"
follow_has() { call -N --max-time 2 "$url/console?follow=1" | grep -qF "$1"; }
check "GET /v1/console?follow=1 streams" follow_has "tick: input hello"
same "follow is chunked" 1 "$(call -i -N --max-time 1 "$url/console?follow=1&tail=0" | grep -ci '^transfer-encoding: chunked')"
same "two requests on one connection" 2 "$(call $url/vm $url/vm | grep -o '"name":"a"' | wc -l)"
same "two requests at once" 2 "$({
    printf 'GET /v1/vm HTTP/1.1\r\n\r\nGET /v1/vm HTTP/1.1\r\nConnection: close\r\n\r\n'
    sleep 0.5
} | within 5 curl -s --unix-socket "$socket" telnet://thaw | grep -o '"name":"a"' | wc -l)"
same "a request in pieces" "HTTP/1.1 200 OK" "$({
    printf 'GET /v1/v'
    sleep 0.2
    printf 'm HTTP/1.1\r\n'
    sleep 0.2
    printf 'Connection: close\r\n\r\n'
    sleep 0.5
} | raw)"
same "a client that waits to be asked for its body" 6 \
    "$(printf 'hello\n' | call --expect100-timeout 30 -H 'Expect: 100-continue' --data-binary @- $url/console | jq .taken)"
same "HTTP/1.0" 1 "$(call -0 $url/vm | jq -s length)"

# What it refuses.
same "unknown path" "404 not-found" "$(error_of $url/frob)"
same "wrong method" "405 method-not-allowed" "$(error_of -X DELETE $url/vm)"
same "and says which would do" "GET, POST" "$(call -i -X PUT -d x $url/console | tr -d '\r' | sed -n 's/^Allow: //p')"
same "state that is none" "400 invalid" "$(error_of -X PUT -d '{"state":"frob"}' $url/vm/state)"
same "body that is no JSON" "400 invalid" "$(error_of -X PUT -d '{"state"' $url/vm/state)"
same "body that is no object" "400 invalid" "$(error_of -X PUT -d '[1]' $url/vm/state)"
same "no body" "400 invalid" "$(error_of -X PUT $url/vm/state)"
same "reset of a VM that was booted" "409 wrong-state" "$(error_of -X POST $url/vm/reset)"
same "reset with another clock" "400 invalid" "$(error_of -X POST -d '{"clock":"x"}' $url/vm/reset)"
same "reset with what there is not" "400 invalid" "$(error_of -X POST -d '{"frob":1}' $url/vm/reset)"
same "query that is no number" "400 invalid" "$(error_of "$url/console?tail=x")"
head -c 100000 /dev/zero >"$work/zeros"
same "body too large" "413 bad-request" "$(error_of --data-binary "@$work/zeros" $url/console)"
# A client that reads nothing before it has sent all, which curl does not wait for.
# shellcheck disable=SC2016 # perl's variables
same "body that is still being sent when it is refused" "HTTP/1.1 413 Payload Too Large" "$(
    perl -MIO::Socket::UNIX -e '
        $SIG{PIPE} = "IGNORE";
        my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die;
        syswrite($s, "POST /v1/console HTTP/1.1\r\nHost: thaw\r\nContent-Length: 8000000\r\n\r\n");
        for (1 .. 800) { syswrite($s, "\0" x 10000) or die "lost: $!\n" }
        print scalar <$s>' "$socket" 2>&1 | tr -d '\r'
)"
same "body of unknown length" "411 bad-request" "$(error_of -T - $url/console <"$work/zeros")"
same "header too large" "431 bad-request" "$(error_of -H "X: $(head -c 20000 "$work/zeros" | tr '\0' x)" $url/vm)"
same "path too long" "414 bad-request" "$(error_of "$url/$(head -c 3000 "$work/zeros" | tr '\0' x)")"
same "garbage" "HTTP/1.1 400 Bad Request" "$({
    printf '\0\1\2\3 garbage\r\n\r\n'
    sleep 0.5
} | raw)"
same "a wrong protocol version" "HTTP/1.1 505 HTTP Version Not Supported" "$({
    printf 'GET /v1/vm HTTP/3.0\r\n\r\n'
    sleep 0.5
} | raw)"
same "it still serves" a "$(call $url/vm | jq -r .name)"

# Nobody can lock the others out.
idle=""
for i in $(seq 100); do
    sleep 20 | curl -s --unix-socket "$socket" "telnet://thaw" >/dev/null 2>&1 &
    idle="$idle $!"
done
sleep 0.5
same "100 idle connections: it still answers" a "$(call $url/vm | jq -r .name)"
check "and ps knows it" has_state a running
# shellcheck disable=SC2086
kill $idle 2>/dev/null
streams=""
for i in $(seq 20); do
    curl -s -N --max-time 20 --unix-socket "$socket" "$url/console?follow=1&tail=0" >"$work/stream$i" 2>&1 &
    streams="$streams $!"
done
limited() { [ "$(grep -l '"busy"' "$work"/stream* | wc -l)" = 4 ]; }
check "readers of the console are limited" soon limited
check "with all of them it still answers" "$THAW" pause a
# shellcheck disable=SC2086
kill $streams 2>/dev/null
few_sockets() {
    [ "$(find "/proc/$(vm a pid)/fd" -lname 'socket:*' | wc -l)" -le 1 ]
}
check "connections are closed again" soon few_sockets

# The end.
call -N --max-time 10 "$url/console?follow=1" >"$work/stream" &
stream=$!
"$THAW" resume a
sleep 0.3
same "PUT stopped" "200 stopped" "$(status_of -X PUT -d '{"state":"stopped"}' $url/vm/state) $(jq -r .state "$work/answer")"
wait "$stream"
same "a stream ends as it should" 0 "$?"
check "the VM is gone" soon test ! -e "$THAW_RUNTIME/a"
finish
