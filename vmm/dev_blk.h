/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-blk (virtio 1.2, 5.2) on a struct disk. Data moves between file and guest memory directly.
 *
 * Pausing: blk_pause on every disk, then io_drain, and then nothing of a request is under way.
 * Requests that met a full host file system are parked: they are part of the saved state, and are
 * tried again by blk_resume, also in a VM that was restored from that state.
 *
 * What only the io thread touches is without a lock; the rest is under the transport's.
 */
#ifndef VMM_DEV_BLK_H
#define VMM_DEV_BLK_H

#include "disk.h"
#include "virtio_mmio.h"

#define BLK_QUEUE_SIZE        128
#define BLK_SEGMENTS_MAX      126 /* of data; with header and status they fill the queue */
#define BLK_SEGMENT_BYTES_MAX (256 * KIB)
#define BLK_REQUEST_BYTES_MAX (32 * MIB) /* more than a driver that keeps to these comes to */
#define BLK_ID_BYTES          20

struct blk;

struct blk_env {
    struct virtio_env virtio;
    struct io *io;             /* is started */
    struct disk *disk;         /* the device's from here on, if blk_new succeeds */
    char id[BLK_ID_BYTES + 1]; /* what the guest sees as the serial number */
    /* The host has no room for the overlay and a request was parked; called when the first one is
     * since blk_resume. On the io thread with no lock held: it must not block nor call blk_* or
     * io_drain. NULL: nobody wants to know. */
    void (*full)(void *data);
    void *full_data;
};

/* Plain data. */
struct blk_state {
    struct virtio_mmio_state virtio;
    uint32_t parked_count;
    uint16_t parked[BLK_QUEUE_SIZE]; /* heads of chains that were taken and not yet answered */
};

/* Makes the device, as after power-on or as `state` (NULL: none) says. It takes no requests until
 * blk_resume. */
int blk_new(const struct blk_env *env, const struct blk_state *state, struct blk **ret,
    struct thaw_error *error);

/* Frees the device and its disk. No vCPU runs; waits for what is in flight. NULL is allowed. */
void blk_free(struct blk *blk);

/* Stops taking requests, at once. Any thread but the io thread. */
void blk_pause(struct blk *blk);

/* Takes requests (again): tells KVM the interrupt level, retries parked requests, and looks for
 * what the guest made available meanwhile. After the interrupt controllers are set, before vCPUs
 * run. */
void blk_resume(struct blk *blk);

/* The device is paused and the engine was drained. */
void blk_save(struct blk *blk, struct blk_state *ret);

/* Puts the device back into a state that it was made with. It is paused and the engine was drained.
 */
void blk_reset(struct blk *blk, const struct blk_state *state);

struct disk *blk_disk(const struct blk *blk);

#endif
