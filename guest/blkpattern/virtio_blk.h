// SPDX-License-Identifier: Apache-2.0
// A polling driver for one virtio-mmio (version 2) block device, with several requests in flight.
// Takes no interrupts and no memory but its own; its mistakes and the device's end the guest.
#ifndef GUEST_VIRTIO_BLK_H
#define GUEST_VIRTIO_BLK_H

#include <stdbool.h>
#include <stdint.h>

#define BLK_SLOTS        8 /* requests that can be in flight */
#define BLK_SECTOR_BYTES 512u

enum blk_request {
    BLK_READ = 0,
    BLK_WRITE = 1,
    BLK_FLUSH = 4,
};

enum blk_status {
    BLK_OK = 0,
    BLK_IOERR = 1,
    BLK_UNSUPP = 2,
};

struct blk {
    uintptr_t gpa; /* of the device's registers */
    uint64_t capacity_sectors;
    bool read_only, has_flush;
    uint16_t submitted, reaped;
};

/* Finds the block device number `index` and gets it ready. Looks at the devices that the command
 * line names (virtio_mmio.device=SIZE@ADDRESS:IRQ), or else at thaw's 16 slots from 0xd0000000. */
void blk_open(struct blk *d, const char *cmdline, uint64_t index);

/* Puts a request into free slot `slot`. `data` stays the device's until the request is reaped. The
 * device is only told by blk_kick(), so that several requests can share one notification. */
void blk_submit(struct blk *d, unsigned int slot, enum blk_request type, uint64_t sector,
    void *data, uint32_t bytes);
void blk_kick(struct blk *d);

/* Waits, without a limit, for any request to complete; returns its slot. */
unsigned int blk_reap(struct blk *d, enum blk_status *ret_status);

/* One request by itself: none may be in flight. */
enum blk_status blk_do(
    struct blk *d, enum blk_request type, uint64_t sector, void *data, uint32_t bytes);

#endif
