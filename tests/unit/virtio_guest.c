// SPDX-License-Identifier: Apache-2.0
// A virtio driver for unit tests. Checks nothing itself.

#include "virtio_guest.h"
#include "machine.h"
#include <criterion/criterion.h>
#include <string.h>

void guest_init(struct guest *guest)
{
    *guest = (struct guest){0};
    cr_assert_eq(mem_init(&guest->mem, GUEST_RAM_BYTES, NULL), 0);
    cr_assert_eq(mem_map_anonymous(&guest->mem, NULL), 0);
}

void guest_fini(struct guest *guest)
{
    mem_fini(&guest->mem);
}

struct virtio_env guest_env(struct guest *guest)
{
    return (struct virtio_env){.mem = &guest->mem, .mmio = &guest->bus, .vm_fd = -1};
}

uint32_t guest_read(const struct guest *guest, uint32_t reg)
{
    uint32_t value;
    bus_read(&guest->bus, MACHINE_VIRTIO_GPA + reg, (uint8_t *)&value, sizeof(value));
    return value;
}

void guest_write(const struct guest *guest, uint32_t reg, uint32_t value)
{
    bus_write(&guest->bus, MACHINE_VIRTIO_GPA + reg, (const uint8_t *)&value, sizeof(value));
}

void guest_queue(
    const struct guest *guest, uint16_t size, uint64_t desc, uint64_t avail, uint64_t used)
{
    guest_write(guest, VIRTIO_MMIO_QUEUE_SEL, 0);
    guest_write(guest, VIRTIO_MMIO_QUEUE_NUM, size);
    guest_write(guest, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)desc);
    guest_write(guest, VIRTIO_MMIO_QUEUE_DESC_HIGH, (uint32_t)(desc >> 32));
    guest_write(guest, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)avail);
    guest_write(guest, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, (uint32_t)(avail >> 32));
    guest_write(guest, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)used);
    guest_write(guest, VIRTIO_MMIO_QUEUE_USED_HIGH, (uint32_t)(used >> 32));
    guest_write(guest, VIRTIO_MMIO_QUEUE_READY, 1);
}

void guest_start(struct guest *guest, uint64_t features, uint16_t queue_size)
{
    features |= 1ull << VIRTIO_F_VERSION_1;
    guest_write(guest, VIRTIO_MMIO_STATUS, 0);
    guest_write(guest, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    guest_write(guest, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    guest_write(guest, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    guest_write(guest, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)features);
    guest_write(guest, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    guest_write(guest, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32));
    guest_write(guest, VIRTIO_MMIO_STATUS,
        VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK);

    memset(guest_at(guest, GUEST_AVAIL), 0, 0x2000);
    memset(guest_at(guest, GUEST_USED), 0, 0x2000);
    guest->size = queue_size;
    guest->avail_idx = 0;
    guest->used_idx = 0;
    guest_queue(guest, queue_size, GUEST_DESC, GUEST_AVAIL, GUEST_USED);
    guest_write(guest, VIRTIO_MMIO_STATUS, GUEST_STATUS_READY);
}

void *guest_at(const struct guest *guest, uint64_t gpa)
{
    return guest->mem.base + gpa;
}

void guest_desc(const struct guest *guest, uint64_t table, unsigned i, uint64_t gpa, uint32_t bytes,
    uint16_t flags, uint16_t next)
{
    struct vring_desc *descs = guest_at(guest, table);
    descs[i] = (struct vring_desc){.addr = gpa, .len = bytes, .flags = flags, .next = next};
}

void guest_offer(struct guest *guest, uint16_t head)
{
    struct vring_avail *avail = guest_at(guest, GUEST_AVAIL);
    avail->ring[guest->avail_idx % guest->size] = head;
    __atomic_store_n(&avail->idx, ++guest->avail_idx, __ATOMIC_RELEASE);
}

void guest_notify(const struct guest *guest)
{
    guest_write(guest, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
}

bool guest_take_used(struct guest *guest, uint32_t *ret_head, uint32_t *ret_bytes)
{
    struct vring_used *used = guest_at(guest, GUEST_USED);
    if (__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) == guest->used_idx)
        return false;
    struct vring_used_elem *elem = &used->ring[guest->used_idx++ % guest->size];
    *ret_head = elem->id;
    *ret_bytes = elem->len;
    return true;
}

void guest_wait_used(struct guest *guest, uint32_t *ret_head, uint32_t *ret_bytes)
{
    for (int i = 0; i < 100000; i++) {
        if (guest_take_used(guest, ret_head, ret_bytes))
            return;
        usleep(100);
    }
    cr_assert(false, "the device did not answer");
}

bool guest_device_is_broken(const struct guest *guest)
{
    return guest_read(guest, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET;
}
