#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Dependencies run one way: tools use the public API only; vmm knows nothing of snapshot; snapshot
# issues no KVM ioctl; every public function is in the symbol map, and nothing else.
set -u
cd "$(dirname "$0")/../.." || exit 1
number=0
status=0

check() { # NAME OFFENDERS
    number=$((number + 1))
    if [ -z "$2" ]; then
        echo "ok $number - $1"
    else
        status=1
        echo "not ok $number - $1"
        printf '%s\n' "$2" | sed 's/^/# /'
    fi
}

# Without a list of files, every check would pass.
[ "$(git ls-files vmm | wc -l)" -gt 10 ] || {
    echo "Bail out! git lists no files here"
    exit 1
}

files() { # FOLDER
    git ls-files "$1" | grep -E '\.[ch]$'
}

# The benchmark makes the data of a guest.
check "tools include no header of vmm, snapshot or guest" "$(
    for file in $(files tools); do
        dir=$(dirname "$file")
        sed -n 's/^#include "\(.*\)".*/\1/p' "$file" | while read -r header; do
            case $file:$header in
            tools/bench/recipe.c:../../guest/memtouch/layout.h) ;;
            *..*) echo "$file: $header" ;;
            *) [ -e "$dir/$header" ] || [ -e "tools/$header" ] || echo "$file: $header" ;;
            esac
        done
    done
)"
check "vmm includes no header of snapshot" "$(
    for header in $(git ls-files snapshot | sed -n 's|.*/\(.*\.h\)$|\1|p'); do
        files vmm | xargs grep -lF "#include \"$header\""
    done
)"
check "snapshot issues no KVM ioctl" "$(files snapshot | xargs -r grep -nE '\bKVM_[A-Z]' | grep -v '/\*')"
check "public headers include public headers and the C library only" "$(
    files include | xargs grep -nE '#include' | grep -vE '<(thaw/[a-z]+\.h|stddef\.h|stdint\.h)>'
)"
check "the symbol map lists the public functions" "$(
    declared=$(mktemp)
    mapped=$(mktemp)
    cat include/thaw/*.h | tr '\n' ' ' | grep -oE 'THAW_API [^;{]*\(' | grep -oE 'thaw_[a-z0-9_]+\(' |
        tr -d '(' | sort -u >"$declared"
    grep -oE '^ +thaw_[a-z0-9_]+;' libthaw.map | tr -d ' ;' | sort -u >"$mapped"
    diff "$declared" "$mapped"
    rm -f "$declared" "$mapped"
)"
check "no file is longer than 800 lines" "$(
    git ls-files '*.c' '*.h' '*.S' | xargs wc -l | awk '$2 != "total" && $1 > 800 {print $2 ": " $1}'
)"
echo "1..$number"
exit $status
