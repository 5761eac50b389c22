// SPDX-License-Identifier: Apache-2.0
// Saves what a pause has to: all state and the pages of the last round. Stores nothing.

#include "floor_pause.h"
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define PIECE_PAGES (64 * PAGES_PER_MIB) /* whose marks are cleared together, if there are any */
#define RUN_US      1000                 /* for which the guest runs before each pause */

static bool any(const uint64_t *bits, uint64_t pages)
{
    for (uint64_t i = 0; i < pages / 64; i++)
        if (bits[i])
            return true;
    return false;
}

static int clear_log(struct floor_pause *pause, struct thaw_error *error)
{
    uint64_t all = pause->image.bytes / PAGE_BYTES;
    for (uint64_t first = 0; first < all; first += PIECE_PAGES) {
        struct kvm_clear_dirty_log clear = {.first_page = first,
            .num_pages = (uint32_t)MIN(all - first, (uint64_t)PIECE_PAGES),
            .dirty_bitmap = pause->bitmap + first / 64};
        if (any(clear.dirty_bitmap, clear.num_pages) &&
            ioctl(pause->vm.fd, KVM_CLEAR_DIRTY_LOG, &clear) < 0)
            return bench_errno(error, "clearing a dirty log by hand");
    }
    return 0;
}

static int read_log(struct floor_pause *pause, struct thaw_error *error)
{
    struct kvm_dirty_log log = {.dirty_bitmap = pause->bitmap};
    if (ioctl(pause->vm.fd, KVM_GET_DIRTY_LOG, &log) < 0)
        return bench_errno(error, "reading a dirty log by hand");
    return 0;
}

/* Its vCPU leaves in memory what it can when it leaves the guest. */
static void *run_guest(void *data)
{
    struct floor_pause *pause = data;
    struct thaw_error ignored;
    bool runs = true;
    pause->vm.run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
    while (runs && !atomic_load(&pause->stop))
        runs = floor_vm_step(&pause->vm);
    pause->failed = !runs || floor_vm_finish_io(&pause->vm, &ignored) < 0;
    atomic_store(&pause->stopped, true);
    return NULL;
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
    if (r == 0)
        r = read_log(ret, error);
    ret->vm.left_regs = true;
    return r < 0 ? r : clear_log(ret, error);
}

static int save(struct floor_pause *pause, uint64_t bytes, struct thaw_error *error)
{
    int r = floor_state_save(&pause->vm, pause->image.kvm_fd, &pause->image.state, error);
    if (r == 0)
        r = read_log(pause, error);
    if (r == 0)
        r = clear_log(pause, error);
    memcpy(pause->copy, pause->ram + pause->image.bytes - bytes, bytes);
    /* The copy is wanted, though nobody reads it. */
    __asm__ volatile("" : : "r"(pause->copy) : "memory");
    return r;
}

/* The data is at the end of memory. The log is in the caches, as where thaw stops a guest. */
int floor_pause_run(
    struct floor_pause *pause, uint64_t pages, uint64_t *ret_ns, struct thaw_error *error)
{
    pthread_t thread;
    uint64_t bytes = MIN(pages, pause->pages_max) * PAGE_BYTES;
    atomic_store(&pause->stop, false);
    atomic_store(&pause->stopped, false);
    if (pthread_create(&thread, NULL, run_guest, pause) != 0)
        return bench_fail(error, -EAGAIN, "starting a thread for a VM by hand");
    usleep(RUN_US);
    int r = read_log(pause, error);
    atomic_store(&pause->stop, true);
    while (!atomic_load(&pause->stopped))
        sched_yield();
    uint64_t start_ns = now_ns();
    if (r == 0)
        r = save(pause, bytes, error);
    *ret_ns = now_ns() - start_ns;
    pthread_join(thread, NULL);
    return r == 0 && pause->failed
               ? bench_fail(error, THAW_EGUEST, "a guest run by hand ended, KVM exit %u",
                     pause->vm.run->exit_reason)
               : r;
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
