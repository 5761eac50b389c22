// SPDX-License-Identifier: Apache-2.0
// The entropy device.

#include "dev_rng.h"
#include "unit/virtio_guest.h"
#include <criterion/criterion.h>
#include <string.h>

#define WRITE VRING_DESC_F_WRITE

static struct rng *setup(struct guest *guest)
{
    struct rng *rng = NULL;
    guest_init(guest);
    struct virtio_env env = guest_env(guest);
    cr_assert_eq(rng_new(&env, NULL, &rng, NULL), 0);
    rng_resume(rng);
    guest_start(guest, 0, 8);
    return rng;
}

static uint32_t ask(struct guest *guest, uint32_t bytes)
{
    uint32_t head = 0, written = 0;
    guest_desc(guest, GUEST_DESC, 0, GUEST_DATA, bytes, WRITE, 0);
    guest_offer(guest, 0);
    guest_notify(guest);
    cr_assert(guest_take_used(guest, &head, &written), "it answers at once");
    return written;
}

Test(dev_rng, fills_buffers_with_different_bytes)
{
    struct guest guest;
    struct rng *rng = setup(&guest);
    uint8_t before[64];
    cr_assert_eq(ask(&guest, 64), 64);
    memcpy(before, guest_at(&guest, GUEST_DATA), 64);
    cr_assert_eq(ask(&guest, 64), 64);
    cr_assert(memcmp(before, guest_at(&guest, GUEST_DATA), 64) != 0);
    cr_assert_eq(guest_read(&guest, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
    rng_free(rng);
    guest_fini(&guest);
}

Test(dev_rng, answers_a_part_of_a_huge_request)
{
    struct guest guest;
    struct rng *rng = setup(&guest);
    cr_assert_eq(ask(&guest, 8 * (uint32_t)MIB), RNG_REQUEST_BYTES_MAX);
    rng_free(rng);
    guest_fini(&guest);
}

Test(dev_rng, answers_after_restore_what_was_asked_before)
{
    struct guest guest;
    struct rng *rng = setup(&guest), *second = NULL;
    struct virtio_mmio_state state;
    uint32_t head = 0, written = 0;
    cr_assert_eq(ask(&guest, 16), 16);
    guest_desc(&guest, GUEST_DESC, 1, GUEST_DATA, 32, WRITE, 0);
    guest_offer(&guest, 1);
    rng_save(rng, &state);
    rng_free(rng);

    guest.bus = (struct bus){0};
    struct virtio_env env = guest_env(&guest);
    cr_assert_eq(rng_new(&env, &state, &second, NULL), 0);
    cr_assert(!guest_take_used(&guest, &head, &written));
    rng_resume(second);
    cr_assert(guest_take_used(&guest, &head, &written));
    cr_assert(head == 1 && written == 32);
    rng_free(second);
    guest_fini(&guest);
}

Test(dev_rng, gives_nothing_where_nothing_may_be_written)
{
    struct guest guest;
    struct rng *rng = setup(&guest);
    uint32_t head = 0, written = 1;
    guest_desc(&guest, GUEST_DESC, 0, GUEST_DATA, 16, 0, 0);
    guest_offer(&guest, 0);
    guest_notify(&guest);
    cr_assert(guest_take_used(&guest, &head, &written));
    cr_assert_eq(written, 0);
    rng_free(rng);
    rng_free(NULL);
    guest_fini(&guest);
}
