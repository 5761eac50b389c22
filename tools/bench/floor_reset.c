// SPDX-License-Identifier: Apache-2.0
// Puts a VM back to its image by one scan and as many copies as there are runs of private pages.
// Needs Linux 6.7.

#include "floor_reset.h"
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define RUNS_MAX 4096

/* Headers before Linux 6.7 do not have these. */
#ifndef PAGEMAP_SCAN
struct page_region {
    uint64_t start, end, categories;
};

struct pm_scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define PAGEMAP_SCAN    _IOWR('f', 16, struct pm_scan_arg)
#define PAGE_IS_FILE    (1 << 2)
#define PAGE_IS_PRESENT (1 << 3)
#define PAGE_IS_SWAPPED (1 << 4)
#define PAGE_IS_PFNZERO (1 << 5)
#endif

int floor_reset_make(struct bench *bench, const struct recipe *recipe, struct floor_reset *ret,
    struct thaw_error *error)
{
    int r = floor_image_make(bench, recipe, false, &ret->image, error);
    if (r < 0)
        return r;
    void *pristine =
        mmap(NULL, ret->image.bytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, ret->image.memfd, 0);
    if (pristine == MAP_FAILED)
        return bench_errno(error, "mapping memory for a floor");
    ret->pristine = pristine;
    r = floor_shell_make(&ret->image, &ret->vm, error);
    if (r == 0 && !floor_map(ret->vm.ram, ret->vm.ram_bytes, ret->image.memfd))
        r = bench_errno(error, "mapping memory for a floor");
    return r < 0 ? r : floor_state_restore(&ret->vm, &ret->image.state, error);
}

void floor_reset_free(struct floor_reset *reset)
{
    if (reset->vm.run)
        floor_shell_free(&reset->vm);
    if (reset->pristine)
        munmap((void *)(uintptr_t)reset->pristine, reset->image.bytes);
    floor_image_free(&reset->image);
}

/* A page of a private view that is no page of the file any more. */
static int scan(const struct floor_vm *vm, int pagemap, struct page_region *ret)
{
    struct pm_scan_arg arg = {
        .size = sizeof(arg),
        .start = (uintptr_t)vm->ram,
        .end = (uintptr_t)vm->ram + vm->ram_bytes,
        .vec = (uintptr_t)ret,
        .vec_len = RUNS_MAX,
        .category_inverted = PAGE_IS_FILE | PAGE_IS_PFNZERO,
        .category_mask = PAGE_IS_FILE | PAGE_IS_PFNZERO,
        .category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
    };
    return ioctl(pagemap, PAGEMAP_SCAN, &arg);
}

int floor_reset_run(
    struct floor_reset *reset, struct floor_reset_result *ret, struct thaw_error *error)
{
    static struct page_region runs[RUNS_MAX];
    _cleanup_close_ int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0)
        return bench_errno(error, "opening the page map");
    uint64_t start_ns = now_ns(), bytes = 0;
    int count = scan(&reset->vm, pagemap, runs);
    if (count < 0)
        return bench_errno(error, "scanning for private pages");
    for (int i = 0; i < count; i++) {
        uint64_t offset = runs[i].start - (uintptr_t)reset->vm.ram;
        uint64_t run_bytes = runs[i].end - runs[i].start;
        memcpy(reset->vm.ram + offset, reset->pristine + offset, run_bytes);
        bytes += run_bytes;
    }
    uint64_t memory_ns = now_ns() - start_ns;
    int r = floor_state_restore(&reset->vm, &reset->image.state, error);
    *ret = (struct floor_reset_result){now_ns() - start_ns, memory_ns, bytes / PAGE_BYTES};
    return r;
}
