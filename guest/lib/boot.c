// SPDX-License-Identifier: Apache-2.0
// Turns what either boot protocol passes into one struct boot_info and starts the guest.
// Trusts the loader: the guest has nothing to protect from it.
#include "boot.h"

#include "guest.h"
#include "irq.h"

enum {
    RAM = 1
}; /* the same number in both protocols' memory maps */

/* The few fields of the kernel's boot_params page that matter here, by offset. */
enum {
    BP_RSDP = 0x070,
    BP_EXT_RAMDISK_IMAGE = 0x0c0,
    BP_EXT_RAMDISK_SIZE = 0x0c4,
    BP_EXT_CMDLINE = 0x0c8,
    BP_E820_ENTRIES = 0x1e8,
    BP_RAMDISK_IMAGE = 0x218,
    BP_RAMDISK_SIZE = 0x21c,
    BP_CMDLINE = 0x228,
    BP_E820_TABLE = 0x2d0,
};

struct e820_entry {
    uint64_t gpa, bytes;
    uint32_t type;
} __attribute__((packed));

struct hvm_start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modules_gpa, cmdline_gpa, rsdp_gpa;
    uint64_t memmap_gpa; /* from version 1 on */
    uint32_t memmap_entries, reserved;
};

struct hvm_module {
    uint64_t gpa, bytes, cmdline_gpa, reserved;
};

struct hvm_memmap_entry {
    uint64_t gpa, bytes;
    uint32_t type, reserved;
};

static void run(struct boot_info *boot, const char *cmdline)
{
    boot->cmdline = cmdline ? cmdline : "";
    irq_init();
    guest_exit((uint32_t)guest_main(boot));
}

static uint32_t read_u32(const uint8_t *p)
{
    return *(const uint32_t *)(const void *)p;
}

static uint64_t read_split(const uint8_t *bp, unsigned int low, unsigned int high)
{
    return (uint64_t)read_u32(bp + high) << 32 | read_u32(bp + low);
}

void boot_linux(const uint8_t *bp)
{
    const struct e820_entry *map = (const void *)(bp + BP_E820_TABLE);
    struct boot_info boot = {
        .initrd_gpa = read_split(bp, BP_RAMDISK_IMAGE, BP_EXT_RAMDISK_IMAGE),
        .initrd_bytes = read_split(bp, BP_RAMDISK_SIZE, BP_EXT_RAMDISK_SIZE),
        .rsdp_gpa = read_split(bp, BP_RSDP, BP_RSDP + 4),
    };

    for (unsigned int i = 0; i < bp[BP_E820_ENTRIES]; i++)
        boot.ram_bytes += map[i].type == RAM ? map[i].bytes : 0;
    run(&boot, (const char *)read_split(bp, BP_CMDLINE, BP_EXT_CMDLINE));
}

void boot_pvh(const struct hvm_start_info *info)
{
    const struct hvm_module *modules = (const void *)info->modules_gpa;
    const struct hvm_memmap_entry *map = (const void *)info->memmap_gpa;
    struct boot_info boot = {.rsdp_gpa = info->rsdp_gpa};

    if (info->nr_modules) {
        boot.initrd_gpa = modules[0].gpa;
        boot.initrd_bytes = modules[0].bytes;
    }
    for (uint32_t i = 0; info->version && i < info->memmap_entries; i++)
        boot.ram_bytes += map[i].type == RAM ? map[i].bytes : 0;
    run(&boot, (const char *)info->cmdline_gpa);
}
