// SPDX-License-Identifier: Apache-2.0
// Loading kernels and initrds: what the guest finds, and what is refused. All files are made here;
// no guest runs.

#include "boot.h"
#include "machine.h"
#include <asm/bootparam.h>
#include <criterion/criterion.h>
#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define SETUP_SECTS 7 /* as much as a struct boot_params */
#define SETUP_BYTES ((SETUP_SECTS + 1) * 512)
#define CODE_BYTES  4096
#define PREF_GPA    (16 * MIB)
#define INIT_BYTES  (8 * MIB)
#define ELF_GPA     (2 * MIB)

static char dir[] = "/tmp/test_boot.XXXXXX";
static char kernel_path[64], initrd_path[64];
static struct mem mem;
static struct thaw_error error;
static struct boot_entry entry;

static void setup(void)
{
    strcpy(dir, "/tmp/test_boot.XXXXXX");
    cr_assert(mkdtemp(dir));
    snprintf(kernel_path, sizeof(kernel_path), "%s/kernel", dir);
    snprintf(initrd_path, sizeof(initrd_path), "%s/initrd", dir);
}

static void teardown(void)
{
    mem_fini(&mem);
    unlink(kernel_path);
    unlink(initrd_path);
    rmdir(dir);
}

TestSuite(boot, .init = setup, .fini = teardown);

static void write_file(const char *path, const void *data, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, data, bytes), (ssize_t)bytes);
    close(fd);
}

/* A bzImage that is 0xcc wherever nothing is needed; a test spoils one field. */
struct bzimage {
    union {
        uint8_t bytes[SETUP_BYTES];
        struct boot_params params; /* for .hdr, which lies at the same offset */
    };
    uint8_t code[CODE_BYTES];
};

static struct bzimage good_bzimage(void)
{
    struct bzimage image;
    memset(&image, 0xcc, sizeof(image));
    image.bytes[0x200] = 0xeb;
    image.bytes[0x201] = 0x6a; /* the header ends at 0x26c */
    struct setup_header *hdr = &image.params.hdr;
    hdr->setup_sects = SETUP_SECTS;
    hdr->syssize = CODE_BYTES / 16;
    hdr->boot_flag = 0xaa55;
    hdr->header = 0x53726448;
    hdr->version = 0x020f;
    hdr->loadflags = LOADED_HIGH;
    hdr->initrd_addr_max = 0x7fffffff;
    hdr->kernel_alignment = 2 * MIB;
    hdr->relocatable_kernel = 1;
    hdr->xloadflags = XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G;
    hdr->cmdline_size = 2047;
    hdr->pref_address = PREF_GPA;
    hdr->init_size = INIT_BYTES;
    for (size_t i = 0; i < CODE_BYTES; i++)
        image.code[i] = (uint8_t)(i * 7);
    return image;
}

#define ELF_DATA_BYTES 64

struct elf {
    Elf64_Ehdr head;
    Elf64_Phdr segments[2];
    uint8_t data[ELF_DATA_BYTES];
};

static struct elf good_elf(void)
{
    struct elf elf = {
        .head =
            {
                .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
                    EV_CURRENT},
                .e_type = ET_EXEC,
                .e_machine = EM_X86_64,
                .e_version = EV_CURRENT,
                .e_entry = ELF_GPA + 16,
                .e_phoff = offsetof(struct elf, segments),
                .e_ehsize = sizeof(Elf64_Ehdr),
                .e_phentsize = sizeof(Elf64_Phdr),
                .e_phnum = 2,
            },
        .segments =
            {
                {.p_type = PT_LOAD,
                    .p_offset = offsetof(struct elf, data),
                    .p_vaddr = 0xffffffff80000000,
                    .p_paddr = ELF_GPA,
                    .p_filesz = ELF_DATA_BYTES,
                    .p_memsz = 3 * PAGE_BYTES},
                {.p_type = PT_NOTE, .p_offset = UINT64_MAX, .p_filesz = UINT64_MAX},
            },
    };
    for (size_t i = 0; i < ELF_DATA_BYTES; i++)
        elf.data[i] = (uint8_t)(0x40 + i);
    return elf;
}

static void make_ram(uint64_t bytes)
{
    mem_fini(&mem);
    cr_assert_eq(mem_init(&mem, bytes, &error), 0, "%s", error.message);
    cr_assert_eq(mem_map_anonymous(&mem, &error), 0, "%s", error.message);
}

static int load(uint64_t ram_bytes, const char *initrd, const char *cmdline)
{
    struct boot_source source = {
        .kernel_path = kernel_path, .initrd_path = initrd, .cmdline = cmdline};
    make_ram(ram_bytes);
    error = (struct thaw_error){0};
    return boot_load(&mem, &source, 2, &entry, &error);
}

static void expect_loaded(uint64_t ram_bytes, const char *initrd, const char *cmdline)
{
    int r = load(ram_bytes, initrd, cmdline);
    cr_assert_eq(r, 0, "%s", error.message);
}

static void expect_refused(int code, const char *text)
{
    struct boot_source source = {.kernel_path = kernel_path};
    if (access(initrd_path, F_OK) == 0)
        source.initrd_path = initrd_path;
    make_ram(128 * MIB);
    error = (struct thaw_error){0};
    cr_assert_eq(boot_load(&mem, &source, 1, &entry, &error), code, "%s", error.message);
    cr_assert_eq(error.code, code);
    cr_assert(strstr(error.message, text), "\"%s\" is not in \"%s\"", text, error.message);
    if (code == THAW_EIMAGE)
        cr_assert(strstr(error.message, dir), "\"%s\" names no file", error.message);
}

static void refuse_bzimage(const struct bzimage *image, const char *text)
{
    write_file(kernel_path, image, sizeof(*image));
    expect_refused(THAW_EIMAGE, text);
}

static void refuse_elf(const struct elf *elf, const char *text)
{
    write_file(kernel_path, elf, sizeof(*elf));
    expect_refused(THAW_EIMAGE, text);
}

static struct boot_params guest_params(void)
{
    struct boot_params params;
    cr_assert_eq(mem_read(&mem, MACHINE_BOOT_PARAMS_GPA, &params, sizeof(params)), 0);
    return params;
}

static void expect_guest_bytes(uint64_t gpa, const void *expected, size_t bytes)
{
    uint8_t got[8192];
    cr_assert_leq(bytes, sizeof(got));
    cr_assert_eq(mem_read(&mem, gpa, got, bytes), 0);
    cr_assert_eq(memcmp(got, expected, bytes), 0, "bytes at 0x%lx differ", gpa);
}

Test(boot, bzimage_lies_at_its_preferred_address_and_is_entered_at_its_64_bit_entry)
{
    struct bzimage image = good_bzimage();
    write_file(kernel_path, &image, sizeof(image));
    expect_loaded(128 * MIB, NULL, "console=ttyS0");
    expect_guest_bytes(PREF_GPA, image.code, sizeof(image.code));
    cr_assert_eq(entry.rip, PREF_GPA + 0x200);
    cr_assert_eq(entry.rsi, MACHINE_BOOT_PARAMS_GPA);
    cr_assert_eq(entry.cr3, MACHINE_PAGE_TABLES_GPA);
    expect_guest_bytes(MACHINE_CMDLINE_GPA, "console=ttyS0", sizeof("console=ttyS0"));
}

Test(boot, boot_params_hold_the_setup_header_and_nothing_else_of_the_file)
{
    struct bzimage image = good_bzimage();
    image.params.hdr.setup_data = 0x1234; /* from the file: must not be believed */
    image.params.hdr.ramdisk_size = 99;
    write_file(kernel_path, &image, sizeof(image));
    expect_loaded(128 * MIB, NULL, NULL);

    struct boot_params params = guest_params();
    cr_assert_eq(params.sentinel, 0, "copied from before the header");
    cr_assert_eq(((uint8_t *)&params)[0x1f0], 0);
    cr_assert_eq(((uint8_t *)&params)[0x26c], 0, "copied past the header's end");
    cr_assert_eq(params.hdr.header, 0x53726448);
    cr_assert_eq(params.hdr.kernel_info_offset, 0xcccccccc, "the header's last field");
    cr_assert_eq(params.hdr.type_of_loader, 0xff);
    cr_assert_eq(params.hdr.loadflags, LOADED_HIGH);
    cr_assert_eq(params.hdr.setup_data, 0);
    cr_assert_eq(params.hdr.ramdisk_image, 0);
    cr_assert_eq(params.hdr.ramdisk_size, 0);
    cr_assert_eq(params.hdr.cmd_line_ptr, MACHINE_CMDLINE_GPA);
    cr_assert_eq(params.hdr.code32_start, PREF_GPA);
    cr_assert_eq(params.acpi_rsdp_addr, MACHINE_ACPI_GPA);
    expect_guest_bytes(params.acpi_rsdp_addr, "RSD PTR ", 8);
    expect_guest_bytes(MACHINE_CMDLINE_GPA, "", 1);
}

Test(boot, zero_setup_sectors_mean_four)
{
    struct bzimage image = good_bzimage();
    image.params.hdr.setup_sects = 0;
    image.bytes[5 * 512] = 0x55;
    write_file(kernel_path, &image, sizeof(image));
    expect_loaded(128 * MIB, NULL, NULL);
    expect_guest_bytes(PREF_GPA, image.bytes + 5 * 512, 3 * 512);
}

Test(boot, bytes_after_the_announced_kernel_are_ignored)
{
    struct bzimage image = good_bzimage();
    image.params.hdr.syssize = 2048 / 16;
    write_file(kernel_path, &image, sizeof(image));
    expect_loaded(128 * MIB, NULL, NULL);
    expect_guest_bytes(PREF_GPA, image.code, 2048);
    expect_guest_bytes(PREF_GPA + 2048, (uint8_t[64]){0}, 64);
}

Test(boot, relocatable_kernel_without_preference_is_aligned_above_1_mib)
{
    struct bzimage image = good_bzimage();
    image.params.hdr.pref_address = 0;
    write_file(kernel_path, &image, sizeof(image));
    expect_loaded(128 * MIB, NULL, NULL);
    cr_assert_eq(entry.rip, 2 * MIB + 0x200);
}

static void expect_e820(
    const struct boot_params *params, unsigned i, uint64_t begin, uint64_t end, uint32_t type)
{
    cr_assert_lt(i, params->e820_entries);
    struct boot_e820_entry e = params->e820_table[i];
    cr_assert_eq(e.addr, begin, "entry %u begins at 0x%llx", i, e.addr);
    cr_assert_eq(e.addr + e.size, end, "entry %u ends at 0x%llx", i, e.addr + e.size);
    cr_assert_eq(e.type, type, "entry %u", i);
}

Test(boot, memory_map_of_a_small_guest)
{
    struct bzimage image = good_bzimage();
    write_file(kernel_path, &image, sizeof(image));
    expect_loaded(128 * MIB, NULL, NULL);
    struct boot_params params = guest_params();
    cr_assert_eq(params.e820_entries, 4);
    expect_e820(&params, 0, 0, 0x9fc00, 1);
    expect_e820(&params, 1, 0xe0000, 0x100000, 2);
    expect_e820(&params, 2, 0x100000, 128 * MIB, 1);
    expect_e820(&params, 3, 0xfffbc000, 0xfffc0000, 2);
}

Test(boot, memory_map_of_a_guest_with_ram_above_4_gib)
{
    struct bzimage image = good_bzimage();
    write_file(kernel_path, &image, sizeof(image));
    expect_loaded(5 * GIB, NULL, NULL);
    struct boot_params params = guest_params();
    cr_assert_eq(params.e820_entries, 5);
    expect_e820(&params, 2, 0x100000, 3 * GIB, 1);
    expect_e820(&params, 3, 0xfffbc000, 0xfffc0000, 2);
    expect_e820(&params, 4, 4 * GIB, 6 * GIB, 1);
}

/* Walks the guest's page tables as the processor would. Returns UINT64_MAX for "not mapped". */
static uint64_t translate(uint64_t va)
{
    uint64_t table = entry.cr3;
    for (int shift = 39; shift >= 21; shift -= 9) {
        uint64_t pte;
        cr_assert_eq(mem_read(&mem, table + (va >> shift & 511) * 8, &pte, sizeof(pte)), 0);
        if ((pte & 3) != 3)
            return UINT64_MAX;
        if (shift == 21) {
            cr_assert(pte & 0x80);
            return (pte & ~0x1fffffull) | (va & 0x1fffff);
        }
        table = pte & ~0xfffull;
    }
    return UINT64_MAX;
}

Test(boot, first_4_gib_are_mapped_to_themselves)
{
    struct bzimage image = good_bzimage();
    write_file(kernel_path, &image, sizeof(image));
    expect_loaded(16 * MIB + INIT_BYTES, NULL, NULL);
    for (uint64_t va = 0; va < 4 * GIB; va += 2 * MIB)
        cr_assert_eq(translate(va + 0x123), va + 0x123);
    cr_assert_eq(translate(4 * GIB), UINT64_MAX);
}

Test(boot, ram_is_mapped_to_itself_up_to_16_gib)
{
    struct bzimage image = good_bzimage();
    write_file(kernel_path, &image, sizeof(image));
    expect_loaded(64 * GIB, NULL, NULL);
    for (uint64_t va = 0; va < 16 * GIB; va += 128 * MIB)
        cr_assert_eq(translate(va), va);
    expect_guest_bytes(MACHINE_CMDLINE_GPA, "", 1);
}

Test(boot, gdt_has_flat_64_bit_code_and_data_where_the_protocol_wants_them)
{
    struct bzimage image = good_bzimage();
    write_file(kernel_path, &image, sizeof(image));
    expect_loaded(128 * MIB, NULL, NULL);
    cr_assert_geq(entry.gdt_limit, 0x1f);
    expect_guest_bytes(entry.gdt_gpa + 0x10, "\xff\xff\0\0\0\x9b\xaf", 8);
    expect_guest_bytes(entry.gdt_gpa + 0x18, "\xff\xff\0\0\0\x93\xcf", 8);
}

Test(boot, real_mode_reset_vector_writes_the_reset_port)
{
    struct bzimage image = good_bzimage();
    write_file(kernel_path, &image, sizeof(image));
    expect_loaded(128 * MIB, NULL, NULL);
    /* mov al, 1; mov dx, 0x602; out dx, al */
    expect_guest_bytes(0xffff0, "\xb0\x01\xba\x02\x06\xee", 6);
}

Test(boot, initrd_ends_as_high_as_ram_allows)
{
    struct bzimage image = good_bzimage();
    write_file(kernel_path, &image, sizeof(image));
    write_file(initrd_path, "initrd data", 11);
    expect_loaded(128 * MIB, initrd_path, NULL);
    struct boot_params params = guest_params();
    cr_assert_eq(params.hdr.ramdisk_image, 128 * MIB - PAGE_BYTES);
    cr_assert_eq(params.hdr.ramdisk_size, 11);
    expect_guest_bytes(params.hdr.ramdisk_image, "initrd data", 11);
}

Test(boot, initrd_stays_below_the_device_hole)
{
    struct bzimage image = good_bzimage();
    write_file(kernel_path, &image, sizeof(image));
    write_file(initrd_path, "initrd data", 11);
    expect_loaded(5 * GIB, initrd_path, NULL);
    cr_assert_eq(guest_params().hdr.ramdisk_image, 3 * GIB - PAGE_BYTES);
}

Test(boot, initrd_stays_below_the_limit_of_an_older_kernel)
{
    struct bzimage image = good_bzimage();
    image.params.hdr.xloadflags = XLF_KERNEL_64;
    write_file(kernel_path, &image, sizeof(image));
    write_file(initrd_path, "initrd data", 11);
    expect_loaded(3 * GIB, initrd_path, NULL);
    cr_assert_eq(guest_params().hdr.ramdisk_image, 2 * GIB - PAGE_BYTES);
}

Test(boot, initrd_may_fill_all_room_above_the_kernel_but_not_more)
{
    struct bzimage image = good_bzimage();
    write_file(kernel_path, &image, sizeof(image));
    write_file(initrd_path, "x", 1);
    uint64_t room = 128 * MIB - PREF_GPA - INIT_BYTES;
    cr_assert_eq(truncate(initrd_path, (off_t)room), 0);
    expect_loaded(128 * MIB, initrd_path, NULL);
    cr_assert_eq(guest_params().hdr.ramdisk_image, PREF_GPA + INIT_BYTES);

    cr_assert_eq(truncate(initrd_path, (off_t)room + 1), 0);
    expect_refused(THAW_EIMAGE, "needs 105 MiB, but the guest has only 128 MiB of RAM");
}

Test(boot, initrd_larger_than_any_ram_is_refused)
{
    struct bzimage image = good_bzimage();
    write_file(kernel_path, &image, sizeof(image));
    write_file(initrd_path, "x", 1);
    cr_assert_eq(truncate(initrd_path, (off_t)1 << 42), 0);
    expect_refused(THAW_EIMAGE, "but the guest has only 128 MiB of RAM");
}

Test(boot, elf_segments_lie_at_their_physical_addresses)
{
    struct elf elf = good_elf();
    write_file(kernel_path, &elf, sizeof(elf));
    write_file(initrd_path, "initrd data", 11);
    expect_loaded(16 * MIB, initrd_path, "mode=7");
    expect_guest_bytes(ELF_GPA, elf.data, ELF_DATA_BYTES);
    expect_guest_bytes(ELF_GPA + ELF_DATA_BYTES, (uint8_t[4096]){0}, 4096);
    cr_assert_eq(entry.rip, ELF_GPA + 16);
    struct boot_params params = guest_params();
    cr_assert_eq(params.hdr.ramdisk_image, 16 * MIB - PAGE_BYTES);
    cr_assert_eq(params.hdr.ramdisk_size, 11);
    cr_assert_eq(params.hdr.cmd_line_ptr, MACHINE_CMDLINE_GPA);
    expect_guest_bytes(MACHINE_CMDLINE_GPA, "mode=7", 7);
    cr_assert_eq(params.acpi_rsdp_addr, MACHINE_ACPI_GPA);
}

Test(boot, initrd_of_an_elf_kernel_stays_above_its_bss)
{
    struct elf elf = good_elf();
    elf.segments[0].p_memsz = 13 * MIB;
    write_file(kernel_path, &elf, sizeof(elf));
    write_file(initrd_path, "x", 1);
    cr_assert_eq(truncate(initrd_path, (off_t)MIB), 0);
    expect_loaded(16 * MIB, initrd_path, NULL);
    cr_assert_eq(guest_params().hdr.ramdisk_image, 15 * MIB);
    cr_assert_eq(truncate(initrd_path, (off_t)MIB + 1), 0);
    cr_assert_eq(load(16 * MIB, initrd_path, NULL), THAW_EIMAGE);
}

Test(boot, command_line_of_2047_bytes_fits_and_no_more)
{
    struct bzimage image = good_bzimage();
    char cmdline[2049];
    memset(cmdline, 'a', sizeof(cmdline));
    cmdline[2048] = '\0';
    write_file(kernel_path, &image, sizeof(image));
    cr_assert_eq(load(128 * MIB, NULL, cmdline), -E2BIG);
    cr_assert(strstr(error.message, "2048 bytes"), "%s", error.message);
    cmdline[2047] = '\0';
    expect_loaded(128 * MIB, NULL, cmdline);
    expect_guest_bytes(MACHINE_CMDLINE_GPA, cmdline, 2048);
}

Test(boot, command_line_longer_than_the_kernel_takes_is_refused)
{
    struct bzimage image = good_bzimage();
    image.params.hdr.cmdline_size = 5;
    write_file(kernel_path, &image, sizeof(image));
    cr_assert_eq(load(128 * MIB, NULL, "123456"), -E2BIG);
    cr_assert(strstr(error.message, "at most 5"), "%s", error.message);
}

Test(boot, what_is_written_counts_as_dirty)
{
    struct bzimage image = good_bzimage();
    write_file(kernel_path, &image, sizeof(image));
    write_file(initrd_path, "initrd data", 11);
    expect_loaded(128 * MIB, initrd_path, NULL);
    uint64_t gpas[] = {PREF_GPA, 128 * MIB - PAGE_BYTES, MACHINE_GDT_GPA, MACHINE_BOOT_PARAMS_GPA,
        MACHINE_PAGE_TABLES_GPA, MACHINE_CMDLINE_GPA, MACHINE_ACPI_GPA};
    for (size_t i = 0; i < ARRAY_SIZE(gpas); i++) {
        uint64_t page = gpas[i] / PAGE_BYTES;
        cr_assert(mem.host_dirty[page / 64] >> (page % 64) & 1, "page of 0x%lx", gpas[i]);
    }
}

Test(boot, missing_files_are_named)
{
    expect_refused(-ENOENT, "opening kernel");
    struct bzimage image = good_bzimage();
    write_file(kernel_path, &image, sizeof(image));
    cr_assert_eq(load(128 * MIB, "/nonexistent/initrd", NULL), -ENOENT);
    cr_assert(strstr(error.message, "initrd /nonexistent/initrd"), "%s", error.message);
}

Test(boot, files_that_are_no_kernels_are_refused)
{
    static const uint8_t zeros[8192], gzip[] = {0x1f, 0x8b, 8, 0};
    const char *text = "is not a bzImage or ELF64 executable";
    write_file(kernel_path, "", 0);
    expect_refused(THAW_EIMAGE, text);
    write_file(kernel_path, "\x7f", 1);
    expect_refused(THAW_EIMAGE, text);
    write_file(kernel_path, zeros, sizeof(zeros));
    expect_refused(THAW_EIMAGE, text);
    write_file(kernel_path, gzip, sizeof(gzip));
    expect_refused(THAW_EIMAGE, text);
}

Test(boot, directories_and_pipes_are_refused_without_waiting)
{
    cr_assert_eq(mkfifo(kernel_path, 0600), 0);
    expect_refused(THAW_EIMAGE, "is not a regular file");
    unlink(kernel_path);
    cr_assert_eq(mkdir(kernel_path, 0700), 0);
    expect_refused(THAW_EIMAGE, "is not a regular file");
    rmdir(kernel_path);
}

Test(boot, every_truncation_of_a_bzimage_is_refused)
{
    struct bzimage image = good_bzimage();
    for (size_t bytes = 0; bytes < sizeof(image); bytes += bytes < 1024 ? 61 : 509) {
        write_file(kernel_path, &image, bytes);
        expect_refused(THAW_EIMAGE, bytes < 0x290 ? "is not a bzImage" : "is truncated: header");
    }
}

Test(boot, bzimage_without_64_bit_entry_is_refused)
{
    struct bzimage image = good_bzimage();
    image.params.hdr.version = 0x020b;
    refuse_bzimage(&image, "has boot protocol 2.11; 2.12 or later is needed");
    image = good_bzimage();
    image.params.hdr.xloadflags = 0;
    refuse_bzimage(&image, "has no 64-bit entry point");
    image = good_bzimage();
    image.params.hdr.loadflags = 0;
    refuse_bzimage(&image, "has no 64-bit entry point");
    image = good_bzimage();
    image.params.hdr.syssize = 0x200 / 16;
    refuse_bzimage(&image, "has no code at its 64-bit entry point");
}

Test(boot, bzimage_with_a_malformed_header_is_refused)
{
    struct bzimage image = good_bzimage();
    image.bytes[0x200] = 0x90;
    refuse_bzimage(&image, "malformed setup header");
    image = good_bzimage();
    image.bytes[0x201] = 0x10;
    refuse_bzimage(&image, "malformed setup header");
}

Test(boot, bzimage_that_announces_more_than_the_file_has_is_refused)
{
    struct bzimage image = good_bzimage();
    image.params.hdr.syssize = CODE_BYTES / 16 + 1;
    refuse_bzimage(&image, "is truncated: header announces 8208 bytes, file has 8192");
    image.params.hdr.syssize = UINT32_MAX;
    refuse_bzimage(&image, "is truncated");
    image = good_bzimage();
    image.params.hdr.setup_sects = 255;
    refuse_bzimage(&image, "is truncated");
}

Test(boot, bzimage_that_does_not_fit_into_ram_is_refused)
{
    struct bzimage image = good_bzimage();
    image.params.hdr.init_size = 113 * MIB;
    refuse_bzimage(
        &image, "needs 113 MiB from 0x1000000 on, but the guest has only 128 MiB of RAM");
    image = good_bzimage();
    image.params.hdr.pref_address = UINT64_MAX;
    refuse_bzimage(&image, "but the guest has only 128 MiB of RAM");
    image.params.hdr.pref_address = UINT64_MAX - 4 * MIB;
    refuse_bzimage(&image, "but the guest has only 128 MiB of RAM");
    image.params.hdr.pref_address = 128 * MIB - PAGE_BYTES;
    refuse_bzimage(&image, "but the guest has only 128 MiB of RAM");
}

Test(boot, bzimage_with_an_impossible_address_is_refused)
{
    struct bzimage image = good_bzimage();
    image.params.hdr.kernel_alignment = 0;
    refuse_bzimage(&image, "alignment that is no power of two");
    image.params.hdr.kernel_alignment = 3 * MIB;
    refuse_bzimage(&image, "alignment that is no power of two");
    image = good_bzimage();
    image.params.hdr.relocatable_kernel = 0;
    image.params.hdr.pref_address = 0x7000;
    refuse_bzimage(&image, "below 1 MiB");
}

Test(boot, every_truncation_of_an_elf_is_refused)
{
    struct elf elf = good_elf();
    for (size_t bytes = 4; bytes < sizeof(elf); bytes++) {
        write_file(kernel_path, &elf, bytes);
        expect_refused(THAW_EIMAGE, "is truncated");
    }
}

Test(boot, elf_of_another_kind_is_refused)
{
    struct elf elf = good_elf();
    elf.head.e_ident[EI_CLASS] = ELFCLASS32;
    refuse_elf(&elf, "not for 64-bit x86");
    elf = good_elf();
    elf.head.e_ident[EI_DATA] = ELFDATA2MSB;
    refuse_elf(&elf, "not for 64-bit x86");
    elf = good_elf();
    elf.head.e_machine = EM_AARCH64;
    refuse_elf(&elf, "not for 64-bit x86");
    elf = good_elf();
    elf.head.e_type = ET_DYN;
    refuse_elf(&elf, "ET_EXEC");
}

Test(boot, elf_with_bad_program_headers_is_refused)
{
    struct elf elf = good_elf();
    elf.head.e_phnum = 0;
    refuse_elf(&elf, "has no usable program headers");
    elf = good_elf();
    elf.head.e_phentsize = 32;
    refuse_elf(&elf, "has no usable program headers");
    elf = good_elf();
    elf.head.e_phnum = 65;
    refuse_elf(&elf, "has 65 program headers");
    elf = good_elf();
    elf.head.e_phoff = UINT64_MAX - 8;
    refuse_elf(&elf, "is truncated");
}

Test(boot, elf_segments_beyond_the_file_are_refused)
{
    struct elf elf = good_elf();
    elf.segments[0].p_filesz = ELF_DATA_BYTES + 1;
    refuse_elf(&elf, "is truncated: segment 0");
    elf = good_elf();
    elf.segments[0].p_offset = UINT64_MAX;
    refuse_elf(&elf, "is truncated: segment 0");
    elf = good_elf();
    elf.segments[0].p_memsz = ELF_DATA_BYTES - 1;
    refuse_elf(&elf, "more bytes in the file than in memory");
}

Test(boot, elf_segments_outside_ram_are_refused)
{
    struct elf elf = good_elf();
    elf.segments[0].p_paddr = 0x9000;
    refuse_elf(&elf, "below 1 MiB");
    elf = good_elf();
    elf.segments[0].p_memsz = 127 * MIB;
    refuse_elf(&elf, "but the guest has only 128 MiB of RAM");
    elf.segments[0].p_memsz = UINT64_MAX;
    refuse_elf(&elf, "but the guest has only 128 MiB of RAM");
    elf = good_elf();
    elf.segments[0].p_paddr = UINT64_MAX - 1;
    refuse_elf(&elf, "but the guest has only 128 MiB of RAM");
}

Test(boot, elf_segments_that_overlap_are_refused)
{
    struct elf elf = good_elf();
    elf.segments[1] = elf.segments[0];
    elf.segments[1].p_paddr += 2 * PAGE_BYTES;
    refuse_elf(&elf, "segments 0 and 1 overlap");
    elf.segments[1].p_paddr = ELF_GPA - PAGE_BYTES;
    refuse_elf(&elf, "segments 0 and 1 overlap");
}

Test(boot, elf_entry_outside_its_code_is_refused)
{
    struct elf elf = good_elf();
    elf.head.e_entry = ELF_GPA - 1;
    refuse_elf(&elf, "the entry point 0x1fffff is not in what is loaded");
    elf.head.e_entry = ELF_GPA + ELF_DATA_BYTES; /* .bss */
    refuse_elf(&elf, "is not in what is loaded");
    elf = good_elf();
    elf.segments[0].p_memsz = elf.segments[0].p_filesz = 0;
    refuse_elf(&elf, "is not in what is loaded");
}

Test(boot, empty_initrd_is_refused)
{
    struct bzimage image = good_bzimage();
    write_file(kernel_path, &image, sizeof(image));
    write_file(initrd_path, "", 0);
    expect_refused(THAW_EIMAGE, "is empty");
}
