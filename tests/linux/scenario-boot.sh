#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Role: a stock Debian kernel boots, uses every device and powers off; the images of its disks stay as they were.
# Not its role: snapshots.
# flavours: cloud generic
set -u
# shellcheck source=tests/linux/lib.sh
. "$(dirname "$0")/lib.sh"

make_base "$WORK/base.img"
head -c 65536 "$KERNEL" >"$WORK/second.img"

status=0
boot_vm guest "L2_SCRIPT=boot L2_DISK_MIB=$BASE_MIB" --disk "$WORK/base.img" --disk "$WORK/second.img:ro"
await_end guest 60 || status=$?

report_vm guest
check "thaw exits 0 when the guest powers off" [ $status = 0 ]
[ $status = 0 ] || echo "    status $status: $(tail -n 5 "$WORK/guest.err.log")"
check "base image is unchanged" [ "$(digest "$WORK/base.img")" = "$BASE_MD5" ]
check "read-only image is unchanged" [ "$(digest "$WORK/second.img")" = "$(head -c 65536 "$KERNEL" | md5sum | cut -d' ' -f1)" ]
