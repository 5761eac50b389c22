// SPDX-License-Identifier: Apache-2.0
// The little that guests read from the ACPI tables.
#ifndef GUEST_ACPI_H
#define GUEST_ACPI_H

#include <stdint.h>

/* How many enabled CPUs the MADT lists; 0 without tables. */
uint64_t acpi_count_cpus(uint64_t rsdp_gpa);

#endif
