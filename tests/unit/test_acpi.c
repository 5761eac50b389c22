// SPDX-License-Identifier: Apache-2.0
// ACPI tables as a guest finds them: from the RSDP down, by guest addresses only. What the AML
// means is for iasl to say (acpi-tables.sh).

#include "acpi.h"
#include "machine.h"
#include <criterion/criterion.h>
#include <string.h>

static uint8_t area[MACHINE_ACPI_BYTES];

static size_t build(uint32_t vcpu_count)
{
    struct thaw_error error;
    memset(area, 0, sizeof(area));
    int r = acpi_build(area, sizeof(area), vcpu_count, &error);
    cr_assert_gt(r, 0, "%s", error.message);
    return (size_t)r;
}

static const uint8_t *at_gpa(uint64_t gpa, size_t used)
{
    cr_assert_geq(gpa, MACHINE_ACPI_GPA);
    cr_assert_lt(gpa, MACHINE_ACPI_GPA + used);
    return area + (gpa - MACHINE_ACPI_GPA);
}

static uint8_t sum(const uint8_t *data, size_t bytes)
{
    uint8_t total = 0;
    for (size_t i = 0; i < bytes; i++)
        total = (uint8_t)(total + data[i]);
    return total;
}

static uint16_t u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static uint32_t u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static uint64_t u64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

/* The table at gpa, after checking what all tables have in common. */
static const uint8_t *table_at(uint64_t gpa, const char *signature, size_t used)
{
    const uint8_t *table = at_gpa(gpa, used);
    cr_assert_eq(memcmp(table, signature, 4), 0, "expected %s, found %.4s", signature, table);
    uint32_t bytes = u32(table + 4);
    cr_assert_geq(bytes, 36);
    cr_assert_leq(gpa + bytes, MACHINE_ACPI_GPA + used);
    cr_assert_eq(sum(table, bytes), 0, "checksum of %s", signature);
    cr_assert_eq(memcmp(table + 10, "THAW  THAWVM  ", 14), 0);
    return table;
}

static const uint8_t *find_xsdt(size_t used)
{
    cr_assert_eq(memcmp(area, "RSD PTR ", 8), 0);
    return table_at(u64(area + 24), "XSDT", used);
}

static const uint8_t *find_table(const char *signature, size_t used)
{
    const uint8_t *xsdt = find_xsdt(used);
    for (uint32_t off = 36; off + 8 <= u32(xsdt + 4); off += 8) {
        uint64_t gpa = u64(xsdt + off);
        if (memcmp(at_gpa(gpa, used), signature, 4) == 0)
            return table_at(gpa, signature, used);
    }
    cr_assert_fail("no %s", signature);
    return NULL;
}

Test(acpi, rsdp_is_of_revision_2_with_both_checksums)
{
    build(1);
    cr_assert_eq(area[15], 2);
    cr_assert_eq(u32(area + 20), 36);
    cr_assert_eq(sum(area, 20), 0);
    cr_assert_eq(sum(area, 36), 0);
}

Test(acpi, rsdp_lies_where_guests_search_for_it)
{
    cr_assert_geq(MACHINE_ACPI_GPA, 0xe0000);
    cr_assert_lt(MACHINE_ACPI_GPA, 0x100000);
    cr_assert_eq(MACHINE_ACPI_GPA % 16, 0);
}

Test(acpi, tables_leave_the_generation_id_page_alone)
{
    cr_assert_leq(build(255), MACHINE_VMGENID_GPA - MACHINE_ACPI_GPA);
}

Test(acpi, fadt_declares_hardware_reduced_acpi)
{
    const uint8_t *fadt = find_table("FACP", build(1));
    cr_assert_eq(u32(fadt + 4), 276);
    cr_assert_eq(fadt[8], 6);
    cr_assert(u32(fadt + 112) & (1u << 20), "HW_REDUCED_ACPI");
    /* No SCI, no PM or GPE block, no FACS: nothing that hardware-reduced ACPI lacks. */
    for (size_t off = 46; off < 109; off++)
        cr_assert_eq(fadt[off], 0, "byte %zu", off);
    for (size_t off = 148; off < 244; off++)
        cr_assert_eq(fadt[off], 0, "byte %zu", off);
}

Test(acpi, fadt_denies_the_devices_of_a_pc_that_are_not_there)
{
    const uint8_t *fadt = find_table("FACP", build(1));
    uint16_t arch = u16(fadt + 109);
    cr_assert_not(arch & (1u << 0), "legacy devices");
    cr_assert_not(arch & (1u << 1), "8042");
    cr_assert(arch & (1u << 2), "VGA not present");
    cr_assert(arch & (1u << 5), "CMOS RTC not present");
}

static void expect_port(const uint8_t *gas, uint64_t port)
{
    cr_assert_eq(gas[0], 1, "not an I/O port");
    cr_assert_eq(gas[1], 8, "not 8 bits wide");
    cr_assert_eq(gas[2], 0);
    cr_assert_eq(u64(gas + 4), port);
}

Test(acpi, fadt_says_how_to_reset_and_to_power_off)
{
    const uint8_t *fadt = find_table("FACP", build(1));
    cr_assert(u32(fadt + 112) & (1u << 10), "RESET_REG_SUP");
    expect_port(fadt + 116, MACHINE_RESET_PORT);
    cr_assert_eq(fadt[128], MACHINE_RESET_VALUE);
    expect_port(fadt + 244, MACHINE_SLEEP_CONTROL_PORT);
    expect_port(fadt + 256, MACHINE_SLEEP_STATUS_PORT);
}

Test(acpi, fadt_leads_to_the_dsdt)
{
    size_t used = build(1);
    const uint8_t *fadt = find_table("FACP", used);
    cr_assert_eq(u64(fadt + 140), u32(fadt + 40));
    const uint8_t *dsdt = table_at(u64(fadt + 140), "DSDT", used);
    cr_assert_eq(dsdt[8], 2, "64-bit integers in AML");
}

/* Number of MADT entries of this type; the last one in *ret. */
static unsigned madt_entries(const uint8_t *madt, uint8_t type, const uint8_t **ret)
{
    unsigned count = 0;
    uint32_t off = 44, bytes = u32(madt + 4);
    while (off < bytes) {
        cr_assert_geq(madt[off + 1], 2);
        if (madt[off] == type) {
            count++;
            *ret = madt + off;
        }
        off += madt[off + 1];
    }
    cr_assert_eq(off, bytes, "the last entry runs over the end");
    return count;
}

Test(acpi, madt_lists_every_processor_enabled)
{
    for (uint32_t vcpus = 1; vcpus <= 16; vcpus++) {
        const uint8_t *madt = find_table("APIC", build(vcpus)), *last = NULL;
        cr_assert_eq(u32(madt + 36), MACHINE_LAPIC_GPA);
        cr_assert_eq(madt_entries(madt, 0, &last), vcpus);
        cr_assert_eq(last[3], vcpus - 1, "APIC id");
        cr_assert_eq(u32(last + 4), 1, "enabled");
    }
}

Test(acpi, madt_describes_the_ioapic_and_the_timer_interrupt)
{
    const uint8_t *madt = find_table("APIC", build(1)), *entry = NULL;
    cr_assert_eq(madt_entries(madt, 1, &entry), 1);
    cr_assert_eq(u32(entry + 4), MACHINE_IOAPIC_GPA);
    cr_assert_eq(u32(entry + 8), 0, "first GSI");
    cr_assert_eq(madt_entries(madt, 2, &entry), 1);
    cr_assert_eq(entry[3], 0, "ISA interrupt");
    cr_assert_eq(u32(entry + 4), MACHINE_PIT_GSI);
}

Test(acpi, two_builds_are_identical)
{
    static uint8_t first[sizeof(area)];
    size_t used = build(2);
    memcpy(first, area, used);
    cr_assert_eq(build(2), used);
    cr_assert_eq(memcmp(first, area, used), 0);
}

Test(acpi, too_small_a_buffer_is_refused_and_not_overrun)
{
    size_t needed = build(4);
    for (size_t bytes = 0; bytes < needed; bytes++) {
        struct thaw_error error;
        memset(area, 0xee, sizeof(area));
        cr_assert_eq(acpi_build(area, bytes, 4, &error), -ENOSPC);
        for (size_t i = bytes; i < needed; i++)
            cr_assert_eq(area[i], 0xee, "byte %zu of a buffer of %zu", i, bytes);
    }
    cr_assert_eq(acpi_build(area, needed, 4, NULL), (int)needed);
}

Test(acpi, impossible_processor_counts_are_refused)
{
    struct thaw_error error;
    cr_assert_eq(acpi_build(area, sizeof(area), 0, &error), -EINVAL);
    cr_assert_eq(acpi_build(area, sizeof(area), 256, &error), -EINVAL);
    cr_assert(strstr(error.message, "256"));
}
