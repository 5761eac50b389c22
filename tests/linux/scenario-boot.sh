#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Role: a stock Debian kernel boots, uses every device and powers off; the base image of its disk stays as it was.
# Not its role: snapshots.
# flavours: cloud generic
set -u
# shellcheck source=tests/linux/lib.sh
. "$(dirname "$0")/lib.sh"

make_base "$WORK/base.img"

status=0
run_guest 60 "$WORK/console.log" "L2_SCRIPT=boot L2_DISK_MIB=$BASE_MIB" --disk "$WORK/base.img" || status=$?

report_guest "$WORK/console.log"
check "thaw exits 0 when the guest powers off" [ $status = 0 ]
[ $status = 0 ] || echo "    status $status: $(tail -n 5 "$WORK/console.err.log")"
check "base image is unchanged" [ "$(digest "$WORK/base.img")" = "$BASE_MD5" ]
