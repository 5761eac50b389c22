# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Role: what the guest's scripts share: a file system on the disk, and what the kernel's log must not hold.
# Not its role: reporting (init).

# By full path: busybox's shell prefers its own mke2fs, which knows no ext4.
make_fs() {
	/sbin/mke2fs -q -F -t ext4 -b 4096 -N 2048 -O has_journal,extent,metadata_csum,64bit \
		-E lazy_itable_init=0,nodiscard /dev/vda && mkdir -p /mnt && mount -t ext4 /dev/vda /mnt
}

fs_is_clean() {
	umount /mnt && /sbin/e2fsck -f -n /dev/vda
}

log_has_no() {
	! dmesg | grep -E "$1"
}

logs_no_error() {
	log_has_no \
		'I/O error|EXT4-fs error|BUG|Oops|WARNING|Call Trace|LOCKUP|rcu.*stall|hung_task|blocked for more|Bad page'
}
