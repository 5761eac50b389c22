// SPDX-License-Identifier: Apache-2.0
// Row `pause`: how long a guest stands still while it is saved, by how fast it dirties memory, and
// by hand for as many pages.

#include "floor.h"
#include "rows.h"
#include "subject.h"
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define MEM_MIB  1024
#define DATA_MIB 64

static const unsigned rates_mibs[] = {0, 10, 100};

/* A guest that writes 64 MiB again and again, at a rate. With rate 0 it writes nothing: it reads.
 */
struct writer {
    struct recipe recipe;
    struct subject subject;
    char names[2][40];
    unsigned taken;
    uint64_t last_pages; /* of its last diff */
};

struct pause {
    struct writer writers[ARRAY_SIZE(rates_mibs)];
    struct floor_image image;
    uint8_t *ram;
    struct floor_vm vm;
};

struct pause_case {
    struct pause *pause;
    struct writer *writer;
    uint32_t flags;
};

/* The last two are kept: the newest is what the next diff is based on. */
static int forget_old(struct bench *bench, struct writer *writer, struct thaw_error *error)
{
    char *old = writer->names[writer->taken % 2];
    int r = old[0] ? thaw_store_delete(bench->store, old, error) : 0;
    old[0] = '\0';
    return r;
}

static int take(struct bench *bench, struct writer *writer, uint32_t flags,
    struct thaw_snapshot_result *ret, struct thaw_error *error)
{
    int r = forget_old(bench, writer, error);
    char *name = writer->names[writer->taken % 2];
    snprintf(name, sizeof(writer->names[0]), "%.30s-%u", writer->recipe.name, writer->taken);
    const struct thaw_snapshot_options options = {.name = name, .flags = flags};
    if (r == 0)
        r = subject_snapshot(&writer->subject, &options, ret, error);
    if (r < 0)
        name[0] = '\0';
    else
        writer->taken++;
    return r;
}

/* At least one pass of the guest's between two snapshots, and proof that it goes on unharmed. */
static int sample_snapshot(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    const struct pause_case *how = mode->data;
    struct writer *writer = how->writer;
    struct thaw_snapshot_result result;
    int r = thaw_vm_resume(writer->subject.vm, error);
    subject_forget(&writer->subject);
    if (r == 0)
        r = subject_expect(&writer->subject, POSITION_UNKNOWN, NULL, error);
    if (r == 0)
        r = take(bench, writer, how->flags, &result, error);
    /* The others' turn. */
    if (r == 0)
        r = thaw_vm_pause(writer->subject.vm, error);
    if (r < 0)
        return r;
    writer->last_pages = result.pages;
    results_add(&bench->results, row, mode->name, "pause", "us", (double)result.pause_ns / 1e3);
    results_add(
        &bench->results, row, mode->name, "until durable", "us", (double)result.total_ns / 1e3);
    results_add(
        &bench->results, row, mode->name, "changed", "MiB", (double)result.pages / PAGES_PER_MIB);
    return 0;
}

/* State, dirty log, and a copy of as many pages as the last snapshot had to store. */
static int sample_floor_pause(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error)
{
    const struct pause_case *how = mode->data;
    struct pause *pause = how->pause;
    uint64_t pages = MIN(how->writer->last_pages, (uint64_t)DATA_MIB * PAGES_PER_MIB);
    size_t bitmap_bytes = (size_t)MEM_MIB * PAGES_PER_MIB / 8;
    void *bitmap _cleanup_free_ = calloc(1, bitmap_bytes);
    uint8_t *copy _cleanup_free_ = malloc((size_t)DATA_MIB * MIB);
    if (!bitmap || !copy)
        return bench_fail(error, -ENOMEM, "no memory for a copy of guest memory");
    memset(copy, 1, (size_t)DATA_MIB * MIB);
    struct kvm_dirty_log log = {.dirty_bitmap = bitmap};
    struct kvm_clear_dirty_log clear = {
        .num_pages = MEM_MIB * PAGES_PER_MIB, .dirty_bitmap = bitmap};
    const uint8_t *data = pause->ram + ((size_t)MEM_MIB - DATA_MIB) * MIB;
    uint64_t start = now_ns();
    int r = floor_state_save(&pause->vm, pause->image.kvm_fd, &pause->image.state, error);
    if (r == 0 && (ioctl(pause->vm.fd, KVM_GET_DIRTY_LOG, &log) < 0 ||
                      ioctl(pause->vm.fd, KVM_CLEAR_DIRTY_LOG, &clear) < 0))
        r = bench_errno(error, "reading a dirty log by hand");
    memcpy(copy, data, pages * PAGE_BYTES);
    __asm__ volatile("" : : "r"(copy) : "memory"); /* the copy is wanted, though nobody reads it */
    uint64_t ns = now_ns() - start;
    if (r == 0)
        results_add(&bench->results, row, mode->name, "pause", "us", (double)ns / 1e3);
    return r;
}

static int start_writer(
    struct bench *bench, struct writer *writer, unsigned rate, struct thaw_error *error)
{
    char name[40];
    struct thaw_snapshot_result result;
    const struct memtouch_options options = {.mem_mib = MEM_MIB,
        .data_mib = DATA_MIB,
        .ws_mib = rate ? MIN(rate, (unsigned)DATA_MIB) : 1,
        .writes = rate > 0,
        .rate_mibs = rate};
    snprintf(name, sizeof(name), "pause-%u", rate);
    int r = recipe_memtouch(bench, name, &options, &writer->recipe, error);
    if (r == 0)
        r = subject_new(bench, &writer->recipe, &writer->subject, error);
    if (r == 0)
        r = subject_warm_up(&writer->subject, error);
    if (r == 0)
        r = take(bench, writer, 0, &result, error);
    return r < 0 ? r : thaw_vm_pause(writer->subject.vm, error);
}

static int start_floor(struct bench *bench, struct pause *pause, struct thaw_error *error)
{
    int r = floor_image_make(bench, &pause->writers[1].recipe, false, &pause->image, error);
    if (r < 0)
        return r;
    pause->ram = floor_map(NULL, pause->image.bytes, pause->image.memfd);
    if (!pause->ram)
        return bench_errno(error, "mapping memory for a floor");
    madvise(pause->ram + ((size_t)MEM_MIB - DATA_MIB) * MIB, (size_t)DATA_MIB * MIB, MADV_WILLNEED);
    r = floor_vm_open(pause->image.kvm_fd, pause->ram, pause->image.bytes, true, &pause->vm, error);
    return r < 0 ? r : floor_state_restore(&pause->vm, &pause->image.state, error);
}

static int run_modes(
    struct bench *bench, const char *row, struct pause *pause, struct thaw_error *error)
{
    enum {
        RATES = ARRAY_SIZE(rates_mibs)
    };
    struct pause_case cases[2 * RATES];
    struct mode modes[2 * RATES];
    char names[2 * RATES][64];
    const struct rounds rounds = {.samples = 100, .quick_samples = 5, .quick_s = 6};
    for (size_t i = 0; i < RATES; i++) {
        cases[2 * i] = (struct pause_case){pause, &pause->writers[i], THAW_SNAPSHOT_DIFF};
        cases[2 * i + 1] = cases[2 * i];
        snprintf(names[2 * i], sizeof(names[0]), "diff, %u MiB/s", rates_mibs[i]);
        snprintf(names[2 * i + 1], sizeof(names[0]), "floor-pause, %u MiB/s", rates_mibs[i]);
        modes[2 * i] = (struct mode){names[2 * i], sample_snapshot, &cases[2 * i]};
        modes[2 * i + 1] = (struct mode){names[2 * i + 1], sample_floor_pause, &cases[2 * i + 1]};
    }
    return rows_run_modes(bench, row, modes, ARRAY_SIZE(modes), &rounds, error);
}

int row_pause(struct bench *bench, const char *row, struct thaw_error *error)
{
    struct pause *pause = calloc(1, sizeof(*pause));
    int r = pause ? 0 : bench_fail(error, -ENOMEM, "no memory for row %s", row);
    for (size_t i = 0; i < ARRAY_SIZE(rates_mibs) && r == 0; i++)
        r = start_writer(bench, &pause->writers[i], rates_mibs[i], error);
    if (r == 0)
        r = start_floor(bench, pause, error);
    if (r == 0)
        r = run_modes(bench, row, pause, error);
    for (size_t i = 0; pause && i < ARRAY_SIZE(rates_mibs); i++) {
        subject_free(&pause->writers[i].subject);
        for (size_t k = 0; k < 2; k++)
            if (pause->writers[i].names[k][0])
                thaw_store_delete(bench->store, pause->writers[i].names[k], NULL);
    }
    if (pause && pause->vm.run)
        floor_vm_close(&pause->vm);
    if (pause && pause->ram)
        munmap(pause->ram, pause->image.bytes);
    if (pause)
        floor_image_free(&pause->image);
    free(pause);
    return r;
}
