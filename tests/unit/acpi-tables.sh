#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Has iasl read every ACPI table that a guest gets: each must disassemble without a complaint, and
# the DSDT compile again. Not the RSDP, which iasl takes for no table. Prints TAP.
# Usage: acpi-tables.sh ACPI_DUMP [IASL]
set -eu

dump=$1
iasl=${2:-iasl}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail() {
    echo "not ok - $*"
    exit 1
}

check_tables() { # vcpus
    rm -f "$dir"/*
    "$dump" "$dir" "$1"
    for name in XSDT FACP APIC DSDT; do
        table=$dir/$name.dat
        [ -s "$table" ] || fail "$name is missing"
        "$iasl" -d "$table" >"$dir/log" 2>&1 || { cat "$dir/log" >&2; fail "$name: iasl failed"; }
        # Data tables carry iasl's complaints in the listing, not in the messages.
        if grep -inE 'warning|error|invalid|unknown|should be|incorrect' "$dir/log" "$dir/$name.dsl" |
            grep -vE 'Maximum|_Error'; then
            fail "$name: iasl complains"
        fi
    done
    "$iasl" -we -p "$dir/again" "$dir/DSDT.dsl" >"$dir/log" 2>&1 ||
        { cat "$dir/log" >&2; fail "the DSDT does not compile again"; }
    cmp "$dir/DSDT.dat" "$dir/again.aml" || fail "the DSDT means something else when compiled again"
}

for vcpus in 1 2 16; do
    check_tables "$vcpus"
    cpus=$(grep -c 'Processor Local APIC' "$dir/APIC.dsl")
    [ "$cpus" = "$vcpus" ] || fail "MADT lists $cpus processors, not $vcpus"
    echo "ok - iasl reads the tables for $vcpus processors"
done

# As iasl sees it, not as our own tests count bytes.
expect() { # table, extended regular expression
    grep -qE "$2" "$dir/$1.dsl" || fail "$1 lacks: $2"
}
expect FACP 'Hardware Reduced \(V5\) : 1'
expect FACP 'Reset Register Supported \(V2\) : 1'
expect FACP 'CMOS RTC Not Present \(V5\) : 1'
expect FACP 'VGA Not Present \(V4\) : 1'
expect FACP '8042 Present on ports 60/64 \(V2\) : 0'
[ "$(grep -c LNRO0005 "$dir/DSDT.dsl")" = 16 ] || fail "the DSDT does not declare 16 virtio slots"
expect DSDT VM_Gen_Counter
expect DSDT ACPI0013
echo "ok - iasl finds in them what the machine has and lacks"

# The AML run: with nothing at its address a slot is not there, and its resources are its own.
command -v acpiexec >/dev/null || fail "acpiexec not found: install the package acpica-tools"
run_aml() { # debugger command
    printf '%s\nquit\n' "$1" | acpiexec "$dir/DSDT.dat" 2>&1
}
run_aml 'execute \_SB.VIOF._STA' | grep -q '\[Integer\] = 0000000000000000' ||
    fail "an empty slot claims to be present"
run_aml 'resources \_SB.VIOF' >"$dir/log"
grep -q 'Address : D000F000' "$dir/log" || fail "slot 15 is not at its address"
grep -q 'Dword00 : 00000017' "$dir/log" || fail "slot 15 has not interrupt 23"
echo "ok - an empty slot is absent, and each slot has its own address and interrupt"
