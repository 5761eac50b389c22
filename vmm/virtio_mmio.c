// SPDX-License-Identifier: Apache-2.0
// Registers, feature negotiation and interrupt of virtio devices on MMIO.
// Does not know what a device is for.

#include "virtio_mmio.h"
#include "machine.h"
#include <endian.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <string.h>

#define VIRTIO_MAGIC          0x74726976 /* "virt" */
#define VIRTIO_VENDOR         0x57414854 /* "THAW" */
#define VIRTIO_LAYOUT_VERSION 2

#define STATUS_DRIVER_BITS                                                                         \
    (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_DRIVER_OK |            \
        VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_FAILED)
#define STATUS_BITS    (STATUS_DRIVER_BITS | VIRTIO_CONFIG_S_NEEDS_RESET)
#define INTERRUPT_BITS (VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG)

static bool has_status(const struct virtio_mmio *virtio, uint32_t bits)
{
    return (virtio->state.status & bits) == bits;
}

static void set_interrupts_locked(struct virtio_mmio *virtio, uint32_t pending)
{
    virtio->state.interrupt_status = pending;
    irq_line_set(&virtio->irq, pending != 0);
}

void virtio_mmio_break_locked(struct virtio_mmio *virtio)
{
    if (has_status(virtio, VIRTIO_CONFIG_S_NEEDS_RESET))
        return;
    virtio->state.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    if (has_status(virtio, VIRTIO_CONFIG_S_DRIVER_OK))
        set_interrupts_locked(virtio, virtio->state.interrupt_status | VIRTIO_MMIO_INT_CONFIG);
}

bool virtio_mmio_queue_live_locked(const struct virtio_mmio *virtio, unsigned queue)
{
    return has_status(virtio, VIRTIO_CONFIG_S_DRIVER_OK) &&
           !has_status(virtio, VIRTIO_CONFIG_S_NEEDS_RESET) &&
           !has_status(virtio, VIRTIO_CONFIG_S_FAILED) && !virtio->stopping &&
           queue < virtio->info.queue_count && virtio->state.queues[queue].ready;
}

int virtio_mmio_pop_locked(struct virtio_mmio *virtio, unsigned queue, struct virtq_chain *ret)
{
    int r = virtq_pop(&virtio->state.queues[queue], virtio->mem, ret);
    if (r < 0)
        virtio_mmio_break_locked(virtio);
    return r;
}

void virtio_mmio_push_locked(
    struct virtio_mmio *virtio, unsigned queue, uint16_t head, uint32_t written)
{
    int r = virtq_push(&virtio->state.queues[queue], virtio->mem, head, written);
    if (r < 0)
        virtio_mmio_break_locked(virtio);
    else if (r > 0)
        set_interrupts_locked(virtio, virtio->state.interrupt_status | VIRTIO_MMIO_INT_VRING);
}

/* The queue that the driver has selected, or NULL. */
static struct virtqueue *selected(struct virtio_mmio *virtio)
{
    return virtio->state.queue_sel < virtio->info.queue_count
               ? &virtio->state.queues[virtio->state.queue_sel]
               : NULL;
}

static uint32_t half(uint64_t value, uint32_t which)
{
    return which < 2 ? (uint32_t)(value >> (32 * which)) : 0;
}

static void set_half(uint64_t *value, uint32_t which, uint32_t to)
{
    unsigned shift = 32 * which;
    *value = (*value & ~((uint64_t)UINT32_MAX << shift)) | (uint64_t)to << shift;
}

static uint32_t read_register_locked(struct virtio_mmio *virtio, uint64_t offset)
{
    const struct virtio_mmio_state *state = &virtio->state;
    const struct virtqueue *queue = selected(virtio);
    switch (offset) {
    case VIRTIO_MMIO_MAGIC_VALUE:
        return VIRTIO_MAGIC;
    case VIRTIO_MMIO_VERSION:
        return VIRTIO_LAYOUT_VERSION;
    case VIRTIO_MMIO_DEVICE_ID:
        return virtio->info.device_id;
    case VIRTIO_MMIO_VENDOR_ID:
        return VIRTIO_VENDOR;
    case VIRTIO_MMIO_DEVICE_FEATURES:
        return half(virtio->info.features, state->device_features_sel);
    case VIRTIO_MMIO_QUEUE_NUM_MAX:
        return queue ? virtio->info.queue_size_max : 0;
    case VIRTIO_MMIO_QUEUE_READY:
        return queue && queue->ready;
    case VIRTIO_MMIO_INTERRUPT_STATUS:
        return state->interrupt_status;
    case VIRTIO_MMIO_STATUS:
        return state->status;
    case VIRTIO_MMIO_SHM_LEN_LOW: /* no shared memory regions: a length of all ones */
    case VIRTIO_MMIO_SHM_LEN_HIGH:
    case VIRTIO_MMIO_SHM_BASE_LOW:
    case VIRTIO_MMIO_SHM_BASE_HIGH:
        return UINT32_MAX;
    default: /* ConfigGeneration too: no configuration space ever changes by itself */
        return 0;
    }
}

/* Waits until the device does not touch guest memory any more. The lock is released meanwhile;
 * `stopping` keeps other vCPUs' writes away, so that nothing starts again. */
static void stop_locked(struct virtio_mmio *virtio)
{
    if (!virtio->info.ops->stop)
        return;
    virtio->stopping = true;
    virtio->info.ops->stop(virtio->info.device);
    virtio->stopping = false;
}

/* The reset is over when the write returns: drivers do not all wait for Status to read 0. */
static void reset_locked(struct virtio_mmio *virtio)
{
    stop_locked(virtio);
    uint32_t queue_count = virtio->state.queue_count;
    virtio->state = (struct virtio_mmio_state){.queue_count = queue_count};
    set_interrupts_locked(virtio, 0);
}

static bool features_acceptable(const struct virtio_mmio *virtio, uint64_t features)
{
    return (features & ~virtio->info.features) == 0 && features >> VIRTIO_F_VERSION_1 & 1;
}

static void write_status_locked(struct virtio_mmio *virtio, uint32_t value)
{
    if (value == 0) {
        reset_locked(virtio);
        return;
    }
    /* A driver sets one bit after the other and clears none but by reset (2.1.1). */
    uint32_t bits = value & STATUS_DRIVER_BITS;
    if (!has_status(virtio, VIRTIO_CONFIG_S_FEATURES_OK) &&
        !features_acceptable(virtio, virtio->state.driver_features))
        bits &= ~(uint32_t)VIRTIO_CONFIG_S_FEATURES_OK;
    if (!((virtio->state.status | bits) & VIRTIO_CONFIG_S_FEATURES_OK))
        bits &= ~(uint32_t)VIRTIO_CONFIG_S_DRIVER_OK;
    virtio->state.status |= bits;
}

static void write_queue_ready_locked(
    struct virtio_mmio *virtio, struct virtqueue *queue, bool ready)
{
    if (ready == queue->ready)
        return;
    if (!ready) {
        stop_locked(virtio);
        *queue = (struct virtqueue){0};
    } else if (virtq_check(queue, virtio->mem, virtio->info.queue_size_max) == 0) {
        queue->next_avail = 0;
        queue->next_used = 0;
        queue->ready = true;
    } else {
        virtio_mmio_break_locked(virtio);
    }
}

/* Registers of the selected queue. They belong to the driver between FEATURES_OK and ready. */
static void write_queue_locked(struct virtio_mmio *virtio, uint64_t offset, uint32_t value)
{
    struct virtqueue *queue = selected(virtio);
    bool allowed = has_status(virtio, VIRTIO_CONFIG_S_FEATURES_OK) &&
                   !has_status(virtio, VIRTIO_CONFIG_S_NEEDS_RESET);
    if (!queue)
        return;
    if (offset == VIRTIO_MMIO_QUEUE_READY && (allowed || !(value & 1)))
        write_queue_ready_locked(virtio, queue, value & 1);
    if (queue->ready || !allowed)
        return;
    switch (offset) {
    case VIRTIO_MMIO_QUEUE_NUM:
        queue->size = (uint16_t)MIN(value, UINT16_MAX); /* what is too large stays too large */
        break;
    case VIRTIO_MMIO_QUEUE_DESC_LOW:
    case VIRTIO_MMIO_QUEUE_DESC_HIGH:
        set_half(&queue->desc_gpa, offset == VIRTIO_MMIO_QUEUE_DESC_HIGH, value);
        break;
    case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
    case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
        set_half(&queue->avail_gpa, offset == VIRTIO_MMIO_QUEUE_AVAIL_HIGH, value);
        break;
    case VIRTIO_MMIO_QUEUE_USED_LOW:
    case VIRTIO_MMIO_QUEUE_USED_HIGH:
        set_half(&queue->used_gpa, offset == VIRTIO_MMIO_QUEUE_USED_HIGH, value);
        break;
    default:
        break;
    }
}

static void write_register_locked(struct virtio_mmio *virtio, uint64_t offset, uint32_t value)
{
    struct virtio_mmio_state *state = &virtio->state;
    if (virtio->stopping)
        return;
    switch (offset) {
    case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
        state->device_features_sel = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
        state->driver_features_sel = value;
        break;
    case VIRTIO_MMIO_DRIVER_FEATURES:
        if (!has_status(virtio, VIRTIO_CONFIG_S_FEATURES_OK) && state->driver_features_sel < 2)
            set_half(&state->driver_features, state->driver_features_sel, value);
        break;
    case VIRTIO_MMIO_QUEUE_SEL:
        state->queue_sel = value;
        break;
    case VIRTIO_MMIO_QUEUE_NOTIFY:
        if (virtio_mmio_queue_live_locked(virtio, value))
            virtio->info.ops->notify(virtio->info.device, value);
        break;
    case VIRTIO_MMIO_INTERRUPT_ACK:
        set_interrupts_locked(virtio, state->interrupt_status & ~value);
        break;
    case VIRTIO_MMIO_STATUS:
        write_status_locked(virtio, value);
        break;
    default:
        write_queue_locked(virtio, offset, value);
        break;
    }
}

static void mmio_read(void *device, uint64_t offset, uint8_t *data, unsigned bytes)
{
    struct virtio_mmio *virtio = device;
    pthread_mutex_lock(&virtio->lock);
    if (offset >= VIRTIO_MMIO_CONFIG) {
        memset(data, 0, bytes);
        virtio->info.ops->read_config(
            virtio->info.device, (uint32_t)(offset - VIRTIO_MMIO_CONFIG), data, bytes);
    } else if (bytes == 4 && IS_ALIGNED(offset, 4)) {
        uint32_t value = htole32(read_register_locked(virtio, offset));
        memcpy(data, &value, sizeof(value));
    } else {
        memset(data, 0xff, bytes);
    }
    pthread_mutex_unlock(&virtio->lock);
}

static void mmio_write(void *device, uint64_t offset, const uint8_t *data, unsigned bytes)
{
    struct virtio_mmio *virtio = device;
    pthread_mutex_lock(&virtio->lock);
    if (offset >= VIRTIO_MMIO_CONFIG) {
        if (virtio->info.ops->write_config && !virtio->stopping)
            virtio->info.ops->write_config(
                virtio->info.device, (uint32_t)(offset - VIRTIO_MMIO_CONFIG), data, bytes);
    } else if (bytes == 4 && IS_ALIGNED(offset, 4)) {
        uint32_t value;
        memcpy(&value, data, sizeof(value));
        write_register_locked(virtio, offset, le32toh(value));
    }
    pthread_mutex_unlock(&virtio->lock);
}

static const struct bus_ops mmio_ops = {.read = mmio_read, .write = mmio_write};

/* A saved state comes from a file, which may be anyone's: only what write_register_locked can lead
 * to is believed. */
static bool state_is_possible(
    const struct virtio_mmio *virtio, const struct virtio_mmio_state *state)
{
    if ((state->status & ~(uint32_t)STATUS_BITS) != 0 ||
        (state->interrupt_status & ~(uint32_t)INTERRUPT_BITS) != 0 ||
        state->queue_count != virtio->info.queue_count)
        return false;
    bool features_ok = state->status & VIRTIO_CONFIG_S_FEATURES_OK;
    if (features_ok && !features_acceptable(virtio, state->driver_features))
        return false;
    if ((state->status & VIRTIO_CONFIG_S_DRIVER_OK) && !features_ok)
        return false;
    for (unsigned i = 0; i < state->queue_count; i++) {
        const struct virtqueue *queue = &state->queues[i];
        if (queue->ready &&
            (!features_ok || virtq_check(queue, virtio->mem, virtio->info.queue_size_max) < 0))
            return false;
    }
    return true;
}

int virtio_mmio_init(struct virtio_mmio *virtio, const struct virtio_env *env,
    const struct virtio_device_info *info, const struct virtio_mmio_state *state,
    struct thaw_error *error)
{
    *virtio = (struct virtio_mmio){.info = *info, .mem = env->mem};
    virtio->info.features |= 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_RING_F_INDIRECT_DESC;
    virtio->irq = (struct irq_line){.vm_fd = env->vm_fd, .gsi = MACHINE_VIRTIO_GSI + env->slot};
    virtio->state.queue_count = info->queue_count;
    if (env->slot >= MACHINE_VIRTIO_SLOTS)
        return error_set(
            error, -EINVAL, "making %s: the machine has no virtio slot %u", info->name, env->slot);
    if (state) {
        if (!state_is_possible(virtio, state))
            return error_set(
                error, THAW_ECORRUPT, "making %s: its saved state contradicts itself", info->name);
        virtio_mmio_reset_locked(virtio, state);
    }
    int r = bus_add(env->mmio, MACHINE_VIRTIO_GPA + (uint64_t)env->slot * MACHINE_VIRTIO_STRIDE,
        MACHINE_VIRTIO_STRIDE, &mmio_ops, virtio, info->name, error);
    if (r == 0)
        pthread_mutex_init(&virtio->lock, NULL);
    return r;
}

void virtio_mmio_fini(struct virtio_mmio *virtio)
{
    pthread_mutex_destroy(&virtio->lock);
}

void virtio_mmio_save(struct virtio_mmio *virtio, struct virtio_mmio_state *ret)
{
    pthread_mutex_lock(&virtio->lock);
    *ret = virtio->state;
    pthread_mutex_unlock(&virtio->lock);
}

void virtio_mmio_reset_locked(struct virtio_mmio *virtio, const struct virtio_mmio_state *state)
{
    virtio->state = *state;
    virtio->irq.level = state->interrupt_status != 0;
}

void virtio_mmio_reset(struct virtio_mmio *virtio, const struct virtio_mmio_state *state)
{
    pthread_mutex_lock(&virtio->lock);
    virtio_mmio_reset_locked(virtio, state);
    pthread_mutex_unlock(&virtio->lock);
}

void virtio_mmio_sync_irq(struct virtio_mmio *virtio)
{
    pthread_mutex_lock(&virtio->lock);
    irq_line_sync(&virtio->irq);
    pthread_mutex_unlock(&virtio->lock);
}
