/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory of a snapshot: which pages, when they are copied, and where their copies are.
 *
 * A page's copy is either in the pack, or in a buffer in RAM from where it gets there later. The
 * last copy of a page is the one that counts.
 */
#ifndef SNAPSHOT_CAPTURE_MEMORY_H
#define SNAPSHOT_CAPTURE_MEMORY_H

#include "capture.h"

struct capture_memory;

/* Allocates all that copying needs. Beside bitmaps that is at most 4 bytes for each page of RAM,
 * and the buffer: at most a quarter of RAM or 256 MiB, whichever is less, but 4 MiB. Without
 * `live`, there is no buffer. */
int capture_memory_new(struct capture *capture, struct thaw_job *job, bool live,
    struct capture_memory **ret, struct thaw_error *error);

/* Gives back what was allocated. NULL is allowed. */
void capture_memory_free(struct capture_memory *memory);

/* Copies memory while the guest runs, until what is left to be copied is little, or does not get
 * less. */
int capture_memory_rounds(struct capture_memory *memory, struct thaw_error *error);

/* Copies the rest. The VM is held and its state is saved, which may write to guest memory. From now
 * on marks count from this instant. */
int capture_memory_rest(struct capture_memory *memory, struct thaw_error *error);

/* Puts what is in the buffer into the pack, and makes the index. The VM may run again. */
int capture_memory_finish(struct capture_memory *memory, struct thaw_error *error);

/* The snapshot has failed: all marks that were taken for it are given back. */
void capture_memory_put_back(struct capture_memory *memory);

#endif
