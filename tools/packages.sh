#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that building (and, with "test", testing) needs. Does nothing where
# they are there; says what to install where it may not install by itself.
set -eu

build="gcc libc6-dev cmake ninja-build pkg-config acpica-tools liburing-dev libjansson-dev
    libhttp-parser-dev libzstd-dev libxxhash-dev"
test="git libcriterion-dev clang clang-format libclang-rt-14-dev shellcheck curl jq
    procps qemu-system-x86 busybox-static cpio zstd e2fsprogs"

case "${1:-build}" in
build) packages=$build ;;
test) packages="$build $test" ;;
*)
    echo "usage: packages.sh [build|test]" >&2
    exit 2
    ;;
esac

missing=
for package in $packages; do
    status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    [ "$status" = "install ok installed" ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "packages.sh: as root, run: apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
echo "installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # a list of words
if ! { apt-get update -q && apt-get install -qy --no-install-recommends $missing; } >"$log" 2>&1; then
    cat "$log" >&2
    echo "packages.sh: the packages could not be installed" >&2
    exit 1
fi
