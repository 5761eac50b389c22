// SPDX-License-Identifier: Apache-2.0
// Boots a guest in a VM made by hand, runs it until it prints, and keeps its memory and state.
// 64-bit boot protocol with no more than the small guests look at.

#include "floor.h"
#include "scratch.h"
#include <asm/bootparam.h>
#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define BOOT_PARAMS_GPA 0x7000
#define PML4_GPA        0x9000
#define PDPT_GPA        0xa000
#define PD_GPA          0xb000
#define CMDLINE_GPA     0x20000
#define KERNEL_END_GPA  0x400000
#define LOW_RAM_END_GPA 0x9fc00
#define HOLE_GPA        0xc0000000u
#define SEGMENTS_MAX    16
#define VACANT_START    (43ull << 40)
#define VACANT_STEP     (16ull << 30)
#define VACANT_RANGES   64

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

uint8_t *floor_map(uint8_t *at, uint64_t bytes, int fd)
{
    int flags = MAP_PRIVATE | MAP_NORESERVE | (at ? MAP_FIXED : 0);
    void *got = mmap(at, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    return got == MAP_FAILED ? NULL : got;
}

/* --- Booting ---------------------------------------------------------------------------------- */

static int read_at(int fd, uint64_t off, void *to, uint64_t bytes)
{
    for (uint64_t done = 0; done < bytes;) {
        ssize_t n = pread(fd, (char *)to + done, bytes - done, (off_t)(off + done));
        if (n <= 0)
            return -1;
        done += (uint64_t)n;
    }
    return 0;
}

static int load_elf(uint8_t *ram, const char *path, uint64_t *ret_entry, struct thaw_error *error)
{
    Elf64_Ehdr header;
    Elf64_Phdr segments[SEGMENTS_MAX];
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read_at(fd, 0, &header, sizeof(header)) < 0 || header.e_phnum > SEGMENTS_MAX ||
        read_at(fd, header.e_phoff, segments, header.e_phnum * sizeof(segments[0])) < 0)
        return bench_errno(error, "reading %s", path);
    for (unsigned i = 0; i < header.e_phnum; i++) {
        const Elf64_Phdr *segment = &segments[i];
        if (segment->p_type != PT_LOAD)
            continue;
        if (segment->p_paddr + segment->p_memsz > KERNEL_END_GPA ||
            read_at(fd, segment->p_offset, ram + segment->p_paddr, segment->p_filesz) < 0)
            return bench_errno(error, "loading %s", path);
    }
    *ret_entry = header.e_entry;
    return 0;
}

static int load_initrd(uint8_t *ram, uint64_t low, const char *path, struct boot_params *params,
    struct thaw_error *error)
{
    struct stat st;
    _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return bench_errno(error, "opening %s", path);
    uint64_t gpa = (low - (uint64_t)st.st_size) / PAGE_BYTES * PAGE_BYTES;
    if ((uint64_t)st.st_size > low - KERNEL_END_GPA ||
        read_at(fd, 0, ram + gpa, (uint64_t)st.st_size) < 0)
        return bench_fail(error, -ENOSPC, "%s does not fit the guest", path);
    params->hdr.ramdisk_image = (uint32_t)gpa;
    params->hdr.ramdisk_size = (uint32_t)st.st_size;
    return 0;
}

static void write_tables(uint8_t *ram)
{
    uint64_t *pml4 = (uint64_t *)(void *)(ram + PML4_GPA);
    uint64_t *pdpt = (uint64_t *)(void *)(ram + PDPT_GPA);
    uint64_t *pd = (uint64_t *)(void *)(ram + PD_GPA);
    pml4[0] = PDPT_GPA | 3;
    pdpt[0] = PD_GPA | 3;
    for (uint64_t i = 0; i < 512; i++)
        pd[i] = i << 21 | 0x83;
}

static int load(uint8_t *ram, uint64_t bytes, const struct recipe *recipe, uint64_t *ret_entry,
    struct thaw_error *error)
{
    struct boot_params params = {.e820_entries = 2};
    uint64_t low = MIN(bytes, (uint64_t)HOLE_GPA);
    params.e820_table[0] = (struct boot_e820_entry){.addr = 0, .size = LOW_RAM_END_GPA, .type = 1};
    params.e820_table[1] =
        (struct boot_e820_entry){.addr = 0x100000, .size = low - 0x100000, .type = 1};
    params.hdr.cmd_line_ptr = CMDLINE_GPA;
    memcpy(ram + CMDLINE_GPA, recipe->cmdline, sizeof(recipe->cmdline));
    write_tables(ram);
    int r = load_elf(ram, recipe->kernel, ret_entry, error);
    if (r == 0 && recipe->initrd[0])
        r = load_initrd(ram, low, recipe->initrd, &params, error);
    memcpy(ram + BOOT_PARAMS_GPA, &params, sizeof(params));
    return r;
}

static int set_first_registers(const struct floor_vm *vm, int kvm_fd, uint64_t entry)
{
    static struct {
        struct kvm_cpuid2 head;
        struct kvm_cpuid_entry2 entries[FLOOR_CPUID_MAX];
    } cpuid;
    struct kvm_sregs sregs;
    struct kvm_segment data = {
        .limit = UINT32_MAX, .selector = 0x18, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
    struct kvm_segment code = data;
    struct kvm_regs regs = {.rip = entry, .rsi = BOOT_PARAMS_GPA, .rflags = 2};
    code.selector = 0x10;
    code.type = 11;
    code.db = 0;
    code.l = 1;
    cpuid.head.nent = FLOOR_CPUID_MAX;
    if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, &cpuid) < 0 ||
        ioctl(vm->vcpu_fd, KVM_SET_CPUID2, &cpuid) < 0 ||
        ioctl(vm->vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
        return -1;
    sregs.cs = code;
    sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = data;
    sregs.cr0 |= 0x80000001;
    sregs.cr3 = PML4_GPA;
    sregs.cr4 |= 0x20;
    sregs.efer |= 0x500;
    return ioctl(vm->vcpu_fd, KVM_SET_SREGS, &sregs) < 0 ||
                   ioctl(vm->vcpu_fd, KVM_SET_REGS, &regs) < 0
               ? -1
               : 0;
}

/* --- Saving ----------------------------------------------------------------------------------- */

static int run_and_save(struct bench *bench, const struct recipe *recipe, uint8_t *ram,
    struct floor_image *image, struct thaw_error *error)
{
    struct floor_vm vm;
    struct floor_ran ran;
    uint64_t entry = 0;
    int r = load(ram, image->bytes, recipe, &entry, error);
    if (r == 0)
        r = floor_vm_open(image->kvm_fd, ram, image->bytes, false, &vm, error);
    if (r < 0)
        return r;
    if (set_first_registers(&vm, image->kvm_fd, entry) < 0)
        r = bench_errno(error, "setting up a VM by hand");
    if (r == 0)
        r = floor_vm_run(&vm, bench, recipe, 0, &ran, error);
    if (r == 0) {
        image->position = ran.position;
        r = floor_vm_finish_io(&vm, error);
    }
    if (r == 0)
        r = floor_state_save(&vm, image->kvm_fd, &image->state, error);
    floor_vm_close(&vm);
    return r;
}

/* Holes stay holes. */
static int write_raw(const struct floor_image *image, const uint8_t *ram, struct thaw_error *error)
{
    _cleanup_close_ int fd = open(image->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)image->bytes) < 0)
        return bench_errno(error, "making %s", image->path);
    off_t end = 0;
    for (off_t at; (at = lseek(image->memfd, end, SEEK_DATA)) >= 0;) {
        end = lseek(image->memfd, at, SEEK_HOLE);
        while (at < end) {
            ssize_t n = pwrite(fd, ram + at, (size_t)(end - at), at);
            if (n <= 0)
                return bench_errno(error, "writing %s", image->path);
            at += n;
        }
    }
    return fsync(fd) < 0 ? bench_errno(error, "writing %s", image->path) : 0;
}

static int write_state(const struct floor_image *image, struct thaw_error *error)
{
    _cleanup_close_ int fd =
        open(image->state_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, &image->state, sizeof(image->state)) != sizeof(image->state))
        return bench_errno(error, "writing %s", image->state_path);
    return 0;
}

static int write_files(const struct bench *bench, const struct recipe *recipe, const void *ram,
    struct floor_image *image, struct thaw_error *error)
{
    char name[64];
    snprintf(name, sizeof(name), "%s.raw", recipe->name);
    int r = scratch_path(bench, name, image->path, sizeof(image->path), error);
    snprintf(name, sizeof(name), "%s.state", recipe->name);
    if (r == 0)
        r = scratch_path(bench, name, image->state_path, sizeof(image->state_path), error);
    if (r == 0)
        r = write_raw(image, ram, error);
    return r < 0 ? r : write_state(image, error);
}

static int shorten(struct floor_image *image, uint8_t *ram, struct thaw_error *error)
{
    struct floor_vm vm;
    int r = floor_vm_open(image->kvm_fd, ram, image->bytes, false, &vm, error);
    if (r == 0)
        r = floor_state_shorten(&image->state, &vm, image->kvm_fd, error);
    floor_vm_close(&vm);
    return r;
}

int floor_image_make(struct bench *bench, const struct recipe *recipe, bool raw_file,
    struct floor_image *ret, struct thaw_error *error)
{
    memset(ret, 0, sizeof(*ret));
    ret->bytes = (uint64_t)recipe->mem_mib * MIB;
    ret->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    ret->memfd = memfd_create("thaw-bench", MFD_CLOEXEC);
    if (ret->kvm_fd < 0 || ret->memfd < 0 || ftruncate(ret->memfd, (off_t)ret->bytes) < 0)
        return bench_errno(error, "making memory for a floor");
    void *ram =
        mmap(NULL, ret->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, ret->memfd, 0);
    if (ram == MAP_FAILED)
        return bench_errno(error, "mapping memory for a floor");
    int r = run_and_save(bench, recipe, ram, ret, error);
    if (r == 0)
        r = shorten(ret, ram, error);
    if (r == 0 && raw_file)
        r = write_files(bench, recipe, ram, ret, error);
    munmap(ram, ret->bytes);
    return r;
}

void floor_image_free(struct floor_image *image)
{
    if (image->path[0])
        unlink(image->path);
    if (image->state_path[0])
        unlink(image->state_path);
    if (image->memfd > 0)
        close(image->memfd);
    if (image->kvm_fd > 0)
        close(image->kvm_fd);
    memset(image, 0, sizeof(*image));
}

/* --- Shells ----------------------------------------------------------------------------------- */

/* Where nothing else is mapped. Mapping over a range that KVM knows would make it look through all
 * of it, so the range is left vacant until then; not with ThreadSanitizer, which divides up the
 * whole address space. */
static void *find_vacant_range(uint64_t bytes)
{
#ifdef __SANITIZE_THREAD__
    void *kept = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return kept == MAP_FAILED ? NULL : kept;
#endif
    static unsigned used;
    for (unsigned i = 0; i < VACANT_RANGES; i++) {
        uintptr_t place = VACANT_START + (uintptr_t)(used++ % VACANT_RANGES) * VACANT_STEP;
        void *at = mmap((void *)place, bytes, PROT_NONE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
        if (at == MAP_FAILED)
            continue;
        munmap(at, bytes);
        if ((uintptr_t)at == place)
            return at;
    }
    return NULL;
}

int floor_shell_make(
    const struct floor_image *image, struct floor_vm *ret, struct thaw_error *error)
{
    void *ram = find_vacant_range(image->bytes);
    if (!ram)
        return bench_errno(error, "finding memory for a floor");
    int r = floor_vm_open(image->kvm_fd, ram, image->bytes, false, ret, error);
    return r < 0 ? r : floor_vm_set_cpuid(ret, &image->state, error);
}

void floor_shell_free(struct floor_vm *shell)
{
    void *ram = shell->ram;
    size_t bytes = shell->ram_bytes;
    floor_vm_close(shell);
    if (ram)
        munmap(ram, bytes);
}
