// SPDX-License-Identifier: Apache-2.0
// Loads an ELF64 executable (a vmlinux or a freestanding guest) to the physical addresses that its
// program headers name. Does not relocate, and looks at no section, symbol or note.

#include "boot_internal.h"
#include "machine.h"
#include <elf.h>
#include <inttypes.h>
#include <string.h>

#define SEGMENTS_MAX 64

static int bad_image(struct thaw_error *error, const struct boot_file *file, const char *fault)
{
    return error_set(error, THAW_EIMAGE, "kernel %s %s", file->path, fault);
}

int boot_is_elf(const struct boot_file *file, struct thaw_error *error)
{
    char magic[SELFMAG];
    if (file->bytes < SELFMAG)
        return 0;
    int r = boot_file_read(file, 0, magic, SELFMAG, error);
    return r < 0 ? r : memcmp(magic, ELFMAG, SELFMAG) == 0;
}

static int read_elf_header(const struct boot_file *file, Elf64_Ehdr *ret, struct thaw_error *error)
{
    int r = boot_file_read(file, 0, ret, sizeof(*ret), error);
    if (r < 0)
        return r;
    if (ret->e_ident[EI_CLASS] != ELFCLASS64 || ret->e_ident[EI_DATA] != ELFDATA2LSB ||
        ret->e_machine != EM_X86_64)
        return bad_image(error, file, "is an ELF file, but not for 64-bit x86");
    if (ret->e_type != ET_EXEC)
        return bad_image(
            error, file, "is an ELF file, but not an executable with fixed addresses (ET_EXEC)");
    if (ret->e_phentsize != sizeof(Elf64_Phdr) || ret->e_phnum == 0)
        return bad_image(error, file, "has no usable program headers");
    if (ret->e_phnum > SEGMENTS_MAX)
        return error_set(error, THAW_EIMAGE,
            "kernel %s has %u program headers; at most %d are read", file->path, ret->e_phnum,
            SEGMENTS_MAX);
    uint64_t bytes = (uint64_t)ret->e_phnum * sizeof(Elf64_Phdr);
    if (!range_fits(ret->e_phoff, bytes, file->bytes))
        return error_set(error, THAW_EIMAGE,
            "kernel %s is truncated: program headers end at byte %" PRIu64 ", file has %" PRIu64,
            file->path, ret->e_phoff + bytes, file->bytes);
    return 0;
}

static bool is_loaded(const Elf64_Phdr *segment)
{
    return segment->p_type == PT_LOAD && segment->p_memsz > 0;
}

/* Against the file, RAM, and the segments before it. */
static int check_segment(const struct boot_file *file, const struct mem *mem,
    const Elf64_Phdr *segments, unsigned index, struct thaw_error *error)
{
    const Elf64_Phdr *s = &segments[index];
    uint64_t ram = boot_low_ram_bytes(mem);
    if (s->p_filesz > s->p_memsz)
        return error_set(error, THAW_EIMAGE,
            "kernel %s: segment %u has more bytes in the file than in memory", file->path, index);
    if (!range_fits(s->p_offset, s->p_filesz, file->bytes))
        return error_set(error, THAW_EIMAGE,
            "kernel %s is truncated: segment %u has %" PRIu64 " bytes at %" PRIu64
            ", file has %" PRIu64,
            file->path, index, s->p_filesz, s->p_offset, file->bytes);
    if (s->p_paddr < MACHINE_KERNEL_GPA)
        return error_set(error, THAW_EIMAGE,
            "kernel %s: segment %u is to be loaded at 0x%" PRIx64 ", below 1 MiB", file->path,
            index, s->p_paddr);
    if (!range_fits(s->p_paddr, s->p_memsz, ram))
        return error_set(error, THAW_EIMAGE,
            "kernel %s: segment %u needs %" PRIu64 " MiB from 0x%" PRIx64
            " on, but the guest has only %" PRIu64 " MiB of RAM%s",
            file->path, index, s->p_memsz / MIB + 1, s->p_paddr, ram / MIB,
            ram == MEM_HOLE_GPA ? " below 4 GiB" : "");
    for (unsigned i = 0; i < index; i++) {
        const Elf64_Phdr *other = &segments[i];
        if (is_loaded(other) && s->p_paddr < other->p_paddr + other->p_memsz &&
            other->p_paddr < s->p_paddr + s->p_memsz)
            return error_set(
                error, THAW_EIMAGE, "kernel %s: segments %u and %u overlap", file->path, i, index);
    }
    return 0;
}

/* For a kernel that brings no setup header: what Linux wants to find there all the same. */
static void make_header(struct setup_header *header)
{
    header->boot_flag = 0xaa55;
    header->header = 0x53726448; /* "HdrS" */
    header->version = 0x020f;
    header->loadflags = LOADED_HIGH;
}

int boot_load_elf(const struct boot_file *file, struct mem *mem, struct boot_params *params,
    struct boot_kernel *ret, struct thaw_error *error)
{
    Elf64_Ehdr elf;
    Elf64_Phdr segments[SEGMENTS_MAX];
    int r = read_elf_header(file, &elf, error);
    if (r == 0)
        r = boot_file_read(file, elf.e_phoff, segments, elf.e_phnum * sizeof(*segments), error);
    if (r < 0)
        return r;

    uint64_t end_gpa = 0;
    bool entry_found = false;
    for (unsigned i = 0; i < elf.e_phnum; i++) {
        const Elf64_Phdr *s = &segments[i];
        if (!is_loaded(s))
            continue;
        r = check_segment(file, mem, segments, i, error);
        if (r == 0)
            r = boot_file_read_guest(file, s->p_offset, mem, s->p_paddr, s->p_filesz, error);
        if (r < 0)
            return r;
        /* The rest of the segment, its .bss, is fresh memory and zero already. */
        end_gpa = MAX(end_gpa, s->p_paddr + s->p_memsz);
        entry_found |= elf.e_entry >= s->p_paddr && elf.e_entry - s->p_paddr < s->p_filesz;
    }
    if (!entry_found)
        return error_set(error, THAW_EIMAGE,
            "kernel %s: the entry point 0x%" PRIx64 " is not in what is loaded", file->path,
            (uint64_t)elf.e_entry);

    make_header(&params->hdr);
    *ret = (struct boot_kernel){
        .entry_gpa = elf.e_entry,
        .end_gpa = end_gpa,
        .initrd_end_gpa = UINT64_MAX,
        .cmdline_bytes = MACHINE_CMDLINE_BYTES - 1,
    };
    return 0;
}
