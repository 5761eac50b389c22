/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Samples of restoring that several rows take: by thaw, and by hand. Each runs the guest until it
 * proves that it is the right one, holds it there, and adds to the results, in microseconds since
 * the request:
 *
 *   applied       the VM is there with all its state (thaw_restore has returned)
 *   first run     its vCPU is about to enter the guest
 *   first exit    the guest made KVM return for the first time
 *   first output  the guest's first byte, taken on its vCPU's thread
 *   touched       the guest has been through its working set: memtouch and churn print then
 *   cpu           time of all threads, until the guest was checked
 *   read          MiB from storage, which shows whether a cold start was cold
 *   phase: ...    what each step took; the plot of phases is made of these
 *
 * A churn is told with each request to touch its working set in an order of its own.
 */
#ifndef BENCH_SAMPLE_H
#define BENCH_SAMPLE_H

#include "floor.h"
#include "rows.h"
#include "subject.h"

struct thaw_case {
    const struct fixture *fixture;
    enum thaw_restore_mode mode;
    bool cold;              /* the store's files are not in the page cache */
    bool image;             /* from the fixture's image, which is open and complete */
    uint32_t flags;         /* THAW_RESTORE_* */
    bool working_set;       /* what became of the recorded one is added to the results */
    struct thaw_pool *pool; /* into a VM of this pool, which is settled before; NULL: a new one */
};

/* mode->data is a struct thaw_case. */
int sample_thaw(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error);

/* The same, but the VM is left to the caller, held, to be freed when that disturbs nobody. */
int sample_thaw_keep(struct bench *bench, const char *row, const char *mode,
    const struct thaw_case *how, struct subject *ret, struct thaw_error *error);

enum floor_kind {
    FLOOR_NEW,   /* a VM from nothing, its memory a view of a memfd */
    FLOOR_SHELL, /* the VM is there already, without memory and state */
    FLOOR_RAW,   /* from nothing, its memory a view of an uncompressed file */
};

struct floor_case {
    const struct floor_image *image;
    const struct recipe *recipe;
    enum floor_kind kind;
    bool cold; /* FLOOR_RAW: the file is not in the page cache */
};

/* mode->data is a struct floor_case. */
int sample_floor(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error);

/* floor-shell, with a shell that floor_shell_make made. It stays the caller's. */
int sample_floor_shell(struct bench *bench, const char *row, const char *mode,
    const struct floor_case *how, struct floor_vm *shell, struct thaw_error *error);

/* The seed to record with; those of all orders that are measured are larger. */
#define ORDER_RECORDED 1

/* What a churn is told, and where it is then; of another guest, nothing, and POSITION_UNKNOWN. */
struct order {
    char text[24]; /* empty: nothing */
    uint32_t position;
};

struct order order_next(struct bench *bench, const struct recipe *recipe);

/* --- What both note --------------------------------------------------------------------------- */

/* Instants; 0: not known. */
struct timeline {
    uint64_t start_ns;
    uint64_t opened_ns, shell_ns, memory_ns, state_ns;
    uint64_t run_ns, exit_ns, output_ns;
    uint64_t cpu_ns, read_bytes; /* at the start */
};

struct timeline timeline_start(void);
void timeline_add(struct bench *bench, const char *row, const char *mode,
    const struct recipe *recipe, const struct timeline *timeline);

#endif
