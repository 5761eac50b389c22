// SPDX-License-Identifier: Apache-2.0
// The kernel loader. The input is a kernel file, and its own initrd if the last byte is odd.
// What a guest makes of the result is not looked at.

#include "boot.h"
#include "fuzz_input.h"
#include <sys/mman.h>

#define VCPUS 2

static struct mem mem;
static int file = -1;
static char path[32];

static void setup(void)
{
    FUZZ_ASSERT(mem_init(&mem, 64 * MIB, NULL) == 0);
    file = memfd_create("kernel", MFD_CLOEXEC);
    FUZZ_ASSERT(file >= 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
    if (file < 0)
        setup();
    if (count == 0)
        return 0;
    /* Fresh memory is the loader's condition. */
    FUZZ_ASSERT(mem_map_anonymous(&mem, NULL) == 0);
    FUZZ_ASSERT(ftruncate(file, 0) == 0);
    FUZZ_ASSERT(pwrite(file, data, count, 0) == (ssize_t)count);

    struct boot_source source = {.kernel_path = path, .cmdline = "console=ttyS0"};
    if (data[count - 1] & 1)
        source.initrd_path = path;
    struct thaw_error error = {0};
    struct boot_entry entry;
    int r = boot_load(&mem, &source, VCPUS, &entry, &error);
    if (r < 0) {
        FUZZ_ASSERT(error.code == r && error.message[0]);
        return 0;
    }
    FUZZ_ASSERT(entry.rip >= MIB && entry.rip < mem.bytes);
    FUZZ_ASSERT(entry.rsi < MIB && entry.cr3 < MIB && entry.gdt_gpa < MIB);
    return 0;
}
