// SPDX-License-Identifier: Apache-2.0
// Puts into fresh guest memory what the boot processor needs to start. Reads no kernel format
// itself (boot_bzimage.c, boot_elf.c) and sets no register: that is the vCPU's.

#include "boot.h"
#include "acpi.h"
#include "boot_internal.h"
#include "machine.h"
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define READ_BYTES_MAX   (1u << 30) /* below what one read() can return */
#define LOADER_UNDEFINED 0xff       /* type_of_loader: no number was assigned */
#define VGA_MODE_NORMAL  0xffff

#define E820_RAM         1
#define E820_RESERVED    2
#define LOW_RAM_END_GPA  0x9fc00 /* above lies what a PC keeps for its BIOS */

#define RESET_VECTOR_GPA 0xffff0 /* of a processor in real mode: F000:FFF0 */

#define PTE_PRESENT      (1ull << 0)
#define PTE_WRITABLE     (1ull << 1)
#define PTE_LARGE        (1ull << 7)
#define TABLE_ENTRIES    512
#define LARGE_PAGE_BYTES (2 * MIB)
/* Page directories, of 1 GiB each, that fit behind PML4 and PDPT. */
#define DIRECTORIES_MAX ((MACHINE_CMDLINE_GPA - MACHINE_PAGE_TABLES_GPA) / PAGE_BYTES - 2)
#define DIRECTORIES_MIN 4

_Static_assert(DIRECTORIES_MAX >= 16, "the identity map must reach 16 GiB");
_Static_assert(MACHINE_VMGENID_GPA + 16 <= RESET_VECTOR_GPA, "they share a page");
_Static_assert(sizeof(struct boot_params) == PAGE_BYTES, "boot_params is one page");

/* Flat, at the selectors that the boot protocol names: 0x10 64-bit code, 0x18 data. */
static const uint64_t gdt[] = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff};

/* All of a BIOS that there is. Linux on hardware-reduced ACPI takes EFI for granted when it resets:
 * without EFI it goes back to real mode and jumps to the reset vector, and never tries the FADT's
 * reset register or the keyboard controller (arch/x86/kernel/reboot.c, reboot_init). */
static const uint8_t reset_code[] = {
    0xb0, MACHINE_RESET_VALUE,                                /* mov al, value */
    0xba, MACHINE_RESET_PORT & 0xff, MACHINE_RESET_PORT >> 8, /* mov dx, port */
    0xee,                                                     /* out dx, al */
    0xf4,                                                     /* hlt */
    0xeb, 0xfd,                                               /* jmp to the hlt */
};

int boot_file_read(
    const struct boot_file *file, uint64_t off, void *dst, uint64_t bytes, struct thaw_error *error)
{
    uint8_t *to = dst;
    while (bytes > 0) {
        ssize_t n = pread(file->fd, to, (size_t)MIN(bytes, (uint64_t)READ_BYTES_MAX), (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(error, errno, "reading %s", file->path);
        if (n == 0)
            return error_set(error, THAW_EIMAGE,
                "%s is truncated: %" PRIu64 " bytes are missing after byte %" PRIu64, file->path,
                bytes, off);
        to += n;
        off += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return 0;
}

int boot_file_read_guest(const struct boot_file *file, uint64_t off, struct mem *mem, uint64_t gpa,
    uint64_t bytes, struct thaw_error *error)
{
    void *hva;
    int r = mem_hva(mem, gpa, bytes, &hva);
    if (r < 0)
        return error_errno(error, -r, "loading %s to 0x%" PRIx64, file->path, gpa);
    r = boot_file_read(file, off, hva, bytes, error);
    mem_mark_dirty(mem, gpa, bytes);
    return r;
}

uint64_t boot_low_ram_bytes(const struct mem *mem)
{
    return mem->regions[0].bytes;
}

static int file_open(
    struct boot_file *file, const char *what, const char *path, struct thaw_error *error)
{
    /* O_NONBLOCK, lest a FIFO keeps us waiting for a writer. */
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_errno(error, errno, "opening %s %s", what, path);
    if (!S_ISREG(st.st_mode))
        return error_set(error, THAW_EIMAGE, "%s %s is not a regular file", what, path);
    *file = (struct boot_file){.fd = take_fd(&fd), .path = path, .bytes = (uint64_t)st.st_size};
    return 0;
}

static int load_kernel(struct mem *mem, const char *path, struct boot_params *params,
    struct boot_kernel *ret, struct thaw_error *error)
{
    struct boot_file file;
    int r = file_open(&file, "kernel", path, error);
    if (r < 0)
        return r;
    _cleanup_close_ int fd = file.fd;

    r = boot_is_elf(&file, error);
    if (r != 0)
        return r < 0 ? r : boot_load_elf(&file, mem, params, ret, error);
    r = boot_is_bzimage(&file, error);
    if (r != 0)
        return r < 0 ? r : boot_load_bzimage(&file, mem, params, ret, error);
    return error_set(error, THAW_EIMAGE, "kernel %s is not a bzImage or ELF64 executable", path);
}

/* As high as possible, out of the way of whatever the kernel unpacks or allocates first. */
static int load_initrd(struct mem *mem, const char *path, const struct boot_kernel *kernel,
    struct boot_params *params, struct thaw_error *error)
{
    struct boot_file file;
    int r = file_open(&file, "initrd", path, error);
    if (r < 0)
        return r;
    _cleanup_close_ int fd = file.fd;

    if (file.bytes == 0)
        return error_set(error, THAW_EIMAGE, "initrd %s is empty", path);
    uint64_t ram = boot_low_ram_bytes(mem);
    uint64_t begin = ALIGN_UP(kernel->end_gpa, PAGE_BYTES);
    uint64_t end = ALIGN_DOWN(MIN(ram, kernel->initrd_end_gpa), PAGE_BYTES);
    if (begin > end || file.bytes > end - begin)
        return error_set(error, THAW_EIMAGE,
            "initrd %s needs %" PRIu64 " MiB, but the guest has only %" PRIu64
            " MiB of RAM%s, with room for it from 0x%" PRIx64 " to 0x%" PRIx64,
            path, ALIGN_UP(file.bytes, MIB) / MIB, ram / MIB,
            ram == MEM_HOLE_GPA ? " below 4 GiB" : "", begin, end);

    uint64_t gpa = ALIGN_DOWN(end - file.bytes, PAGE_BYTES);
    params->hdr.ramdisk_image = (uint32_t)gpa; /* below the hole at 3 GiB, so 32 bits hold it */
    params->hdr.ramdisk_size = (uint32_t)file.bytes;
    return boot_file_read_guest(&file, 0, mem, gpa, file.bytes, error);
}

static int write_cmdline(struct mem *mem, const char *cmdline, const struct boot_kernel *kernel,
    struct boot_params *params, struct thaw_error *error)
{
    size_t bytes = strlen(cmdline);
    size_t limit = MIN(kernel->cmdline_bytes, MACHINE_CMDLINE_BYTES - 1u);
    if (bytes > limit)
        return error_set(error, -E2BIG,
            "the kernel command line has %zu bytes, but at most %zu are possible", bytes, limit);
    params->hdr.cmd_line_ptr = MACHINE_CMDLINE_GPA;
    int r = mem_write(mem, MACHINE_CMDLINE_GPA, cmdline, bytes + 1);
    return r < 0 ? error_errno(error, -r, "writing the kernel command line") : 0;
}

static void add_e820(struct boot_params *params, uint64_t begin, uint64_t end, uint32_t type)
{
    params->e820_table[params->e820_entries++] =
        (struct boot_e820_entry){.addr = begin, .size = end - begin, .type = type};
}

/* The ACPI area is reserved rather than ACPI data, which a guest may reclaim: the generation id is
 * in it. So is what KVM uses below 4 GiB on some hosts. */
static void fill_e820(const struct mem *mem, struct boot_params *params)
{
    add_e820(params, 0, LOW_RAM_END_GPA, E820_RAM);
    add_e820(params, MACHINE_ACPI_GPA, MACHINE_ACPI_GPA + MACHINE_ACPI_BYTES, E820_RESERVED);
    add_e820(params, MACHINE_KERNEL_GPA, boot_low_ram_bytes(mem), E820_RAM);
    add_e820(params, MACHINE_IDENTITY_MAP_GPA, MACHINE_TSS_GPA + 3 * PAGE_BYTES, E820_RESERVED);
    for (unsigned i = 1; i < mem->region_count; i++)
        add_e820(
            params, mem->regions[i].gpa, mem->regions[i].gpa + mem->regions[i].bytes, E820_RAM);
}

/* The fields of the header that belong to the loader, whatever the file had in them. */
static void fill_header(struct setup_header *header)
{
    header->vid_mode = VGA_MODE_NORMAL;
    header->type_of_loader = LOADER_UNDEFINED;
    header->loadflags &= (uint8_t) ~(CAN_USE_HEAP | KASLR_FLAG);
    header->ramdisk_image = 0;
    header->ramdisk_size = 0;
    header->ext_loader_ver = 0;
    header->ext_loader_type = 0;
    header->hardware_subarch = X86_SUBARCH_PC;
    header->hardware_subarch_data = 0;
    header->setup_data = 0;
}

/* Identity map with 2 MiB pages: the first 4 GiB, and all RAM as far as the tables reach. */
static int write_page_tables(struct mem *mem, struct thaw_error *error)
{
    const struct mem_region *last = &mem->regions[mem->region_count - 1];
    uint64_t wanted = ALIGN_UP(last->gpa + last->bytes, GIB) / GIB;
    uint64_t directories = MIN(MAX(wanted, DIRECTORIES_MIN), (uint64_t)DIRECTORIES_MAX);
    uint64_t bytes = (2 + directories) * PAGE_BYTES;
    void *hva;
    int r = mem_hva(mem, MACHINE_PAGE_TABLES_GPA, bytes, &hva);
    if (r < 0)
        return error_errno(error, -r, "writing page tables");

    uint64_t *pml4 = hva, *pdpt = pml4 + TABLE_ENTRIES, *pd = pdpt + TABLE_ENTRIES;
    uint64_t pdpt_gpa = MACHINE_PAGE_TABLES_GPA + PAGE_BYTES, pd_gpa = pdpt_gpa + PAGE_BYTES;
    pml4[0] = pdpt_gpa | PTE_PRESENT | PTE_WRITABLE;
    for (uint64_t i = 0; i < directories; i++)
        pdpt[i] = (pd_gpa + i * PAGE_BYTES) | PTE_PRESENT | PTE_WRITABLE;
    for (uint64_t i = 0; i < directories * TABLE_ENTRIES; i++)
        pd[i] = i * LARGE_PAGE_BYTES | PTE_PRESENT | PTE_WRITABLE | PTE_LARGE;
    mem_mark_dirty(mem, MACHINE_PAGE_TABLES_GPA, bytes);
    return 0;
}

/* Below the page with the generation id, which is dev_vmgenid's. */
static int write_acpi(struct mem *mem, uint32_t vcpu_count, struct thaw_error *error)
{
    const uint64_t bytes = MACHINE_VMGENID_GPA - MACHINE_ACPI_GPA;
    void *hva;
    int r = mem_hva(mem, MACHINE_ACPI_GPA, bytes, &hva);
    if (r < 0)
        return error_errno(error, -r, "writing ACPI tables");
    r = acpi_build(hva, bytes, vcpu_count, error);
    if (r < 0)
        return r;
    mem_mark_dirty(mem, MACHINE_ACPI_GPA, (uint64_t)r);
    return 0;
}

int boot_load(struct mem *mem, const struct boot_source *source, uint32_t vcpu_count,
    struct boot_entry *ret, struct thaw_error *error)
{
    struct boot_params params = {0};
    struct boot_kernel kernel = {0};
    int r = load_kernel(mem, source->kernel_path, &params, &kernel, error);
    if (r < 0)
        return r;

    fill_header(&params.hdr);
    fill_e820(mem, &params);
    params.acpi_rsdp_addr = MACHINE_ACPI_GPA;
    r = write_cmdline(mem, source->cmdline ? source->cmdline : "", &kernel, &params, error);
    if (r == 0 && source->initrd_path)
        r = load_initrd(mem, source->initrd_path, &kernel, &params, error);
    if (r == 0)
        r = write_acpi(mem, vcpu_count, error);
    if (r == 0)
        r = write_page_tables(mem, error);
    if (r < 0)
        return r;
    r = mem_write(mem, MACHINE_BOOT_PARAMS_GPA, &params, sizeof(params));
    if (r == 0)
        r = mem_write(mem, MACHINE_GDT_GPA, gdt, sizeof(gdt));
    if (r == 0)
        r = mem_write(mem, RESET_VECTOR_GPA, reset_code, sizeof(reset_code));
    if (r < 0)
        return error_errno(error, -r, "writing boot parameters");

    *ret = (struct boot_entry){
        .rip = kernel.entry_gpa,
        .rsi = MACHINE_BOOT_PARAMS_GPA,
        .cr3 = MACHINE_PAGE_TABLES_GPA,
        .gdt_gpa = MACHINE_GDT_GPA,
        .gdt_limit = sizeof(gdt) - 1,
    };
    return 0;
}
