/* SPDX-License-Identifier: Apache-2.0 */
/* What boot.c shares with the loaders of the two kernel formats. */
#ifndef VMM_BOOT_INTERNAL_H
#define VMM_BOOT_INTERNAL_H

#include "mem.h"
#include <asm/bootparam.h>

/* A kernel or initrd: a regular file, open for reading. */
struct boot_file {
    int fd;
    const char *path;
    uint64_t bytes;
};

/* A kernel that lies in guest memory. */
struct boot_kernel {
    uint64_t entry_gpa;
    uint64_t end_gpa;        /* up to here memory is the kernel's while it starts */
    uint64_t initrd_end_gpa; /* the initrd lies below; UINT64_MAX: anywhere */
    uint32_t cmdline_bytes;  /* how long a command line it takes, without the final zero */
};

/* Reads [off, off + bytes) of the file. THAW_EIMAGE if the file ends before. */
int boot_file_read(const struct boot_file *file, uint64_t off, void *dst, uint64_t bytes,
    struct thaw_error *error);

/* The same, straight into guest memory. The range must be RAM. */
int boot_file_read_guest(const struct boot_file *file, uint64_t off, struct mem *mem, uint64_t gpa,
    uint64_t bytes, struct thaw_error *error);

/* The RAM below the hole, where a kernel and its initrd go. */
uint64_t boot_low_ram_bytes(const struct mem *mem);

/* 1 if the file looks like one, 0 if not, or -errno. Leaves all real checks to the loader. */
int boot_is_bzimage(const struct boot_file *file, struct thaw_error *error);
int boot_is_elf(const struct boot_file *file, struct thaw_error *error);

/* Loads the kernel and fills in what params->hdr says about it. */
int boot_load_bzimage(const struct boot_file *file, struct mem *mem, struct boot_params *params,
    struct boot_kernel *ret, struct thaw_error *error);
int boot_load_elf(const struct boot_file *file, struct mem *mem, struct boot_params *params,
    struct boot_kernel *ret, struct thaw_error *error);

#endif
