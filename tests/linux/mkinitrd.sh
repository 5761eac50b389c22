#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Role: build one initramfs: of the tested Linux guest (level 2) or of the QEMU guest that hosts thaw (level 1).
# Not its role: fetching kernels (fetch-kernels.sh), starting anything (run.sh).
set -eu

here=$(cd "$(dirname "$0")" && pwd)

usage() {
	cat <<'USAGE'
usage: mkinitrd.sh guest KERNELDIR OUT
       mkinitrd.sh host KERNELDIR OUT [DIR|PROGRAM=PATH]...

guest  busybox, mke2fs, e2fsck, virtio modules, tests/linux/guest/ with its programs built
       by $CC (default gcc).
host   busybox, KVM modules, tests/linux/host/ with its programs built by $CC; then the
       contents of each DIR at the root, and each PROGRAM with its shared libraries at PATH.
KERNELDIR is a folder made by fetch-kernels.sh (DIR/cloud or DIR/generic).
The image is not compressed: nested, zstd -1 was no faster, and here it is one
more step.
USAGE
}

die() {
	echo "mkinitrd: $*" >&2
	exit 1
}

need() {
	command -v "$1" >/dev/null || die "$1 not found: install the package $2"
}

# Copies a program to $2 in the image, and its shared libraries to where it looks for them.
add_program() {
	[ -x "$1" ] || die "$1 is not an executable file"
	mkdir -p "$root$(dirname "$2")"
	cp -L "$1" "$root$2"
	ldd "$1" 2>/dev/null | sed -n 's/^[^/]*\(\/[^ ]*\) (0x.*$/\1/p' >"$tmp/libs"
	while read -r lib; do
		[ -e "$root$lib" ] && continue
		mkdir -p "$root$(dirname "$lib")"
		cp -L "$lib" "$root$lib"
	done <"$tmp/libs"
}

# Prints the files (relative to the modules folder) that loading module $1 takes, needed ones
# first; nothing for what is built in. A name that is neither is an error.
module_files() {
	awk -v want="$1" '
		function norm(path) { sub(/.*\//, "", path); sub(/\.ko.*/, "", path); gsub(/-/, "_", path); return path }
		function visit(name,   i, n, list) {
			if (name in done) return
			done[name] = 1
			n = split(deps[name], list, " ")
			for (i = 1; i <= n; i++) visit(norm(list[i]))
			print file[name]
		}
		FILENAME ~ /builtin$/ { builtin[norm($1)] = 1; next }
		{ path = $1; sub(/:$/, "", path); name = norm(path); file[name] = path; $1 = ""; deps[name] = $0 }
		END {
			want = norm(want)
			if (want in file) visit(want)
			else if (!(want in builtin)) exit 1
		}' "$modules/modules.builtin" "$modules/modules.dep" || die "no module $1 in $modules"
}

# Copies modules and writes /modules.list, the order in which init loads them.
add_modules() {
	modules=$(echo "$kernel"/lib/modules/*)
	[ -f "$modules/modules.dep" ] || die "$kernel holds no modules.dep: run fetch-kernels.sh"
	mkdir -p "$root/modules"
	for module; do
		module_files "$module"
	done | awk '!seen[$0]++' >"$tmp/modules"
	while read -r file; do
		cp "$modules/$file" "$root/modules/"
		echo "/modules/${file##*/}"
	done <"$tmp/modules" >"$root/modules.list"
}

add_busybox() {
	mkdir -p "$root/bin" "$root/sbin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/etc"
	for applet in $(busybox --list); do
		ln -s busybox "$root/bin/$applet"
	done
	cp --remove-destination "$(command -v busybox)" "$root/bin/busybox"
}

# add_built FOLDER: builds the programs of $here/FOLDER into /FOLDER of the image.
add_built() {
	need "${CC:-gcc}" gcc
	mkdir -p "$root/$1"
	for source in "$here/$1"/*.c; do
		program=${source##*/}
		"${CC:-gcc}" -std=c17 -O2 -Wall -Wextra -Werror -static -s -o "$root/$1/${program%.c}" "$source" ||
			die "cannot build $source"
	done
}

write_image() {
	(cd "$root" && find . -print0 | LC_ALL=C sort -z | cpio -0 --quiet -o -H newc -R 0:0) >"$tmp/image"
	mv "$tmp/image" "$out"
}

case ${1:-} in
-h | --help)
	usage
	exit 0
	;;
guest | host)
	[ $# -ge 3 ] || {
		usage >&2
		exit 2
	}
	;;
*)
	usage >&2
	exit 2
	;;
esac
kind=$1
kernel=$2
out=$3
shift 3

need busybox busybox-static
need cpio cpio
[ -d "$kernel/lib/modules" ] || die "$kernel holds no kernel: run fetch-kernels.sh"
tmp=$(mktemp -d "$(dirname "$out")/.mkinitrd.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
root=$tmp/root
mkdir "$root"

add_busybox
if [ "$kind" = guest ]; then
	PATH=/usr/sbin:/sbin:$PATH
	need mke2fs e2fsprogs
	need e2fsck e2fsprogs
	# Nothing in the image answers the kernel's request_module(): what ext4 asks for by
	# name only (crc32c) is listed before it.
	add_modules virtio_mmio virtio_blk virtio_rng crc32c_generic ext4
	add_program "$(command -v mke2fs)" /sbin/mke2fs
	add_program "$(command -v e2fsck)" /sbin/e2fsck
	: >"$root/etc/mke2fs.conf"
	cp "$here/guest/init" "$root/init"
	add_built guest
	cp "$here"/guest/*.sh "$root/guest/"
else
	add_modules kvm_amd
	cp "$here/host/init" "$root/init"
	add_built host
	for item; do
		case $item in
		*=*) add_program "${item%%=*}" "${item#*=}" ;;
		*) cp -a "$item/." "$root/" ;;
		esac
	done
fi
chmod +x "$root/init"
write_image
