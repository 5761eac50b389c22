// SPDX-License-Identifier: Apache-2.0
// Writes the ACPI tables of the machine into a buffer. Does not know where the guest's memory is,
// nor what the devices do; the DSDT is compiled from dsdt.asl by the build.

#include "acpi.h"
#include "dsdt_aml.h"
#include "machine.h"
#include <string.h>

/* Numbers in parentheses are sections of the ACPI specification 6.4. */
#define OEM_ID                 "THAW  "
#define OEM_TABLE_ID           "THAWVM  "
#define CREATOR_ID             "THAW"

#define HEADER_LENGTH          4 /* 5.2.6 */
#define HEADER_CHECKSUM        9

#define RSDP_BYTES             36 /* 5.2.5.3 */
#define RSDP_V1_BYTES          20 /* what the first checksum covers */
#define RSDP_CHECKSUM          8
#define RSDP_EXTENDED_CHECKSUM 32
#define RSDP_REVISION          2

#define XSDT_REVISION          1 /* 5.2.8 */

/* FADT: 5.2.9, by offset; everything else in it is hardware that this machine lacks, hence zero. */
#define FADT_BYTES             276
#define FADT_REVISION          6
#define FADT_MINOR_REVISION    4
#define FADT_AT_DSDT           40
#define FADT_AT_IAPC_BOOT_ARCH 109
#define FADT_AT_FLAGS          112
#define FADT_AT_RESET_REG      116
#define FADT_AT_RESET_VALUE    128
#define FADT_AT_MINOR_REVISION 131
#define FADT_AT_X_DSDT         140
#define FADT_AT_SLEEP_CONTROL  244
#define FADT_AT_SLEEP_STATUS   256
#define FADT_AT_HYPERVISOR_ID  268

/* 5.2.9, fixed feature flags. The button bits say that no button is in fixed hardware. */
#define FADT_WBINVD          (1u << 0)
#define FADT_PROC_C1         (1u << 2)
#define FADT_PWR_BUTTON      (1u << 4)
#define FADT_SLP_BUTTON      (1u << 5)
#define FADT_FIX_RTC         (1u << 6)
#define FADT_RESET_REG_SUP   (1u << 10)
#define FADT_HEADLESS        (1u << 12)
#define FADT_HW_REDUCED_ACPI (1u << 20)

/* 5.2.9.3. The bits that stay clear matter too: no ISA devices to look for, no 8042. */
#define IAPC_VGA_NOT_PRESENT (1u << 2)
#define IAPC_NO_CMOS_RTC     (1u << 5)

#define GAS_SYSTEM_IO        1 /* 5.2.3.2 */
#define GAS_BYTE_ACCESS      1

/* 5.2.12. PCAT_COMPAT stays clear: whoever believes in hardware-reduced ACPI uses no 8259. */
#define MADT_REVISION           5
#define MADT_LOCAL_APIC         0 /* 5.2.12.2 */
#define MADT_LOCAL_APIC_BYTES   8
#define MADT_LOCAL_APIC_ENABLED 1u
#define MADT_IOAPIC             1 /* 5.2.12.3 */
#define MADT_IOAPIC_BYTES       12
#define MADT_IOAPIC_ID          0 /* what KVM's IOAPIC has in its id register after creation */
#define MADT_OVERRIDE           2 /* 5.2.12.5 */
#define MADT_OVERRIDE_BYTES     10
#define MADT_VCPUS_MAX          255 /* xAPIC ids 0 to 254; 255 is broadcast */

/* Where the next byte goes. Writing past the end is remembered, not done. */
struct cursor {
    uint8_t *buf;
    size_t bytes;
    size_t used;
    bool full;
};

static void put(struct cursor *c, const void *src, size_t bytes)
{
    if (c->full || bytes > c->bytes - c->used) {
        c->full = true;
        return;
    }
    memcpy(c->buf + c->used, src, bytes);
    c->used += bytes;
}

static void put_u8(struct cursor *c, uint8_t value)
{
    put(c, &value, sizeof(value));
}

static void put_u16(struct cursor *c, uint16_t value)
{
    put(c, &value, sizeof(value));
}

static void put_u32(struct cursor *c, uint32_t value)
{
    put(c, &value, sizeof(value));
}

static void put_u64(struct cursor *c, uint64_t value)
{
    put(c, &value, sizeof(value));
}

static void put_zeros_until(struct cursor *c, size_t offset)
{
    while (c->used < offset && !c->full)
        put_u8(c, 0);
}

static uint8_t checksum(const uint8_t *data, size_t bytes)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < bytes; i++)
        sum = (uint8_t)(sum + data[i]);
    return (uint8_t)-sum;
}

static uint64_t gpa_of(size_t offset)
{
    return MACHINE_ACPI_GPA + offset;
}

/* Starts a table with the common header (5.2.6). Returns its offset, for end_table. */
static size_t begin_table(struct cursor *c, const char *signature, uint8_t revision)
{
    put_zeros_until(c, ALIGN_UP(c->used, 8));
    size_t start = c->used;
    put(c, signature, 4);
    put_u32(c, 0); /* length and checksum: end_table */
    put_u8(c, revision);
    put_u8(c, 0);
    put(c, OEM_ID, 6);
    put(c, OEM_TABLE_ID, 8);
    put_u32(c, 1); /* OEM revision */
    put(c, CREATOR_ID, 4);
    put_u32(c, 1); /* creator revision */
    return start;
}

static void end_table(struct cursor *c, size_t start)
{
    if (c->full)
        return;
    uint32_t bytes = (uint32_t)(c->used - start);
    memcpy(c->buf + start + HEADER_LENGTH, &bytes, sizeof(bytes));
    c->buf[start + HEADER_CHECKSUM] = checksum(c->buf + start, bytes);
}

/* An 8-bit I/O port as a Generic Address Structure. */
static void put_port(struct cursor *c, uint16_t port)
{
    put_u8(c, GAS_SYSTEM_IO);
    put_u8(c, 8); /* bit width */
    put_u8(c, 0); /* bit offset */
    put_u8(c, GAS_BYTE_ACCESS);
    put_u64(c, port);
}

static size_t put_dsdt(struct cursor *c)
{
    put_zeros_until(c, ALIGN_UP(c->used, 8));
    size_t start = c->used;
    put(c, dsdt_aml, sizeof(dsdt_aml));
    return start;
}

static size_t put_fadt(struct cursor *c, size_t dsdt)
{
    size_t start = begin_table(c, "FACP", FADT_REVISION);
    put_zeros_until(c, start + FADT_AT_DSDT);
    put_u32(c, (uint32_t)gpa_of(dsdt));
    put_zeros_until(c, start + FADT_AT_IAPC_BOOT_ARCH);
    put_u16(c, IAPC_VGA_NOT_PRESENT | IAPC_NO_CMOS_RTC);
    put_zeros_until(c, start + FADT_AT_FLAGS);
    put_u32(c, FADT_WBINVD | FADT_PROC_C1 | FADT_PWR_BUTTON | FADT_SLP_BUTTON | FADT_FIX_RTC |
                   FADT_RESET_REG_SUP | FADT_HEADLESS | FADT_HW_REDUCED_ACPI);
    put_zeros_until(c, start + FADT_AT_RESET_REG);
    put_port(c, MACHINE_RESET_PORT);
    put_zeros_until(c, start + FADT_AT_RESET_VALUE);
    put_u8(c, MACHINE_RESET_VALUE);
    put_zeros_until(c, start + FADT_AT_MINOR_REVISION);
    put_u8(c, FADT_MINOR_REVISION);
    put_zeros_until(c, start + FADT_AT_X_DSDT);
    put_u64(c, gpa_of(dsdt));
    put_zeros_until(c, start + FADT_AT_SLEEP_CONTROL);
    put_port(c, MACHINE_SLEEP_CONTROL_PORT);
    put_zeros_until(c, start + FADT_AT_SLEEP_STATUS);
    put_port(c, MACHINE_SLEEP_STATUS_PORT);
    put_zeros_until(c, start + FADT_AT_HYPERVISOR_ID);
    put(c, OEM_TABLE_ID, 8);
    put_zeros_until(c, start + FADT_BYTES);
    end_table(c, start);
    return start;
}

static size_t put_madt(struct cursor *c, uint32_t vcpu_count)
{
    size_t start = begin_table(c, "APIC", MADT_REVISION);
    put_u32(c, MACHINE_LAPIC_GPA);
    put_u32(c, 0); /* flags */
    for (uint32_t i = 0; i < vcpu_count; i++) {
        put_u8(c, MADT_LOCAL_APIC);
        put_u8(c, MADT_LOCAL_APIC_BYTES);
        put_u8(c, (uint8_t)i); /* processor UID */
        put_u8(c, (uint8_t)i); /* APIC id: KVM's vCPU id */
        put_u32(c, MADT_LOCAL_APIC_ENABLED);
    }
    put_u8(c, MADT_IOAPIC);
    put_u8(c, MADT_IOAPIC_BYTES);
    put_u8(c, MADT_IOAPIC_ID);
    put_u8(c, 0);
    put_u32(c, MACHINE_IOAPIC_GPA);
    put_u32(c, 0); /* its first GSI */

    put_u8(c, MADT_OVERRIDE);
    put_u8(c, MADT_OVERRIDE_BYTES);
    put_u8(c, 0); /* ISA bus */
    put_u8(c, 0); /* ISA interrupt 0, the PIT */
    put_u32(c, MACHINE_PIT_GSI);
    put_u16(c, 0); /* polarity and trigger as on ISA: active high, edge */
    end_table(c, start);
    return start;
}

static size_t put_xsdt(struct cursor *c, size_t fadt, size_t madt)
{
    size_t start = begin_table(c, "XSDT", XSDT_REVISION);
    put_u64(c, gpa_of(fadt));
    put_u64(c, gpa_of(madt));
    end_table(c, start);
    return start;
}

/* The RSDP precedes the tables that it leads to; buf has room for it. */
static void write_rsdp(uint8_t *buf, size_t xsdt)
{
    struct cursor c = {.buf = buf, .bytes = RSDP_BYTES};
    put(&c, "RSD PTR ", 8);
    put_u8(&c, 0); /* checksum */
    put(&c, OEM_ID, 6);
    put_u8(&c, RSDP_REVISION);
    put_u32(&c, 0); /* no RSDT */
    put_u32(&c, RSDP_BYTES);
    put_u64(&c, gpa_of(xsdt));
    put_zeros_until(&c, RSDP_BYTES); /* extended checksum, reserved */
    buf[RSDP_CHECKSUM] = checksum(buf, RSDP_V1_BYTES);
    buf[RSDP_EXTENDED_CHECKSUM] = checksum(buf, RSDP_BYTES);
}

int acpi_build(uint8_t *buf, size_t buf_bytes, uint32_t vcpu_count, struct thaw_error *error)
{
    if (vcpu_count < 1 || vcpu_count > MADT_VCPUS_MAX)
        return error_set(error, -EINVAL, "ACPI tables for %u processors: must be 1 to %d",
            vcpu_count, MADT_VCPUS_MAX);

    struct cursor c = {.buf = buf, .bytes = MIN(buf_bytes, (size_t)MACHINE_ACPI_BYTES)};
    put_zeros_until(&c, RSDP_BYTES);
    size_t dsdt = put_dsdt(&c);
    size_t fadt = put_fadt(&c, dsdt);
    size_t madt = put_madt(&c, vcpu_count);
    size_t xsdt = put_xsdt(&c, fadt, madt);
    if (c.full)
        return error_set(error, -ENOSPC, "the ACPI tables do not fit into %zu bytes", buf_bytes);
    write_rsdp(buf, xsdt);
    return (int)c.used;
}
