// SPDX-License-Identifier: Apache-2.0
// Loads a Linux bzImage for its 64-bit entry point (Linux Documentation/arch/x86/boot.rst). Does
// not unpack it, nor write anything but the kernel: the rest of boot_params is boot.c's.

#include "boot_internal.h"
#include "machine.h"
#include <inttypes.h>
#include <string.h>

#define SECTOR_BYTES        512u
#define HEADER_OFF          offsetof(struct boot_params, hdr)
#define HEADER_ROOM_END     offsetof(struct boot_params, edd_mbr_sig_buffer)
#define HEADER_MAGIC        0x53726448 /* "HdrS" */
#define BOOT_FLAG           0xaa55
#define PROTOCOL_MIN        0x020c /* 2.12: xloadflags */
#define JUMP_OFF            0x200  /* a short jump over the header: its distance tells the length */
#define JUMP_SHORT          0xeb
#define SETUP_SECTS_DEFAULT 4
#define ENTRY64_OFF         0x200

/* Where the protected-mode part lies in the file. */
struct payload {
    uint64_t file_off;
    uint64_t bytes;
};

static int bad_image(struct thaw_error *error, const struct boot_file *file, const char *fault)
{
    return error_set(error, THAW_EIMAGE, "kernel %s %s", file->path, fault);
}

int boot_is_bzimage(const struct boot_file *file, struct thaw_error *error)
{
    uint8_t sector[HEADER_ROOM_END];
    struct setup_header header;
    if (file->bytes < sizeof(sector))
        return 0;
    int r = boot_file_read(file, 0, sector, sizeof(sector), error);
    if (r < 0)
        return r;
    memcpy(&header, sector + HEADER_OFF, sizeof(header));
    return header.boot_flag == BOOT_FLAG && header.header == HEADER_MAGIC;
}

/* Copies the setup header, and no byte around it, to where boot_params has it. */
static int read_header(
    const struct boot_file *file, struct boot_params *params, struct thaw_error *error)
{
    uint8_t start[HEADER_ROOM_END];
    int r = boot_file_read(file, 0, start, sizeof(start), error);
    if (r < 0)
        return r;

    size_t end = JUMP_OFF + 2u + start[JUMP_OFF + 1];
    if (start[JUMP_OFF] != JUMP_SHORT ||
        end < HEADER_OFF + offsetof(struct setup_header, handover_offset))
        return bad_image(error, file, "has a malformed setup header");
    end = MIN(end, HEADER_ROOM_END);
    memcpy((uint8_t *)params + HEADER_OFF, start + HEADER_OFF, end - HEADER_OFF);
    return 0;
}

static int check_header(const struct boot_file *file, const struct setup_header *header,
    struct payload *ret, struct thaw_error *error)
{
    if (header->version < PROTOCOL_MIN)
        return error_set(error, THAW_EIMAGE,
            "kernel %s has boot protocol %u.%02u; 2.12 or later is needed", file->path,
            header->version >> 8, header->version & 0xffu);
    if (!(header->xloadflags & XLF_KERNEL_64) || !(header->loadflags & LOADED_HIGH))
        return bad_image(error, file, "has no 64-bit entry point");

    unsigned setup_sects = header->setup_sects ? header->setup_sects : SETUP_SECTS_DEFAULT;
    struct payload payload = {
        .file_off = (uint64_t)(setup_sects + 1) * SECTOR_BYTES,
        .bytes = (uint64_t)header->syssize * 16,
    };
    if (!range_fits(payload.file_off, payload.bytes, file->bytes))
        return error_set(error, THAW_EIMAGE,
            "kernel %s is truncated: header announces %" PRIu64 " bytes, file has %" PRIu64,
            file->path, payload.file_off + payload.bytes, file->bytes);
    if (payload.bytes <= ENTRY64_OFF)
        return bad_image(error, file, "has no code at its 64-bit entry point");
    *ret = payload;
    return 0;
}

/* A kernel that is loaded below its preferred address moves itself up to it before it unpacks, so
 * that loading it lower would not make it fit into less RAM. */
static int choose_address(const struct boot_file *file, const struct setup_header *header,
    uint64_t *ret_gpa, struct thaw_error *error)
{
    uint64_t gpa = header->pref_address;
    if (header->relocatable_kernel) {
        uint32_t align = header->kernel_alignment;
        if (align == 0 || (align & (align - 1)) != 0)
            return bad_image(error, file, "asks for an alignment that is no power of two");
        gpa = MAX(gpa, MACHINE_KERNEL_GPA);
        if (gpa <= UINT64_MAX - align)
            gpa = ALIGN_UP(gpa, align);
    }
    if (gpa < MACHINE_KERNEL_GPA)
        return bad_image(error, file, "can only be loaded below 1 MiB");
    *ret_gpa = gpa;
    return 0;
}

int boot_load_bzimage(const struct boot_file *file, struct mem *mem, struct boot_params *params,
    struct boot_kernel *ret, struct thaw_error *error)
{
    struct setup_header *header = &params->hdr;
    struct payload payload = {0};
    uint64_t gpa = 0;
    int r = read_header(file, params, error);
    if (r == 0)
        r = check_header(file, header, &payload, error);
    if (r == 0)
        r = choose_address(file, header, &gpa, error);
    if (r < 0)
        return r;

    uint64_t needed = MAX(payload.bytes, (uint64_t)header->init_size);
    uint64_t ram = boot_low_ram_bytes(mem);
    if (!range_fits(gpa, needed, ram))
        return error_set(error, THAW_EIMAGE,
            "kernel %s needs %" PRIu64 " MiB from 0x%" PRIx64 " on, but the guest has only %" PRIu64
            " MiB of RAM%s",
            file->path, ALIGN_UP(needed, MIB) / MIB, gpa, ram / MIB,
            ram == MEM_HOLE_GPA ? " below 4 GiB" : "");
    r = boot_file_read_guest(file, payload.file_off, mem, gpa, payload.bytes, error);
    if (r < 0)
        return r;

    header->code32_start = (uint32_t)gpa;
    *ret = (struct boot_kernel){
        .entry_gpa = gpa + ENTRY64_OFF,
        .end_gpa = gpa + needed,
        /* initrd_addr_max is what the 16-bit and 32-bit entries can bear. */
        .initrd_end_gpa = header->xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G
                              ? UINT64_MAX
                              : (uint64_t)header->initrd_addr_max + 1,
        .cmdline_bytes = header->cmdline_size,
    };
    return 0;
}
