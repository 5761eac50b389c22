// SPDX-License-Identifier: Apache-2.0
// Walks RSDP, XSDT or RSDT, MADT. Believes the tables: checksums are the VMM's tests' business.
#include "acpi.h"

#include <stdbool.h>
#include <stddef.h>

struct rsdp {
    char signature[8];
    uint8_t checksum, oem[6], revision;
    uint32_t rsdt_gpa, bytes;
    uint64_t xsdt_gpa;
} __attribute__((packed));

struct table {
    uint32_t signature, bytes;
    uint8_t unused[28];
} __attribute__((packed));

enum {
    SIGNATURE_MADT = 0x43495041, /* "APIC" */
    MADT_HEADER_BYTES = sizeof(struct table) + 8,
    MADT_LOCAL_APIC = 0,
    MADT_LOCAL_X2APIC = 9,
};

static const struct table *find_madt(const struct rsdp *rsdp)
{
    bool wide = rsdp->revision >= 2 && rsdp->xsdt_gpa;
    uint64_t gpa = wide ? rsdp->xsdt_gpa : rsdp->rsdt_gpa, step = wide ? 8 : 4;
    const struct table *root = (const struct table *)gpa, *table;

    for (uint64_t at = sizeof(*root); at < root->bytes; at += step) {
        const uint32_t *entry = (const void *)(gpa + at);

        table = (const struct table *)(wide ? (uint64_t)entry[1] << 32 | entry[0] : entry[0]);
        if (table->signature == SIGNATURE_MADT)
            return table;
    }
    return NULL;
}

uint64_t acpi_count_cpus(uint64_t rsdp_gpa)
{
    const struct table *madt = rsdp_gpa ? find_madt((const struct rsdp *)rsdp_gpa) : NULL;
    uint64_t cpus = 0;

    for (uint64_t at = MADT_HEADER_BYTES; madt && at < madt->bytes;) {
        const uint8_t *entry = (const uint8_t *)madt + at;

        if (!entry[1])
            break;
        if (entry[0] == MADT_LOCAL_APIC)
            cpus += entry[4] & 1; /* the enabled flag */
        else if (entry[0] == MADT_LOCAL_X2APIC)
            cpus += entry[8] & 1;
        at += entry[1];
    }
    return cpus;
}
