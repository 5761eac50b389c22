/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtio transport over MMIO, version 2 (virtio 1.2, 4.2): registers, feature negotiation,
 * interrupt line. What a device does is behind struct virtio_ops.
 *
 * Threads: registers on vCPU threads, completions on the io thread, save and resume on the owner's.
 * `lock` guards everything in struct virtio_mmio and, as the device sees fit, the device's own
 * state. Lock order: `lock`, then what is inside guest memory, the I/O engine and KVM.
 */
#ifndef VMM_VIRTIO_MMIO_H
#define VMM_VIRTIO_MMIO_H

#include "bus.h"
#include "irq.h"
#include "virtqueue.h"
#include <pthread.h>

#define VIRTIO_QUEUES_MAX 8

/* What every virtio device is made with. */
struct virtio_env {
    struct mem *mem;
    struct bus *mmio; /* the device claims the range of its slot */
    int vm_fd;        /* -1: no interrupts (unit tests) */
    unsigned slot;    /* 0 to MACHINE_VIRTIO_SLOTS - 1: address and interrupt line follow from it */
};

/* The guest-visible state: plain data. */
struct virtio_mmio_state {
    uint32_t status;
    uint32_t interrupt_status;
    uint32_t device_features_sel;
    uint32_t driver_features_sel;
    uint32_t queue_sel;
    uint32_t queue_count;
    uint64_t driver_features;
    struct virtqueue queues[VIRTIO_QUEUES_MAX];
};

/* The device's side. Every function is called with the lock held. */
struct virtio_ops {
    /* Configuration space. `offset + bytes` may lie beyond it. NULL write: read-only. */
    void (*read_config)(void *device, uint32_t offset, uint8_t *data, unsigned bytes);
    void (*write_config)(void *device, uint32_t offset, const uint8_t *data, unsigned bytes);
    /* The driver says that it put something in a queue; driver and queue are ready. On a vCPU. */
    void (*notify)(void *device, unsigned queue);
    /* The driver resets the device or takes a queue away: returns when no request is in flight and
     * guest memory is not touched any more; completions are dropped. May release the lock while it
     * waits, but not for the engine to become idle. On a vCPU. NULL: nothing is ever in flight. */
    void (*stop)(void *device);
};

struct virtio_device_info {
    const char *name; /* outlives the device */
    uint32_t device_id;
    uint64_t features; /* the device's; the transport adds VERSION_1 and RING_INDIRECT_DESC */
    uint16_t queue_count;
    uint16_t queue_size_max; /* a power of two up to VIRTQ_SIZE_MAX */
    const struct virtio_ops *ops;
    void *device;
};

/* Embedded in each device. */
struct virtio_mmio {
    struct virtio_device_info info;
    struct mem *mem;
    pthread_mutex_t lock; /* guards what follows */
    struct irq_line irq;
    bool stopping; /* ops->stop waits: register writes are ignored */
    struct virtio_mmio_state state;
};

/* Sets the transport up, as after power-on or as `state` (NULL: none) says, and claims its range on
 * the bus. A state that no guest could have brought about is refused with THAW_ECORRUPT. */
int virtio_mmio_init(struct virtio_mmio *virtio, const struct virtio_env *env,
    const struct virtio_device_info *info, const struct virtio_mmio_state *state,
    struct thaw_error *error);
/* No vCPU runs any more. */
void virtio_mmio_fini(struct virtio_mmio *virtio);

/* Puts a device that is still back into a state that it was made with. KVM is told the interrupt
 * level by virtio_mmio_sync_irq. */
void virtio_mmio_reset(struct virtio_mmio *virtio, const struct virtio_mmio_state *state);
void virtio_mmio_reset_locked(struct virtio_mmio *virtio, const struct virtio_mmio_state *state);

/* The state, consistent if no vCPU runs and nothing is in flight. Takes the lock. */
void virtio_mmio_save(struct virtio_mmio *virtio, struct virtio_mmio_state *ret);

/* Tells KVM the level of the interrupt line again. Takes the lock. The owner's thread, before vCPUs
 * run on. */
void virtio_mmio_sync_irq(struct virtio_mmio *virtio);

/* Whether the device may use this queue: DRIVER_OK, ready, and not broken. */
bool virtio_mmio_queue_live_locked(const struct virtio_mmio *virtio, unsigned queue);

/* virtq_pop and virtq_push on a queue that is live; the device is marked broken if they fail, and
 * virtio_mmio_push_locked raises the interrupt if the driver wants it. pop returns 1, 0 or
 * -errno. */
int virtio_mmio_pop_locked(struct virtio_mmio *virtio, unsigned queue, struct virtq_chain *ret);
void virtio_mmio_push_locked(
    struct virtio_mmio *virtio, unsigned queue, uint16_t head, uint32_t written);

/* The driver did what the device can't go on from: sets DEVICE_NEEDS_RESET and says so by a
 * configuration interrupt (2.1.2). Queues are not live until the driver resets the device. */
void virtio_mmio_break_locked(struct virtio_mmio *virtio);

#endif
