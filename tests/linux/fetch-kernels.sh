#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Role: fetch and unpack Debian's newest cloud and generic kernels into a cache, without installing them.
# Not its role: choosing modules or building images (mkinitrd.sh).
set -eu

usage() {
	cat <<USAGE
usage: fetch-kernels.sh [DIR]

Leaves DIR/cloud and DIR/generic, symlinks to the unpacked packages, each with
boot/vmlinuz-VERSION and lib/modules/VERSION. DIR defaults to
\${XDG_CACHE_HOME:-\$HOME/.cache}/thaw/linux. With FETCH_REFRESH=1 the package
lists are consulted again although both kernels are cached.
USAGE
}

die() {
	echo "fetch-kernels: $*" >&2
	exit 1
}

# The package that a kernel metapackage stands for; empty if the lists do not know it.
concrete_package() {
	apt-cache depends --important "$1" 2>/dev/null |
		sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1
}

fetch() {
	flavour=$1
	meta=$2

	if [ -z "${FETCH_REFRESH:-}" ] && [ -d "$dir/$flavour/boot" ]; then
		return 0
	fi
	command -v apt-get >/dev/null || die "apt-get not found: this needs Debian 12 or a filled $dir"
	package=$(concrete_package "$meta")
	if [ -z "$package" ]; then
		apt-get update -qq >&2 || die "apt-get update failed: is there a network, and are you root?"
		package=$(concrete_package "$meta")
	fi
	[ -n "$package" ] || die "no package provides $meta: is Debian's main archive in sources.list?"

	# The version is part of the name: a security update may keep the package's name.
	version=$(apt-cache policy "$package" | sed -n 's/^ *Candidate: //p')
	unpacked=$package-$(printf '%s' "$version" | tr -c 'A-Za-z0-9.+~-' '_')
	if [ ! -d "$dir/$unpacked" ]; then
		echo "fetch-kernels: downloading $package $version" >&2
		mkdir "$tmp/$flavour" "$tmp/$flavour/root"
		# apt drops its rights to _apt for downloads; our folder is not its to write.
		(cd "$tmp/$flavour" && apt-get download -qq -o APT::Sandbox::User=root "$package" >&2) ||
			die "cannot download $package $version: run 'apt-get update' if the lists are old"
		dpkg -x "$tmp/$flavour"/*.deb "$tmp/$flavour/root" || die "cannot unpack $package"
		modules=$(echo "$tmp/$flavour/root/lib/modules/"*)
		[ -d "$modules" ] || die "$package holds no modules"
		# Packages leave modules.dep to their post-install script.
		busybox depmod -b "$tmp/$flavour/root" "${modules##*/}" ||
			die "busybox depmod failed for $package: is busybox-static installed?"
		mv -T "$tmp/$flavour/root" "$dir/$unpacked" 2>/dev/null ||
			[ -d "$dir/$unpacked" ] || die "cannot move the unpacked $package to $dir"
	fi
	ln -s "$unpacked" "$tmp/$flavour.link"
	mv -T "$tmp/$flavour.link" "$dir/$flavour"
}

case ${1:-} in
-h | --help)
	usage
	exit 0
	;;
-*)
	usage >&2
	exit 2
	;;
esac
dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/thaw/linux}
mkdir -p "$dir" || die "cannot create $dir"
dir=$(cd "$dir" && pwd)
tmp=$(mktemp -d "$dir/.fetch.XXXXXX") || die "cannot write to $dir"
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fetch cloud linux-image-cloud-amd64
fetch generic linux-image-amd64
