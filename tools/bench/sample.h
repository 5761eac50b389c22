/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Samples of restoring that several rows take: by thaw, and by hand. Each runs the guest until it
 * proves that it is the right one, stops it, and adds to the results, in microseconds since the
 * request:
 *
 *   applied       the VM is there with all its state (thaw_restore has returned)
 *   first output  the guest's first byte, taken on its vCPU's thread. beat's is its first exit;
 *                 memtouch's comes when its working set has been touched
 *   cpu           time of all threads, until the guest was checked
 *   read          MiB from storage, which shows whether a cold start was cold
 */
#ifndef BENCH_SAMPLE_H
#define BENCH_SAMPLE_H

#include "floor.h"
#include "rows.h"
#include "subject.h"

struct thaw_case {
    const struct fixture *fixture;
    enum thaw_restore_mode mode;
    bool cold; /* the store's files are not in the page cache */
};

/* mode->data is a struct thaw_case. */
int sample_thaw(
    struct bench *bench, const char *row, const struct mode *mode, struct thaw_error *error);

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

/* What both begin and end with. */
struct meter {
    uint64_t start_ns, cpu_ns, read_bytes;
};

struct meter meter_start(void);
void meter_add(struct bench *bench, const char *row, const char *mode, const struct meter *meter,
    uint64_t applied_ns, uint64_t first_ns);

#endif
