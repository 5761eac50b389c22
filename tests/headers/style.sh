#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Layout is as clang-format has it, scripts are clean, every source names its licence.
set -u
cd "$(dirname "$0")/../.." || exit 1
status=0
# Without a list of files, every check would pass.
[ "$(git ls-files vmm | wc -l)" -gt 10 ] || {
    echo "Bail out! git lists no files here"
    exit 1
}

check() { # NUMBER NAME OFFENDERS
    if [ -z "$3" ]; then
        echo "ok $1 - $2"
    else
        status=1
        echo "not ok $1 - $2"
        printf '%s\n' "$3" | head -n 30 | sed 's/^/# /'
    fi
}

check 1 "C files are formatted" "$(git ls-files '*.c' '*.h' | xargs clang-format --dry-run -Werror 2>&1)"
check 2 "shell scripts are clean" "$(git ls-files '*.sh' .ci/run | xargs shellcheck -x 2>&1)"
check 3 "every source file names its licence" "$(
    git ls-files '*.c' '*.h' '*.S' '*.sh' '*.asl' '*.cmake' '*CMakeLists.txt' |
        xargs grep -L 'SPDX-License-Identifier: Apache-2.0'
)"
echo "1..3"
exit $status
