// SPDX-License-Identifier: Apache-2.0
// Saves what a pause has to: all state and the pages of the last round. Stores nothing.

#include "floor_pause.h"
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

static int read_log(struct floor_pause *pause, struct thaw_error *error)
{
    struct kvm_dirty_log log = {.dirty_bitmap = pause->bitmap};
    struct kvm_clear_dirty_log clear = {
        .num_pages = (uint32_t)(pause->image.bytes / PAGE_BYTES), .dirty_bitmap = pause->bitmap};
    if (ioctl(pause->vm.fd, KVM_GET_DIRTY_LOG, &log) < 0 ||
        ioctl(pause->vm.fd, KVM_CLEAR_DIRTY_LOG, &clear) < 0)
        return bench_errno(error, "reading a dirty log by hand");
    return 0;
}

int floor_pause_make(struct bench *bench, const struct recipe *recipe, struct floor_pause *ret,
    struct thaw_error *error)
{
    int r = floor_image_make(bench, recipe, false, &ret->image, error);
    if (r < 0)
        return r;
    ret->pages_max = (uint64_t)recipe->data_mib * PAGES_PER_MIB;
    ret->bitmap = calloc(1, ret->image.bytes / PAGE_BYTES / 8);
    ret->copy = malloc(ret->pages_max * PAGE_BYTES);
    if (!ret->bitmap || !ret->copy)
        return bench_fail(error, -ENOMEM, "no memory for a copy of guest memory");
    memset(ret->copy, 1, ret->pages_max * PAGE_BYTES);
    ret->ram = floor_map(NULL, ret->image.bytes, ret->image.memfd);
    if (!ret->ram)
        return bench_errno(error, "mapping memory for a floor");
    r = floor_vm_open(ret->image.kvm_fd, ret->ram, ret->image.bytes, true, &ret->vm, error);
    if (r == 0)
        r = floor_state_restore(&ret->vm, &ret->image.state, error);
    /* The first reading has every page in it. */
    return r < 0 ? r : read_log(ret, error);
}

/* The data is at the end of memory. */
int floor_pause_run(
    struct floor_pause *pause, uint64_t pages, uint64_t *ret_ns, struct thaw_error *error)
{
    uint64_t bytes = MIN(pages, pause->pages_max) * PAGE_BYTES;
    uint64_t start_ns = now_ns();
    int r = floor_state_save(&pause->vm, pause->image.kvm_fd, &pause->image.state, error);
    if (r == 0)
        r = read_log(pause, error);
    memcpy(pause->copy, pause->ram + pause->image.bytes - bytes, bytes);
    /* The copy is wanted, though nobody reads it. */
    __asm__ volatile("" : : "r"(pause->copy) : "memory");
    *ret_ns = now_ns() - start_ns;
    return r;
}

void floor_pause_free(struct floor_pause *pause)
{
    if (pause->vm.run)
        floor_vm_close(&pause->vm);
    if (pause->ram)
        munmap(pause->ram, pause->image.bytes);
    floor_image_free(&pause->image);
    free(pause->copy);
    free(pause->bitmap);
}
