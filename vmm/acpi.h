/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI tables: RSDP, XSDT, hardware-reduced FADT, MADT, and the DSDT that the build compiles from
 * dsdt.asl. Hardware-reduced ACPI (ACPI 6.4, 4.1) means no PM timer, no GPE and no SCI: events come
 * through a Generic Event Device.
 */
#ifndef VMM_ACPI_H
#define VMM_ACPI_H

#include "error.h"

/* Builds all tables into buf (MACHINE_ACPI_BYTES at most, which lie at MACHINE_ACPI_GPA in the
 * guest; the RSDP at offset 0). Returns the number of bytes used, all pointers being guest
 * addresses; -ENOSPC if buf is too small. Touches nothing but buf. */
int acpi_build(uint8_t *buf, size_t buf_bytes, uint32_t vcpu_count, struct thaw_error *error);

#endif
