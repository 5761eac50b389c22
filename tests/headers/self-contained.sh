#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every public header compiles on its own, as strict C99, C17 and C++.
set -u
cd "$(dirname "$0")/../.." || exit 1
number=0
status=0
for header in include/thaw/*.h; do
    for mode in "cc -xc -std=c99 -Wpedantic" "cc -xc -std=c17 -Wpedantic" "c++ -xc++ -std=c++11"; do
        number=$((number + 1))
        # shellcheck disable=SC2086 # a command with its options
        if ! command -v ${mode%% *} >/dev/null; then
            echo "ok $number - $header with $mode # SKIP no ${mode%% *}"
        elif printf '#include "%s"\nextern int here;\n' "${header#include/}" |
            $mode -Wall -Wextra -Werror -Iinclude -fsyntax-only - 2>&1; then
            echo "ok $number - $header with $mode"
        else
            echo "not ok $number - $header with $mode"
            status=1
        fi
    done
done
echo "1..$number"
exit $status
