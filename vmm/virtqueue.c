// SPDX-License-Identifier: Apache-2.0
// The device's side of split virtqueues: takes chains, checks them, gives them back.
// Does not know what is in a chain, and keeps nothing but struct virtqueue.

#include "virtqueue.h"
#include <endian.h>
#include <linux/virtio_ring.h>
#include <string.h>

/* Bytes of the rings (2.7), without the fields of EVENT_IDX, which is not offered. */
static uint64_t desc_bytes(const struct virtqueue *queue)
{
    return sizeof(struct vring_desc) * (uint64_t)queue->size;
}

static uint64_t avail_bytes(const struct virtqueue *queue)
{
    return sizeof(struct vring_avail) + sizeof(uint16_t) * (uint64_t)queue->size;
}

static uint64_t used_bytes(const struct virtqueue *queue)
{
    return sizeof(struct vring_used) + sizeof(struct vring_used_elem) * (uint64_t)queue->size;
}

int virtq_check(const struct virtqueue *queue, const struct mem *mem, uint16_t size_max)
{
    uint64_t ram_off;
    if (queue->size == 0 || queue->size > size_max || queue->size > VIRTQ_SIZE_MAX ||
        (queue->size & (queue->size - 1)) != 0)
        return -EINVAL;
    if (!IS_ALIGNED(queue->desc_gpa, VRING_DESC_ALIGN_SIZE) ||
        !IS_ALIGNED(queue->avail_gpa, VRING_AVAIL_ALIGN_SIZE) ||
        !IS_ALIGNED(queue->used_gpa, VRING_USED_ALIGN_SIZE))
        return -EINVAL;
    if (mem_offset(mem, queue->desc_gpa, desc_bytes(queue), &ram_off) < 0 ||
        mem_offset(mem, queue->avail_gpa, avail_bytes(queue), &ram_off) < 0 ||
        mem_offset(mem, queue->used_gpa, used_bytes(queue), &ram_off) < 0)
        return -EFAULT;
    return 0;
}

/* A chain under construction, and what bounds its walk. */
struct walk {
    const struct mem *mem;
    struct virtq_chain *chain;
    unsigned segments; /* in the chain, the empty ones included */
    bool indirect;     /* in an indirect table */
};

static int add_segment(struct walk *walk, const struct vring_desc *desc)
{
    struct virtq_chain *chain = walk->chain;
    bool writable = desc->flags & VRING_DESC_F_WRITE;
    uint64_t ram_off;
    if (walk->segments++ >= VIRTQ_SEGMENTS_MAX)
        return -EPROTO;
    if (!writable && chain->writable > 0)
        return -EPROTO; /* 2.7.4.2: what the device reads comes first */
    if (desc->len == 0)
        return 0;
    if (mem_offset(walk->mem, desc->addr, desc->len, &ram_off) < 0)
        return -EPROTO;

    chain->segments[chain->readable + chain->writable] =
        (struct virtq_segment){.gpa = desc->addr, .bytes = desc->len};
    if (writable) {
        chain->writable++;
        chain->writable_bytes += desc->len;
    } else {
        chain->readable++;
        chain->readable_bytes += desc->len;
    }
    return 0;
}

/* The one read of a descriptor. */
static int read_desc(
    const struct walk *walk, uint64_t table_gpa, unsigned i, struct vring_desc *ret)
{
    struct vring_desc raw;
    int r = mem_read(walk->mem, table_gpa + i * sizeof(raw), &raw, sizeof(raw));
    if (r < 0)
        return r;
    ret->addr = le64toh(raw.addr);
    ret->len = le32toh(raw.len);
    ret->flags = le16toh(raw.flags);
    ret->next = le16toh(raw.next);
    return 0;
}

static int walk_table(struct walk *walk, uint64_t table_gpa, unsigned count, unsigned head);

static int enter_indirect(struct walk *walk, const struct vring_desc *desc)
{
    uint64_t ram_off;
    /* 2.7.5.3: no table in a table, none that goes on after it, whole descriptors only. */
    if (walk->indirect || (desc->flags & VRING_DESC_F_NEXT) || desc->len == 0 ||
        desc->len % sizeof(struct vring_desc) != 0 ||
        mem_offset(walk->mem, desc->addr, desc->len, &ram_off) < 0)
        return -EPROTO;
    walk->indirect = true;
    return walk_table(walk, desc->addr, (unsigned)(desc->len / sizeof(struct vring_desc)), 0);
}

/* Follows a chain through one table. A chain cannot be longer than its table without a loop. */
static int walk_table(struct walk *walk, uint64_t table_gpa, unsigned count, unsigned head)
{
    unsigned i = head;
    for (unsigned steps = 0; steps < count; steps++) {
        struct vring_desc desc;
        if (i >= count)
            return -EPROTO;
        int r = read_desc(walk, table_gpa, i, &desc);
        if (r < 0)
            return r;
        if (desc.flags & VRING_DESC_F_INDIRECT)
            return enter_indirect(walk, &desc);
        r = add_segment(walk, &desc);
        if (r < 0 || !(desc.flags & VRING_DESC_F_NEXT))
            return r;
        i = desc.next;
    }
    return -EPROTO;
}

int virtq_read_chain(
    const struct virtqueue *queue, const struct mem *mem, uint16_t head, struct virtq_chain *ret)
{
    ret->head = head;
    ret->readable = 0;
    ret->writable = 0;
    ret->readable_bytes = 0;
    ret->writable_bytes = 0;
    struct walk walk = {.mem = mem, .chain = ret};
    return walk_table(&walk, queue->desc_gpa, queue->size, head);
}

/* A 16-bit field of a ring that both sides use at the same time: a host pointer for one access. */
static int shared_field(const struct mem *mem, uint64_t gpa, uint16_t **ret)
{
    void *hva;
    int r = mem_hva(mem, gpa, sizeof(uint16_t), &hva);
    if (r == 0)
        *ret = hva;
    return r;
}

int virtq_pop(struct virtqueue *queue, const struct mem *mem, struct virtq_chain *ret)
{
    uint16_t *field = NULL;
    int r = shared_field(mem, queue->avail_gpa + offsetof(struct vring_avail, idx), &field);
    if (r < 0)
        return r;
    /* Acquire: the entries that the index announces are read after it. */
    uint16_t available = le16toh(__atomic_load_n(field, __ATOMIC_ACQUIRE));
    if (available == queue->next_avail)
        return 0;
    if ((uint16_t)(available - queue->next_avail) > queue->size)
        return -EPROTO;

    uint16_t head;
    uint64_t entry = queue->next_avail % queue->size;
    r = mem_read(mem, queue->avail_gpa + offsetof(struct vring_avail, ring) + entry * sizeof(head),
        &head, sizeof(head));
    if (r < 0)
        return r;
    r = virtq_read_chain(queue, mem, le16toh(head), ret);
    if (r < 0)
        return r;
    queue->next_avail++;
    return 1;
}

int virtq_push(struct virtqueue *queue, struct mem *mem, uint16_t head, uint32_t written)
{
    struct vring_used_elem elem = {.id = htole32(head), .len = htole32(written)};
    uint64_t entry = queue->next_used % queue->size;
    int r =
        mem_write(mem, queue->used_gpa + offsetof(struct vring_used, ring) + entry * sizeof(elem),
            &elem, sizeof(elem));
    uint64_t idx_gpa = queue->used_gpa + offsetof(struct vring_used, idx);
    uint16_t *idx = NULL, *flags = NULL;
    if (r == 0)
        r = shared_field(mem, idx_gpa, &idx);
    if (r == 0)
        r = shared_field(mem, queue->avail_gpa + offsetof(struct vring_avail, flags), &flags);
    if (r < 0)
        return r;

    /* Sequentially consistent, both: a driver turns interrupts on and then looks at the index, we
     * move the index and then look whether they are on. One of us must see the other's store. */
    queue->next_used++;
    __atomic_store_n(idx, htole16(queue->next_used), __ATOMIC_SEQ_CST);
    mem_mark_dirty(mem, idx_gpa, sizeof(*idx));
    return !(le16toh(__atomic_load_n(flags, __ATOMIC_SEQ_CST)) & VRING_AVAIL_F_NO_INTERRUPT);
}

/* Calls mem_read or, if `src` is given, mem_write for the pieces of [offset, offset + bytes) that
 * lie in the segments. */
static int64_t copy(const struct virtq_segment *segments, unsigned count, struct mem *mem_out,
    const struct mem *mem, uint64_t offset, uint8_t *dst, const uint8_t *src, uint64_t bytes)
{
    uint64_t done = 0;
    for (unsigned i = 0; i < count && done < bytes; i++) {
        if (offset >= segments[i].bytes) {
            offset -= segments[i].bytes;
            continue;
        }
        uint64_t n = MIN(bytes - done, segments[i].bytes - offset);
        uint64_t gpa = segments[i].gpa + offset;
        int r = src ? mem_write(mem_out, gpa, src + done, n) : mem_read(mem, gpa, dst + done, n);
        if (r < 0)
            return r;
        done += n;
        offset = 0;
    }
    return (int64_t)done;
}

int64_t virtq_chain_read(const struct virtq_chain *chain, const struct mem *mem, uint64_t offset,
    void *dst, uint64_t bytes)
{
    return copy(chain->segments, chain->readable, NULL, mem, offset, dst, NULL, bytes);
}

int64_t virtq_chain_write(const struct virtq_chain *chain, struct mem *mem, uint64_t offset,
    const void *src, uint64_t bytes)
{
    return copy(
        chain->segments + chain->readable, chain->writable, mem, mem, offset, NULL, src, bytes);
}
