/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM of thaw's under measurement: runs a recipe's guest through the public API, and keeps what it
 * prints with the instant of the first byte. Fixtures are snapshots of such VMs, made once a run.
 *
 * One thread uses a subject; its console is filled on the vCPU's.
 */
#ifndef BENCH_SUBJECT_H
#define BENCH_SUBJECT_H

#include "recipe.h"
#include <pthread.h>

#define SUBJECT_KEPT_BYTES 512

struct subject {
    const struct bench *bench;
    const struct recipe *recipe;
    thaw_vm *vm;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t more;
    char head[SUBJECT_KEPT_BYTES]; /* the first bytes since the last subject_forget */
    char tail[SUBJECT_KEPT_BYTES]; /* the last ones, in a circle */
    size_t count;                  /* of all */
    uint64_t first_ns;             /* when the first came */
    bool skipping;                 /* until the end of the line */
    bool held;                     /* the guest stands still behind its first record, */
    bool held_first;               /* or behind its first byte */
    uint32_t held_from;            /* where it was before that */
};

/* A new VM, CREATED. */
int subject_new(struct bench *bench, const struct recipe *recipe, struct subject *ret,
    struct thaw_error *error);

/* A VM of the snapshot, PAUSED; from the image, if one is given, else by the reference. */
int subject_restore(struct bench *bench, const struct recipe *recipe, thaw_image *image,
    const struct thaw_restore_options *options, const char *ref, struct subject *ret,
    struct thaw_error *error);

/* The same, RUNNING, and held from its first whole record on (subject_hold). */
int subject_restore_running(struct bench *bench, const struct recipe *recipe, thaw_image *image,
    const struct thaw_restore_options *options, const char *ref, uint32_t from, struct subject *ret,
    struct thaw_error *error);

/* The same, but at first it is held from its first byte on, until subject_let_on. */
int subject_restore_held(struct bench *bench, const struct recipe *recipe, thaw_image *image,
    const struct thaw_restore_options *options, const char *ref, uint32_t from, struct subject *ret,
    struct thaw_error *error);
void subject_let_on(struct subject *subject);

/* Waits for the first byte. */
int subject_await(struct subject *subject, struct thaw_error *error);

void subject_free(struct subject *subject);

/* Waits for the first record of a guest that was at `from` before it printed anything, and checks
 * it. ret_position may be NULL. */
int subject_expect(
    struct subject *subject, uint32_t from, uint32_t *ret_position, struct thaw_error *error);

/* Types on the guest's serial port. Also while it is paused. */
int subject_type(struct subject *subject, const char *text, struct thaw_error *error);

/* Tells a churn what to do (without a newline), and takes the part of its answer behind "churn: ".
 */
int subject_tell(struct subject *subject, const char *what, char *ret_answer, size_t bytes,
    struct thaw_error *error);

/* Before the guest runs: lets it stand still once it has printed its first record, as a guest does
 * that waits for something, and takes no processor from others. subject_free lets it go. */
void subject_hold(struct subject *subject, uint32_t from);

/* Where the guest is. The VM must be paused, and may have forgotten nothing if it is a beat. */
int subject_position(struct subject *subject, uint32_t *ret_position, struct thaw_error *error);

/* Forgets what was printed: the next line is the first. Not while a beat runs, whose records are no
 * lines. */
void subject_forget(struct subject *subject);

/* Takes a snapshot and waits for it. */
int subject_snapshot(struct subject *subject, const struct thaw_snapshot_options *options,
    struct thaw_snapshot_result *ret, struct thaw_error *error);

/* Starts the VM and waits for its first record: then memtouch has touched all of its working set.
 */
int subject_warm_up(struct subject *subject, struct thaw_error *error);

/* --- Fixtures --------------------------------------------------------------------------------- */

struct fixture {
    struct recipe recipe;
    uint32_t position; /* of the guest in the snapshot */
    struct thaw_snapshot_result result;
    thaw_image *image; /* NULL: fixture_open_image was not called */
};

/* A full snapshot, named as the recipe. */
int fixture_make(struct bench *bench, const struct recipe *recipe, struct fixture *ret,
    struct thaw_error *error);

/* Lets a clone of a churn touch its working set in this order, and records it, in a file of
 * *ret_bytes. */
int fixture_record(struct bench *bench, const struct fixture *fixture, unsigned order,
    uint64_t *ret_bytes, struct thaw_error *error);

/* Opens the snapshot as an image that all clones share, and fills it. */
int fixture_open_image(struct bench *bench, struct fixture *fixture, struct thaw_error *error);
void fixture_close_image(struct fixture *fixture);

#endif
