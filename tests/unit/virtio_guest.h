/* SPDX-License-Identifier: Apache-2.0 */
/* A virtio driver for unit tests: guest memory, a bus, and one queue of the device in slot 0. */
#ifndef TESTS_VIRTIO_GUEST_H
#define TESTS_VIRTIO_GUEST_H

#include "virtio_mmio.h"
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>

#define GUEST_RAM_BYTES (16 * MIB)
#define GUEST_DESC      0x10000u
#define GUEST_AVAIL     0x12000u
#define GUEST_USED      0x14000u
#define GUEST_TABLE     0x18000u  /* for indirect tables */
#define GUEST_DATA      0x100000u /* from here on, free for buffers */

#define GUEST_STATUS_READY                                                                         \
    (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |          \
        VIRTIO_CONFIG_S_DRIVER_OK)

struct guest {
    struct mem mem;
    struct bus bus;
    uint16_t size;
    uint16_t avail_idx;
    uint16_t used_idx; /* taken so far */
};

void guest_init(struct guest *guest);
void guest_fini(struct guest *guest);
struct virtio_env guest_env(struct guest *guest);

/* Registers of slot 0. */
uint32_t guest_read(const struct guest *guest, uint32_t reg);
void guest_write(const struct guest *guest, uint32_t reg, uint32_t value);

/* Resets the device, accepts `features` (and VERSION_1) and sets queue 0 up. */
void guest_start(struct guest *guest, uint64_t features, uint16_t queue_size);
void guest_queue(
    const struct guest *guest, uint16_t size, uint64_t desc, uint64_t avail, uint64_t used);

void *guest_at(const struct guest *guest, uint64_t gpa);
void guest_desc(const struct guest *guest, uint64_t table, unsigned i, uint64_t gpa, uint32_t bytes,
    uint16_t flags, uint16_t next);
/* Publishes a chain; guest_write(VIRTIO_MMIO_QUEUE_NOTIFY) tells the device. */
void guest_offer(struct guest *guest, uint16_t head);
void guest_notify(const struct guest *guest);

/* Takes the next used chain; false if there is none (yet). */
bool guest_take_used(struct guest *guest, uint32_t *ret_head, uint32_t *ret_bytes);
/* Waits for it. */
void guest_wait_used(struct guest *guest, uint32_t *ret_head, uint32_t *ret_bytes);

bool guest_device_is_broken(const struct guest *guest);

#endif
