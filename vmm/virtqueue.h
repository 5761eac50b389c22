/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Split virtqueues (virtio 1.2, 2.7), the device's side. The guest is not trusted: ring entries and
 * descriptors are copied out of guest memory once, checked, and only the copy is used.
 */
#ifndef VMM_VIRTQUEUE_H
#define VMM_VIRTQUEUE_H

#include "mem.h"

#define VIRTQ_SIZE_MAX     256
#define VIRTQ_SEGMENTS_MAX 256 /* in one chain, those of an indirect table included */

/* What there is to know of a queue: plain data, so that saving it is a copy. */
struct virtqueue {
    bool ready;
    uint16_t size;
    uint16_t next_avail; /* index of the entry of the available ring to take next */
    uint16_t next_used;
    uint64_t desc_gpa;
    uint64_t avail_gpa;
    uint64_t used_gpa;
};

struct virtq_segment {
    uint64_t gpa;
    uint32_t bytes; /* never 0 */
};

/* One request of the driver: first what the device reads, then what it may write. Every segment lay
 * in RAM when it was checked. */
struct virtq_chain {
    uint16_t head;
    uint16_t readable; /* segments[0 .. readable) */
    uint16_t writable; /* segments[readable .. readable + writable) */
    uint64_t readable_bytes;
    uint64_t writable_bytes;
    struct virtq_segment segments[VIRTQ_SEGMENTS_MAX];
};

/* Whether size and addresses make sense: 0; -EINVAL if size is not a power of two up to size_max or
 * an address is not aligned as 2.7 asks; -EFAULT if a ring is not in RAM. */
int virtq_check(const struct virtqueue *queue, const struct mem *mem, uint16_t size_max);

/* Takes the next available chain. Returns 1; 0 if there is none; -EPROTO if the rings or the chain
 * are malformed, or the error of guest memory: the queue is unusable then until it is set up again.
 * Descriptors of no bytes are skipped. */
int virtq_pop(struct virtqueue *queue, const struct mem *mem, struct virtq_chain *ret);

/* Reads the chain that starts at descriptor `head`, for a request that was taken before the VM was
 * saved. 0, or like virtq_pop. */
int virtq_read_chain(
    const struct virtqueue *queue, const struct mem *mem, uint16_t head, struct virtq_chain *ret);

/* Gives a chain back, of which the device wrote the first `written` writable bytes. Everything that
 * was written to guest memory before is visible to a driver that sees it. Returns 1 if the driver
 * wants an interrupt, 0 if not, or the error of guest memory. */
int virtq_push(struct virtqueue *queue, struct mem *mem, uint16_t head, uint32_t written);

/* Copies up to `bytes` bytes from the readable part, starting `offset` bytes into it. Returns how
 * many there were, or the error of guest memory. */
int64_t virtq_chain_read(const struct virtq_chain *chain, const struct mem *mem, uint64_t offset,
    void *dst, uint64_t bytes);

/* The same for writing to the writable part. */
int64_t virtq_chain_write(const struct virtq_chain *chain, struct mem *mem, uint64_t offset,
    const void *src, uint64_t bytes);

#endif
