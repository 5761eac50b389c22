// SPDX-License-Identifier: Apache-2.0
// Layout of guest RAM, checked access to it, and which pages this process has written. Does not
// know what an image or a snapshot is.

#include "mem.h"
#include "timing.h"
#include <inttypes.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* Far below where the kernel begins to map, downwards from the stack, or, with an unlimited stack,
 * upwards from a third of the address space; above the shadow of AddressSanitizer. */
#define APART_START (17ull << 40)
#define APART_END   (42ull << 40)
#define APART_ALIGN (GIB)

static size_t dirty_words(const struct mem *mem)
{
    return (size_t)((mem->bytes / PAGE_BYTES + 63) / 64);
}

/* ThreadSanitizer and MemorySanitizer divide up the whole address space, and end a program that
 * maps anything where they do not expect it. They may be the embedding program's. */
extern void __tsan_init(void) __attribute__((weak));
extern void __msan_init(void) __attribute__((weak));

/* Unknown to other processes, and another at each call: what the kernel gave the process at its
 * start, and the time. */
static uint64_t any_number(void)
{
    uint64_t seed = 0;
    const void *given = (const void *)getauxval(AT_RANDOM); /* 16 bytes */
    if (given)
        memcpy(&seed, given, sizeof(seed));
    uint64_t mixed = (seed ^ timing_now_ns()) * 0x9e3779b97f4a7c15u;
    return mixed >> 20;
}

/* At a random place: ranges that are vacant don't show. Kernels before 4.17 take it for a hint.
 * EEXIST: something is there. */
static void *map_apart(uint64_t bytes, int prot, int flags, int fd)
{
    if (__tsan_init || __msan_init) {
        errno = EEXIST;
        return MAP_FAILED;
    }
    uint64_t places = (APART_END - APART_START - bytes) / APART_ALIGN;
    void *at = (void *)(uintptr_t)(APART_START + any_number() % places * APART_ALIGN);
    return mmap(at, bytes, prot, flags | MAP_FIXED_NOREPLACE, fd, 0);
}

/* Apart, or, if that can't be, wherever the kernel finds room. Returns 0 or -errno. */
static int place(struct mem *mem, int prot, int flags, int fd)
{
    flags |= MAP_PRIVATE | MAP_NORESERVE;
    void *base = map_apart(mem->bytes, prot, flags, fd);
    if (base == MAP_FAILED && errno == EEXIST)
        base = mmap(NULL, mem->bytes, prot, flags, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    mem->base = base;
    mem->apart = (uintptr_t)base >= APART_START && (uintptr_t)base + mem->bytes <= APART_END;
    return 0;
}

/* A fork of the embedding program must neither share nor copy a guest's memory. */
static int keep_from_forks(const struct mem *mem)
{
    return madvise(mem->base, mem->bytes, MADV_DONTFORK) < 0 ? -errno : 0;
}

int mem_init_unplaced(struct mem *mem, uint64_t bytes, struct thaw_error *error)
{
    if (bytes < THAW_MEM_MIN_BYTES || bytes > THAW_MEM_MAX_BYTES || !IS_ALIGNED(bytes, MIB))
        return error_set(error, -EINVAL,
            "%" PRIu64 " bytes of RAM: must be whole MiB from %llu MiB to %llu GiB", bytes,
            THAW_MEM_MIN_BYTES >> 20, THAW_MEM_MAX_BYTES >> 30);

    *mem = (struct mem){.bytes = bytes};
    uint64_t low = MIN(bytes, MEM_HOLE_GPA);
    mem->regions[mem->region_count++] = (struct mem_region){.gpa = 0, .bytes = low, .ram_off = 0};
    if (bytes > low)
        mem->regions[mem->region_count++] =
            (struct mem_region){.gpa = MEM_HIGH_GPA, .bytes = bytes - low, .ram_off = low};
    mem->host_dirty = calloc(dirty_words(mem), sizeof(*mem->host_dirty));
    return mem->host_dirty ? 0 : error_errno(error, ENOMEM, "allocating the dirty bitmap");
}

int mem_init(struct mem *mem, uint64_t bytes, struct thaw_error *error)
{
    int r = mem_init_unplaced(mem, bytes, error);
    if (r < 0)
        return r;
    r = place(mem, PROT_NONE, MAP_ANONYMOUS, -1);
    if (r == 0)
        r = keep_from_forks(mem);
    if (r == 0)
        return 0;
    mem_fini(mem);
    return error_errno(error, -r, "reserving %" PRIu64 " MiB of address space", bytes / MIB);
}

void mem_fini(struct mem *mem)
{
    if (mem->base && !mem->vacant)
        munmap(mem->base, mem->bytes);
    free((void *)mem->host_dirty);
    *mem = (struct mem){0};
}

void mem_vacate(struct mem *mem)
{
    if (mem->apart && !mem->vacant)
        mem->vacant = munmap(mem->base, mem->bytes) == 0;
}

/* Puts a mapping behind the whole range. Returns 0 or -errno. */
static int map_all(struct mem *mem, int prot, int flags, int fd)
{
    if (!mem->base) {
        int r = place(mem, prot, flags, fd);
        return r < 0 ? r : keep_from_forks(mem);
    }
    flags |= MAP_PRIVATE | MAP_NORESERVE | (mem->vacant ? MAP_FIXED_NOREPLACE : MAP_FIXED);
    void *got = mmap(mem->base, mem->bytes, prot, flags, fd, 0);
    if (got == MAP_FAILED)
        return -errno;
    if (got != mem->base) {
        munmap(got, mem->bytes); /* an old kernel, which takes the place for a hint */
        return -EEXIST;
    }
    mem->vacant = false;
    return keep_from_forks(mem);
}

int mem_map_anonymous(struct mem *mem, struct thaw_error *error)
{
    int r = map_all(mem, PROT_READ | PROT_WRITE, MAP_ANONYMOUS, -1);
    return r < 0
               ? error_errno(error, -r, "mapping %" PRIu64 " MiB of guest memory", mem->bytes / MIB)
               : 0;
}

int mem_map_view(struct mem *mem, int fd, bool accessible, struct thaw_error *error)
{
    int r = map_all(mem, accessible ? PROT_READ | PROT_WRITE : PROT_NONE, 0, fd);
    return r < 0 ? error_errno(error, -r, "mapping a view of %" PRIu64 " MiB of guest memory",
                       mem->bytes / MIB)
                 : 0;
}

int mem_allow(struct mem *mem, struct thaw_error *error)
{
    if (mprotect(mem->base, mem->bytes, PROT_READ | PROT_WRITE) < 0)
        return error_errno(error, errno, "making guest memory accessible");
    return 0;
}

void mem_forbid(struct mem *mem, uint64_t ram_off, uint64_t bytes)
{
    /* Splitting a mapping can fail; protecting all of it does not. */
    if (mprotect(mem->base + ram_off, bytes, PROT_NONE) < 0)
        mprotect(mem->base, mem->bytes, PROT_NONE);
}

int mem_discard(struct mem *mem, uint64_t ram_off, uint64_t bytes, struct thaw_error *error)
{
    if (madvise(mem->base + ram_off, bytes, MADV_DONTNEED) < 0)
        return error_errno(error, errno, "dropping what a guest wrote to its memory");
    return 0;
}

void mem_put_back(struct mem *mem, uint64_t ram_off, uint64_t bytes, const void *from)
{
    if (from)
        memcpy(mem->base + ram_off, from, bytes);
    else
        memset(mem->base + ram_off, 0, bytes);
}

void mem_forget_dirty(struct mem *mem)
{
    for (size_t i = 0; i < dirty_words(mem); i++)
        if (atomic_load_explicit(&mem->host_dirty[i], memory_order_relaxed))
            atomic_store_explicit(&mem->host_dirty[i], 0, memory_order_relaxed);
}

int mem_unmap(struct mem *mem, struct thaw_error *error)
{
    int r = mem->vacant || !mem->base ? 0 : map_all(mem, PROT_NONE, MAP_ANONYMOUS, -1);
    return r < 0 ? error_errno(
                       error, -r, "unmapping %" PRIu64 " MiB of guest memory", mem->bytes / MIB)
                 : 0;
}

int mem_register(const struct mem *mem, int vm_fd, bool log_dirty, struct thaw_error *error)
{
    for (unsigned i = 0; i < mem->region_count; i++) {
        struct kvm_userspace_memory_region slot = {
            .slot = i,
            .flags = log_dirty ? KVM_MEM_LOG_DIRTY_PAGES : 0,
            .guest_phys_addr = mem->regions[i].gpa,
            .memory_size = mem->regions[i].bytes,
            .userspace_addr = (uintptr_t)mem->base + mem->regions[i].ram_off,
        };
        if (ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
            return error_errno(error, errno, "giving KVM %" PRIu64 " MiB of RAM at 0x%" PRIx64,
                mem->regions[i].bytes / MIB, mem->regions[i].gpa);
    }
    return 0;
}

int mem_offset(const struct mem *mem, uint64_t gpa, uint64_t bytes, uint64_t *ret_ram_off)
{
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct mem_region *region = &mem->regions[i];
        if (gpa >= region->gpa && range_fits(gpa - region->gpa, bytes, region->bytes)) {
            *ret_ram_off = region->ram_off + (gpa - region->gpa);
            return 0;
        }
    }
    return -EFAULT;
}

bool mem_overlaps_ram(const struct mem *mem, uint64_t gpa, uint64_t bytes)
{
    for (unsigned i = 0; i < mem->region_count; i++) {
        const struct mem_region *region = &mem->regions[i];
        if (gpa < region->gpa + region->bytes && (gpa >= region->gpa || bytes > region->gpa - gpa))
            return true;
    }
    return false;
}

int mem_make_present(const struct mem *mem, uint64_t ram_off, uint64_t bytes)
{
    return mem->present && bytes > 0 ? mem->present(mem->present_data, ram_off, bytes) : 0;
}

int mem_hva(const struct mem *mem, uint64_t gpa, uint64_t bytes, void **ret_hva)
{
    uint64_t ram_off;
    int r = mem_offset(mem, gpa, bytes, &ram_off);
    if (r < 0)
        return r;
    r = mem_make_present(mem, ram_off, bytes);
    if (r < 0)
        return r;
    *ret_hva = mem->base + ram_off;
    return 0;
}

int mem_read(const struct mem *mem, uint64_t gpa, void *dst, uint64_t bytes)
{
    void *hva;
    int r = mem_hva(mem, gpa, bytes, &hva);
    if (r == 0)
        memcpy(dst, hva, bytes);
    return r;
}

int mem_write(struct mem *mem, uint64_t gpa, const void *src, uint64_t bytes)
{
    void *hva;
    int r = mem_hva(mem, gpa, bytes, &hva);
    if (r < 0)
        return r;
    memcpy(hva, src, bytes);
    mem_mark_dirty(mem, gpa, bytes);
    return 0;
}

void mem_mark_dirty(struct mem *mem, uint64_t gpa, uint64_t bytes)
{
    uint64_t ram_off;
    if (bytes == 0 || mem_offset(mem, gpa, bytes, &ram_off) < 0)
        return;
    uint64_t last = (ram_off + bytes - 1) >> PAGE_SHIFT;
    for (uint64_t page = ram_off >> PAGE_SHIFT; page <= last; page++) {
        /* Always the full barrier, even where the bit is set already: the collector clears the bit
         * and then copies the page, and must not do both before our bytes are visible. */
        atomic_fetch_or(&mem->host_dirty[page / 64], (uint64_t)1 << (page % 64));
    }
}

void mem_set_presenter(struct mem *mem, mem_present_fn present, void *data)
{
    mem->present = present;
    mem->present_data = data;
}

int mem_copy_page(const struct mem *mem, uint64_t page, void *dst)
{
    int r = mem_make_present(mem, page * PAGE_BYTES, PAGE_BYTES);
    if (r < 0)
        return r;
    /* The guest or a device may be writing: a race by design, which the language does not have, nor
     * sanitizers tolerate. Neither looks into an instruction. */
    const void *src = mem->base + page * PAGE_BYTES;
    size_t bytes = PAGE_BYTES;
    __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(bytes) : : "memory");
    return 0;
}
