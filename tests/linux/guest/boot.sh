# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Role: what a stock kernel must find and do in a fresh microVM: CPUs, memory, ACPI devices, disk, random numbers.
# Not its role: starting the guest or judging the host's side (scenario-boot.sh).

# Set by the kernel command line: L2_CPUS, L2_MEM_MIB, L2_DISK_MIB.
# shellcheck source=tests/linux/guest/lib.sh
. /guest/lib.sh

sees_cpus() {
	[ "$(nproc)" = "$L2_CPUS" ] || {
		echo "nproc says $(nproc), wanted $L2_CPUS"
		return 1
	}
}

# The kernel keeps some for itself before it counts.
sees_memory() {
	total_kib=$(awk '/^MemTotal/ { print $2 }' /proc/meminfo)
	if [ "$total_kib" -gt $((L2_MEM_MIB * 1024)) ] || [ "$total_kib" -lt $((L2_MEM_MIB * 870)) ]; then
		echo "MemTotal is $total_kib KiB, wanted about $L2_MEM_MIB MiB"
		return 1
	fi
}

acpi_has() {
	cat /sys/bus/acpi/devices/*/modalias 2>/dev/null | grep -qi ":$1:" || {
		echo "only: $(cat /sys/bus/acpi/devices/*/modalias 2>/dev/null | sort | uniq -c | tr -s ' \n' ' ')"
		return 1
	}
}

# Every declared virtio-mmio device must have got a driver.
virtio_bound() {
	count=0
	for device in /sys/bus/virtio/devices/*; do
		[ -e "$device/driver" ] || {
			echo "$device ($(cat "$device/modalias")) has no driver"
			return 1
		}
		count=$((count + 1))
	done
	[ "$count" -ge 2 ] || {
		echo "$count devices"
		return 1
	}
}

sees_disk() {
	size=$(cat /sys/block/vda/size)
	[ "$size" = $((L2_DISK_MIB * 2048)) ] || {
		echo "/dev/vda has ${size:-no} sectors, wanted $((L2_DISK_MIB * 2048))"
		return 1
	}
}

hwrng_reads() {
	current=$(cat /sys/class/misc/hw_random/rng_current)
	case $current in
	virtio_rng*) ;;
	*)
		echo "current source is '$current'"
		return 1
		;;
	esac
	first=$(dd if=/dev/hwrng bs=64 count=4 iflag=fullblock 2>/dev/null | od -An -v -tx1 | tr -d ' \n')
	second=$(dd if=/dev/hwrng bs=64 count=4 iflag=fullblock 2>/dev/null | od -An -v -tx1 | tr -d ' \n')
	[ "${#first} ${#second}" = "512 512" ] || {
		echo "read $((${#first} / 2)) and $((${#second} / 2)) bytes, wanted 256 twice"
		return 1
	}
	[ "$first" != "$second" ] || {
		echo "two reads gave the same bytes: $first"
		return 1
	}
	# 256 random bytes have a zero in 32 in a row less often than once in 10^70.
	case $first$second in
	*0000000000000000000000000000000000000000000000000000000000000000*)
		echo "a run of zeroes: $first $second"
		return 1
		;;
	esac
}

write_data() {
	dd if=/dev/urandom of=/mnt/large bs=1M count=64 2>/dev/null || return 1
	# Past the page cache, in sizes at and below a disk block.
	dd if=/mnt/large of=/mnt/small bs=4k count=64 oflag=direct 2>/dev/null &&
		dd if=/mnt/large of=/mnt/small bs=512 count=24 seek=101 skip=1000 conv=notrunc oflag=direct 2>/dev/null &&
		cp -r /guest /mnt/ && sync
}

sums() {
	(cd /mnt && find . -type f | sort | xargs md5sum)
}

remount() {
	umount /mnt && echo 3 >/proc/sys/vm/drop_caches && mount -t ext4 -o ro /dev/vda /mnt
}

data_is_back() {
	after=$(sums)
	if [ -z "$before" ] || [ "$before" != "$after" ]; then
		echo "written: $before"
		echo "read: $after"
		return 1
	fi
}

# A read-only disk, where the machine has one.
refuses_writes() {
	[ "$(cat /sys/block/vdb/ro)" = 1 ] || {
		echo "/dev/vdb is not marked read-only"
		return 1
	}
	if dd if=/dev/zero of=/dev/vdb bs=4k count=1 oflag=direct 2>/dev/null; then
		echo "a write to /dev/vdb succeeded"
		return 1
	fi
}

check "sees $L2_CPUS CPUs" sees_cpus
check "sees $L2_MEM_MIB MiB" sees_memory
check "has ACPI device COM1" acpi_has PNP0501
check "has ACPI device virtio-mmio" acpi_has LNRO0005
check "has ACPI device GED" acpi_has ACPI0013
check "has ACPI device VMGenID" acpi_has VM_GEN_COUNTER
check "binds every virtio device" virtio_bound
check "sees a disk of $L2_DISK_MIB MiB" sees_disk
check "reads the hardware random source" hwrng_reads
check "makes and mounts ext4" make_fs
check "writes files" write_data
before=$(sums)
check "remounts" remount
check "reads back what it wrote" data_is_back
check "leaves a clean file system" fs_is_clean
[ -e /dev/vdb ] && check "cannot write a read-only disk" refuses_writes
check "logs no ACPI complaint" log_has_no 'ACPI.*(Error|Warning|BIOS bug)|Firmware [BW]'
check "logs no error" logs_no_error
info "clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource), up $(cut -d' ' -f1 /proc/uptime) s"
