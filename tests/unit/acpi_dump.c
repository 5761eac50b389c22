// SPDX-License-Identifier: Apache-2.0
// Writes each ACPI table that a guest gets into a file of its own, for iasl to read. Follows the
// pointers as a guest would; checks nothing.

#include "acpi.h"
#include "machine.h"
#include <string.h>

static uint8_t area[MACHINE_ACPI_BYTES];

static uint64_t number(const uint8_t *at, size_t bytes)
{
    uint64_t value = 0;
    memcpy(&value, at, bytes);
    return value;
}

static const uint8_t *at_gpa(uint64_t gpa)
{
    return area + (gpa - MACHINE_ACPI_GPA);
}

static void dump(const char *dir, const char *name, const uint8_t *table, size_t bytes)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s.dat", dir, name);
    _cleanup_fclose_ FILE *file = fopen(path, "w");
    if (!file || fwrite(table, 1, bytes, file) != bytes || fflush(file) != 0) {
        perror(path);
        exit(1);
    }
}

static void dump_table(const char *dir, uint64_t gpa)
{
    const uint8_t *table = at_gpa(gpa);
    char name[5] = {0};
    memcpy(name, table, 4);
    dump(dir, name, table, number(table + 4, 4));
}

int main(int argc, char **argv)
{
    struct thaw_error error;
    if (argc != 3) {
        fprintf(stderr, "usage: acpi_dump DIRECTORY VCPUS\n");
        return 2;
    }
    if (acpi_build(area, sizeof(area), (uint32_t)strtoul(argv[2], NULL, 10), &error) < 0) {
        fprintf(stderr, "acpi_dump: %s\n", error.message);
        return 1;
    }

    uint64_t xsdt_gpa = number(area + 24, 8);
    const uint8_t *xsdt = at_gpa(xsdt_gpa);
    dump_table(argv[1], xsdt_gpa);
    for (uint64_t off = 36; off < number(xsdt + 4, 4); off += 8) {
        uint64_t gpa = number(xsdt + off, 8);
        dump_table(argv[1], gpa);
        if (memcmp(at_gpa(gpa), "FACP", 4) == 0)
            dump_table(argv[1], number(at_gpa(gpa) + 140, 8));
    }
    return 0;
}
