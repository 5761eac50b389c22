// SPDX-License-Identifier: Apache-2.0
// Split virtqueues: chains as drivers make them.

#include "unit/virtio_guest.h"
#include <criterion/criterion.h>
#include <string.h>

#define NEXT     VRING_DESC_F_NEXT
#define WRITE    VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT

static struct virtqueue queue_new(struct guest *guest, uint16_t size)
{
    guest_init(guest);
    guest->size = size;
    return (struct virtqueue){.ready = true,
        .size = size,
        .desc_gpa = GUEST_DESC,
        .avail_gpa = GUEST_AVAIL,
        .used_gpa = GUEST_USED};
}

Test(virtqueue, gives_chains_in_the_order_in_which_they_were_offered)
{
    struct guest guest;
    struct virtqueue queue = queue_new(&guest, 4);
    struct virtq_chain chain;
    cr_assert_eq(virtq_pop(&queue, &guest.mem, &chain), 0);
    for (uint16_t i = 0; i < 4; i++)
        guest_desc(&guest, GUEST_DESC, i, GUEST_DATA + i * 0x1000u, 100u + i, 0, 0);
    for (uint16_t round = 0; round < 40000; round++) {
        guest_offer(&guest, round * 3 % 4);
        cr_assert_eq(virtq_pop(&queue, &guest.mem, &chain), 1);
        cr_assert_eq(chain.head, round * 3 % 4);
        cr_assert_eq(chain.readable_bytes, 100u + chain.head);
        cr_assert_eq(virtq_pop(&queue, &guest.mem, &chain), 0);
    }
    guest_fini(&guest);
}

Test(virtqueue, follows_chains_and_splits_them_by_direction)
{
    struct guest guest;
    struct virtqueue queue = queue_new(&guest, 8);
    struct virtq_chain chain;
    guest_desc(&guest, GUEST_DESC, 5, GUEST_DATA, 16, NEXT, 2);
    guest_desc(&guest, GUEST_DESC, 2, GUEST_DATA + 0x1000, 512, NEXT, 7);
    guest_desc(&guest, GUEST_DESC, 7, 0, 0, NEXT, 0);
    guest_desc(&guest, GUEST_DESC, 0, GUEST_DATA + 0x2000, 1, WRITE, 3);
    guest_offer(&guest, 5);
    cr_assert_eq(virtq_pop(&queue, &guest.mem, &chain), 1);
    cr_assert_eq(chain.readable, 2, "an empty segment is left out");
    cr_assert_eq(chain.writable, 1);
    cr_assert_eq(chain.readable_bytes, 528);
    cr_assert_eq(chain.writable_bytes, 1);
    cr_assert_eq(chain.segments[1].gpa, GUEST_DATA + 0x1000);
    cr_assert_eq(chain.segments[2].gpa, GUEST_DATA + 0x2000);
    guest_fini(&guest);
}

Test(virtqueue, follows_indirect_tables_that_are_longer_than_the_queue)
{
    struct guest guest;
    struct virtqueue queue = queue_new(&guest, 2);
    struct virtq_chain chain;
    for (uint16_t i = 0; i < 100; i++)
        guest_desc(&guest, GUEST_TABLE, i, GUEST_DATA + i * 512u, 512, i < 99 ? NEXT : WRITE,
            (uint16_t)(i + 1));
    guest_desc(&guest, GUEST_DESC, 0, GUEST_DATA, 8, NEXT, 1);
    guest_desc(&guest, GUEST_DESC, 1, GUEST_TABLE, 100 * 16, INDIRECT, 0);
    guest_offer(&guest, 0);
    cr_assert_eq(virtq_pop(&queue, &guest.mem, &chain), 1);
    cr_assert_eq(chain.readable, 100);
    cr_assert_eq(chain.writable, 1);
    cr_assert_eq(chain.readable_bytes, 8 + 99 * 512);
    guest_fini(&guest);
}

Test(virtqueue, gives_chains_back_with_an_interrupt_unless_unwanted)
{
    struct guest guest;
    struct virtqueue queue = queue_new(&guest, 4);
    struct vring_avail *avail = guest_at(&guest, GUEST_AVAIL);
    uint32_t head = 0, bytes = 0;
    cr_assert_eq(virtq_push(&queue, &guest.mem, 3, 77), 1);
    cr_assert(guest_take_used(&guest, &head, &bytes));
    cr_assert(head == 3 && bytes == 77);
    cr_assert(!guest_take_used(&guest, &head, &bytes));
    avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
    cr_assert_eq(virtq_push(&queue, &guest.mem, 1, 0), 0);
    cr_assert(guest_take_used(&guest, &head, &bytes));
    cr_assert(head == 1 && bytes == 0);
    for (uint32_t i = 0; i < 70000; i++) {
        virtq_push(&queue, &guest.mem, i % 4, i);
        cr_assert(guest_take_used(&guest, &head, &bytes));
        cr_assert(head == i % 4 && bytes == i);
    }
    cr_assert(guest.mem.host_dirty[0] >> (GUEST_USED / PAGE_BYTES) & 1);
    guest_fini(&guest);
}

Test(virtqueue, copies_between_buffers_and_chains_across_segments)
{
    struct guest guest;
    struct virtqueue queue = queue_new(&guest, 8);
    struct virtq_chain chain;
    char buf[16] = {0};
    memcpy(guest_at(&guest, GUEST_DATA), "abc", 3);
    memcpy(guest_at(&guest, GUEST_DATA + 100), "defg", 4);
    guest_desc(&guest, GUEST_DESC, 0, GUEST_DATA, 3, NEXT, 1);
    guest_desc(&guest, GUEST_DESC, 1, GUEST_DATA + 100, 4, NEXT, 2);
    guest_desc(&guest, GUEST_DESC, 2, GUEST_DATA + 200, 2, WRITE | NEXT, 3);
    guest_desc(&guest, GUEST_DESC, 3, GUEST_DATA + 300, 2, WRITE, 0);
    guest_offer(&guest, 0);
    cr_assert_eq(virtq_pop(&queue, &guest.mem, &chain), 1);
    cr_assert_eq(virtq_chain_read(&chain, &guest.mem, 2, buf, 3), 3);
    cr_assert_str_eq(buf, "cde");
    cr_assert_eq(virtq_chain_read(&chain, &guest.mem, 5, buf, 10), 2);
    cr_assert_eq(virtq_chain_read(&chain, &guest.mem, 7, buf, 10), 0);
    cr_assert_eq(virtq_chain_write(&chain, &guest.mem, 1, "XYZW", 4), 3);
    cr_assert(memcmp(guest_at(&guest, GUEST_DATA + 200), "\0X", 2) == 0);
    cr_assert(memcmp(guest_at(&guest, GUEST_DATA + 300), "YZ\0", 3) == 0);
    guest_fini(&guest);
}

Test(virtqueue, checks_size_alignment_and_place_of_the_rings)
{
    struct guest guest;
    struct virtqueue good = queue_new(&guest, 256);
    struct virtqueue queue = good;
    cr_assert_eq(virtq_check(&queue, &guest.mem, 256), 0);
    cr_assert_eq(virtq_check(&queue, &guest.mem, 128), -EINVAL);
    static const uint16_t sizes[] = {0, 3, 255, 512, 0x8000, 0xffff};
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        queue.size = sizes[i];
        cr_assert_eq(virtq_check(&queue, &guest.mem, 0xffff), -EINVAL);
    }
    static const struct {
        uint64_t desc, avail, used;
        int result;
    } cases[] = {
        {8, 0, 0, -EINVAL},
        {0, 1, 0, -EINVAL},
        {0, 0, 2, -EINVAL},
        {GUEST_RAM_BYTES - 16, 0, 0, -EFAULT},
        {0, GUEST_RAM_BYTES - 2, 0, -EFAULT},
        {0, 0, GUEST_RAM_BYTES, -EFAULT},
        {0xd0000000, 0, 0, -EFAULT},
        {UINT64_MAX - 15, 0, 0, -EFAULT},
        {0, UINT64_MAX - 1, 0, -EFAULT},
        {0, 0, UINT64_MAX - 3, -EFAULT},
        {GUEST_RAM_BYTES - 256 * 16, GUEST_RAM_BYTES - 256 * 2 - 4, GUEST_RAM_BYTES - 256 * 8 - 4,
            0},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        queue = good;
        queue.desc_gpa = cases[i].desc;
        queue.avail_gpa = cases[i].avail;
        queue.used_gpa = cases[i].used;
        cr_assert_eq(virtq_check(&queue, &guest.mem, 256), cases[i].result, "case %zu", i);
    }
    guest_fini(&guest);
}

/* A driver's mistakes, or its malice: each is refused and leaves the queue where it was. */
static void refuses(struct guest *guest, struct virtqueue *queue, uint16_t head)
{
    struct virtq_chain chain;
    guest_offer(guest, head);
    cr_assert_eq(virtq_pop(queue, &guest->mem, &chain), -EPROTO);
    cr_assert_eq(virtq_read_chain(queue, &guest->mem, head, &chain), -EPROTO);
    queue->next_avail++;
}

Test(virtqueue, refuses_malformed_chains)
{
    struct guest guest;
    struct virtqueue queue = queue_new(&guest, 8);
    refuses(&guest, &queue, 8);
    refuses(&guest, &queue, 0xffff);

    guest_desc(&guest, GUEST_DESC, 0, GUEST_DATA, 1, NEXT, 0);
    refuses(&guest, &queue, 0); /* points at itself */
    guest_desc(&guest, GUEST_DESC, 0, GUEST_DATA, 1, NEXT, 1);
    guest_desc(&guest, GUEST_DESC, 1, GUEST_DATA, 0, NEXT, 0);
    refuses(&guest, &queue, 0); /* a loop, partly of nothing */
    guest_desc(&guest, GUEST_DESC, 1, GUEST_DATA, 1, NEXT, 8);
    refuses(&guest, &queue, 0); /* leads out of the table */
    guest_desc(&guest, GUEST_DESC, 0, GUEST_DATA, 1, WRITE | NEXT, 1);
    guest_desc(&guest, GUEST_DESC, 1, GUEST_DATA, 1, 0, 0);
    refuses(&guest, &queue, 0); /* reading after writing */

    static const struct {
        uint64_t gpa;
        uint32_t bytes;
    } places[] = {{GUEST_RAM_BYTES, 1}, {GUEST_RAM_BYTES - 1, 2}, {0, UINT32_MAX}, {UINT64_MAX, 1},
        {UINT64_MAX - 10, 100}, {0xd0000000, 4}, {1ull << 63, 0x80000000}};
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        guest_desc(&guest, GUEST_DESC, 0, places[i].gpa, places[i].bytes, 0, 0);
        refuses(&guest, &queue, 0);
    }
    guest_fini(&guest);
}

Test(virtqueue, refuses_malformed_indirect_tables)
{
    struct guest guest;
    struct virtqueue queue = queue_new(&guest, 8);
    guest_desc(&guest, GUEST_TABLE, 0, GUEST_DATA, 1, 0, 0);
    static const struct {
        uint64_t gpa;
        uint32_t bytes;
        uint16_t flags;
    } tables[] = {{GUEST_TABLE, 0, INDIRECT}, {GUEST_TABLE, 15, INDIRECT},
        {GUEST_TABLE, 17, INDIRECT}, {GUEST_TABLE, 16, INDIRECT | NEXT},
        {GUEST_RAM_BYTES - 16, 32, INDIRECT}, {0xd0000000, 16, INDIRECT},
        {UINT64_MAX - 15, 16, INDIRECT}, {0, 0xfffffff0, INDIRECT}};
    for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
        guest_desc(&guest, GUEST_DESC, 0, tables[i].gpa, tables[i].bytes, tables[i].flags, 1);
        refuses(&guest, &queue, 0);
    }

    guest_desc(&guest, GUEST_DESC, 0, GUEST_TABLE, 32, INDIRECT, 0);
    guest_desc(&guest, GUEST_TABLE, 0, GUEST_TABLE, 32, INDIRECT, 0);
    refuses(&guest, &queue, 0); /* a table in a table */
    guest_desc(&guest, GUEST_TABLE, 0, GUEST_DATA, 1, NEXT, 1);
    guest_desc(&guest, GUEST_TABLE, 1, GUEST_DATA, 1, NEXT, 0);
    refuses(&guest, &queue, 0); /* a loop */
    guest_desc(&guest, GUEST_TABLE, 1, GUEST_DATA, 1, NEXT, 2);
    refuses(&guest, &queue, 0); /* leads out of the table */

    for (uint16_t i = 0; i < 300; i++)
        guest_desc(&guest, GUEST_TABLE, i, GUEST_DATA, 1, i < 299 ? NEXT : 0, (uint16_t)(i + 1));
    guest_desc(&guest, GUEST_DESC, 0, GUEST_TABLE, 300 * 16, INDIRECT, 0);
    refuses(&guest, &queue, 0); /* longer than any chain may be */
    guest_fini(&guest);
}

Test(virtqueue, refuses_an_available_index_that_jumps)
{
    struct guest guest;
    struct virtqueue queue = queue_new(&guest, 8);
    struct virtq_chain chain;
    struct vring_avail *avail = guest_at(&guest, GUEST_AVAIL);
    avail->idx = 9;
    cr_assert_eq(virtq_pop(&queue, &guest.mem, &chain), -EPROTO);
    avail->idx = 0xffff;
    cr_assert_eq(virtq_pop(&queue, &guest.mem, &chain), -EPROTO, "backwards");
    queue.next_avail = 0xfffc;
    avail->idx = 4;
    guest_desc(&guest, GUEST_DESC, 0, GUEST_DATA, 1, 0, 0);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(virtq_pop(&queue, &guest.mem, &chain), 1, "it wraps");
    cr_assert_eq(virtq_pop(&queue, &guest.mem, &chain), 0);
    guest_fini(&guest);
}
