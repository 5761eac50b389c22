// SPDX-License-Identifier: Apache-2.0
// A guest that does all it can to break its virtio devices. They may refuse, and wait for a reset;
// after one they work again.

#include "dev_blk.h"
#include "dev_rng.h"
#include "machine.h"
#include "unit/virtio_guest.h"
#include <criterion/criterion.h>
#include <linux/virtio_blk.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define NEXT       VRING_DESC_F_NEXT
#define WRITE      VRING_DESC_F_WRITE
#define INDIRECT   VRING_DESC_F_INDIRECT
#define DISK_BYTES (4 * MIB)

struct rig {
    struct guest guest; /* the disk in slot 0, rng in slot 1 */
    struct io *io;
    struct blk *blk;
    struct rng *rng;
    uint32_t seed;
};

static void setup(struct rig *rig, uint32_t seed)
{
    char path[] = "/tmp/thaw-test-XXXXXX";
    struct disk *disk = NULL;
    *rig = (struct rig){.seed = seed};
    guest_init(&rig->guest);
    int fd = mkstemp(path);
    unlink(path);
    cr_assert_eq(ftruncate(fd, DISK_BYTES), 0);
    cr_assert_eq(io_new(IO_BACKEND_AUTO, &rig->io, NULL), 0);
    struct disk_options options = {.fd = fd, .overlay_dir = "/tmp"};
    cr_assert_eq(disk_open(rig->io, &options, &disk, NULL), 0);
    close(fd);
    struct blk_env env = {.virtio = guest_env(&rig->guest), .io = rig->io, .disk = disk, .id = "x"};
    cr_assert_eq(blk_new(&env, NULL, &rig->blk, NULL), 0);
    struct virtio_env rng_env = guest_env(&rig->guest);
    rng_env.slot = 1;
    cr_assert_eq(rng_new(&rng_env, NULL, &rig->rng, NULL), 0);
    blk_resume(rig->blk);
    rng_resume(rig->rng);
}

static void teardown(struct rig *rig)
{
    blk_free(rig->blk);
    rng_free(rig->rng);
    io_free(rig->io);
    guest_fini(&rig->guest);
}

static uint32_t next_random(struct rig *rig)
{
    rig->seed = rig->seed * 1664525u + 1013904223u;
    return rig->seed >> 4;
}

static uint32_t pick(struct rig *rig, uint32_t count)
{
    return next_random(rig) % count;
}

/* Values near which mistakes are made. */
static uint64_t nasty(struct rig *rig)
{
    static const uint64_t values[] = {0, 1, 2, 3, 7, 8, 15, 16, 17, 64, 127, 128, 129, 255, 256,
        257, 511, 512, 4095, 4096, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000,
        0xfffffff0, 0xffffffff, GUEST_DESC, GUEST_AVAIL, GUEST_USED, GUEST_TABLE, GUEST_DATA,
        GUEST_RAM_BYTES - 1, GUEST_RAM_BYTES, GUEST_RAM_BYTES - 4096, MEM_HOLE_GPA,
        MACHINE_VIRTIO_GPA, MEM_HIGH_GPA, 1ull << 52, 1ull << 63, UINT64_MAX - 15, UINT64_MAX};
    uint32_t i = pick(rig, ARRAY_SIZE(values) + 4);
    return i < ARRAY_SIZE(values) ? values[i] : next_random(rig);
}

/* After a reset the device reads a sector as if nothing had been. */
static void expect_alive(struct rig *rig)
{
    struct guest *guest = &rig->guest;
    uint32_t head = 0, written = 0;
    guest_start(guest, 0, BLK_QUEUE_SIZE);
    cr_assert_eq(guest_read(guest, VIRTIO_MMIO_STATUS), GUEST_STATUS_READY);
    struct virtio_blk_outhdr *header = guest_at(guest, GUEST_DATA);
    *header = (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_IN};
    guest_desc(guest, GUEST_DESC, 0, GUEST_DATA, 16, NEXT, 1);
    guest_desc(guest, GUEST_DESC, 1, GUEST_DATA + 4096, 513, WRITE, 0);
    *(uint8_t *)guest_at(guest, GUEST_DATA + 4096 + 512) = 0xee;
    guest_offer(guest, 0);
    guest_notify(guest);
    guest_wait_used(guest, &head, &written);
    cr_assert_eq(written, 513);
    cr_assert_eq(*(uint8_t *)guest_at(guest, GUEST_DATA + 4096 + 512), VIRTIO_BLK_S_OK);
}

/* Offers descriptor 0 of a device that is set up and expects it to refuse the whole device. */
static void expect_broken(struct rig *rig)
{
    struct guest *guest = &rig->guest;
    guest_offer(guest, 0);
    guest_notify(guest);
    io_drain(rig->io);
    cr_assert(guest_device_is_broken(guest));
    cr_assert(guest_read(guest, VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG);
    guest_notify(guest);
    expect_alive(rig);
}

Test(virtio_hostile, malformed_chains_break_the_device_until_reset)
{
    static const struct vring_desc chains[][2] = {
        {{GUEST_DATA, 16, NEXT, 0}},                                   /* a loop */
        {{GUEST_DATA, 16, NEXT, 1}, {GUEST_DATA, 1, NEXT | WRITE, 0}}, /* a longer one */
        {{GUEST_DATA, 16, NEXT, 128}},                                 /* out of the table */
        {{GUEST_DATA, 16, NEXT, 0xffff}},                              /* far out */
        {{GUEST_RAM_BYTES, 16, NEXT, 1}, {GUEST_DATA, 1, WRITE, 0}},   /* no RAM */
        {{GUEST_RAM_BYTES - 15, 16, NEXT, 1}, {GUEST_DATA, 1, WRITE, 0}},
        {{UINT64_MAX - 7, 16, NEXT, 1}, {GUEST_DATA, 1, WRITE, 0}},
        {{MACHINE_VIRTIO_GPA, 16, NEXT, 1}, {GUEST_DATA, 1, WRITE, 0}},
        {{GUEST_DATA, 16, NEXT, 1}, {GUEST_DATA, UINT32_MAX, WRITE, 0}},
        {{GUEST_DATA, 15, NEXT, 1}, {GUEST_DATA, 1, WRITE, 0}}, /* half a header */
        {{GUEST_DATA, 0, NEXT, 1}, {GUEST_DATA, 1, WRITE, 0}},  /* none */
        {{GUEST_DATA, 16, NEXT, 1}, {GUEST_DATA, 0, WRITE, 0}}, /* no room for a status */
        {{GUEST_DATA, 16, 0, 0}},
        {{GUEST_DATA, 16, WRITE | NEXT, 1}, {GUEST_DATA, 16, 0, 0}}, /* wrong way round */
        {{GUEST_TABLE, 0, INDIRECT, 0}},
        {{GUEST_TABLE, 8, INDIRECT, 0}},
        {{GUEST_TABLE, 0xfffffff0, INDIRECT, 0}},
        {{GUEST_TABLE, 16, INDIRECT | NEXT, 1}, {GUEST_DATA, 1, WRITE, 0}},
        {{GUEST_RAM_BYTES - 16, 32, INDIRECT, 0}},
        {{GUEST_DESC, 32, INDIRECT, 0}}, /* a table that contains itself */
        {{0, 0, 0, 0}},
    };
    struct rig rig;
    setup(&rig, 1);
    for (size_t i = 0; i < ARRAY_SIZE(chains); i++) {
        guest_start(&rig.guest, 0, BLK_QUEUE_SIZE);
        memcpy(guest_at(&rig.guest, GUEST_DESC), chains[i], sizeof(chains[i]));
        expect_broken(&rig);
    }
    teardown(&rig);
}

Test(virtio_hostile, an_available_index_that_jumps_breaks_the_device_until_reset)
{
    static const uint16_t indices[] = {129, 0x8000, 0xfffe};
    struct rig rig;
    setup(&rig, 1);
    for (size_t i = 0; i < ARRAY_SIZE(indices); i++) {
        guest_start(&rig.guest, 0, BLK_QUEUE_SIZE);
        rig.guest.avail_idx = indices[i];
        expect_broken(&rig);
    }
    teardown(&rig);
}

Test(virtio_hostile, queues_in_strange_places_are_refused)
{
    struct rig rig;
    struct guest *guest = &rig.guest;
    setup(&rig, 2);
    for (int i = 0; i < 3000; i++) {
        guest_start(guest, 0, BLK_QUEUE_SIZE);
        guest_write(guest, VIRTIO_MMIO_QUEUE_READY, 0);
        guest_queue(guest, (uint16_t)nasty(&rig), nasty(&rig), nasty(&rig), nasty(&rig));
        bool ready = guest_read(guest, VIRTIO_MMIO_QUEUE_READY);
        cr_assert_neq(ready, guest_device_is_broken(guest));
        guest_notify(guest);
    }
    expect_alive(&rig);
    teardown(&rig);
}

static void random_access(struct rig *rig, uint64_t slot_gpa)
{
    static const unsigned widths[] = {1, 2, 4, 4, 4, 4, 8};
    uint8_t data[8];
    uint64_t value = nasty(rig);
    unsigned bytes = widths[pick(rig, ARRAY_SIZE(widths))];
    uint64_t offset = pick(rig, 4) ? pick(rig, 0x120 / 4) * 4 : pick(rig, 0x1000);
    if (offset == VIRTIO_MMIO_STATUS && pick(rig, 4))
        value = GUEST_STATUS_READY; /* or nothing much would ever run */
    memcpy(data, &value, sizeof(data));
    if (pick(rig, 3))
        bus_write(&rig->guest.bus, slot_gpa + offset, data, bytes);
    else
        bus_read(&rig->guest.bus, slot_gpa + offset, data, bytes);
}

Test(virtio_hostile, any_sequence_of_register_accesses_is_survived)
{
    struct rig rig;
    setup(&rig, 3);
    for (int round = 0; round < 40; round++) {
        if (round % 2)
            guest_start(&rig.guest, 0, BLK_QUEUE_SIZE);
        for (int i = 0; i < 2000; i++)
            random_access(&rig, MACHINE_VIRTIO_GPA + pick(&rig, 2) * MACHINE_VIRTIO_STRIDE);
        expect_alive(&rig);
    }
    teardown(&rig);
}

Test(virtio_hostile, every_register_takes_every_pattern)
{
    struct rig rig;
    setup(&rig, 4);
    for (uint32_t reg = 0; reg < 0x140; reg++) {
        for (unsigned bytes = 1; bytes <= 8; bytes *= 2) {
            for (int i = 0; i < 20; i++) {
                uint64_t value = nasty(&rig);
                uint8_t data[8];
                memcpy(data, &value, sizeof(data));
                bus_write(&rig.guest.bus, MACHINE_VIRTIO_GPA + reg, data, bytes);
                bus_read(&rig.guest.bus, MACHINE_VIRTIO_GPA + reg, data, bytes);
            }
        }
    }
    expect_alive(&rig);
    teardown(&rig);
}

static void random_desc(struct rig *rig, uint64_t table, unsigned i)
{
    bool sane = pick(rig, 4);
    uint64_t gpa = sane ? GUEST_DATA + pick(rig, 0x800000) : nasty(rig);
    uint32_t bytes = sane ? pick(rig, 3) * 512 + pick(rig, 2) * 16 : (uint32_t)nasty(rig);
    uint16_t flags = (uint16_t)pick(rig, 4);
    if (!pick(rig, 8))
        flags = (uint16_t)pick(rig, 8);
    uint16_t next = pick(rig, 4) ? (uint16_t)(i + 1) : (uint16_t)pick(rig, 130);
    guest_desc(&rig->guest, table, i, gpa, bytes, flags, next);
}

static void random_ring(struct rig *rig)
{
    struct guest *guest = &rig->guest;
    for (unsigned i = 0; i < BLK_QUEUE_SIZE; i++) {
        random_desc(rig, GUEST_DESC, i);
        random_desc(rig, GUEST_TABLE, i);
    }
    for (int i = 0; i < 200; i++) {
        struct virtio_blk_outhdr header = {
            .type = pick(rig, 12), .sector = pick(rig, 4) ? pick(rig, 8192) : nasty(rig)};
        memcpy(guest_at(guest, GUEST_DATA + pick(rig, 0x800000)), &header, sizeof(header));
    }
    for (int i = 0; i < 64; i++)
        guest_offer(guest, (uint16_t)pick(rig, pick(rig, 8) ? 128 : 0x10000));
    guest_notify(guest);
}

Test(virtio_hostile, random_rings_are_survived_and_a_reset_mends_the_device)
{
    struct rig rig;
    setup(&rig, 5);
    for (int round = 0; round < 600; round++) {
        guest_start(&rig.guest, 0, BLK_QUEUE_SIZE);
        random_ring(&rig);
        if (round % 3 == 0)
            io_drain(rig.io);
        if (round % 50 == 0)
            expect_alive(&rig);
    }
    expect_alive(&rig);
    teardown(&rig);
}

static void *torment(void *data)
{
    struct rig *rig = data;
    for (int i = 0; i < 3000; i++) {
        random_access(rig, MACHINE_VIRTIO_GPA);
        guest_notify(&rig->guest);
    }
    return NULL;
}

static void *pause_and_resume(void *data)
{
    struct rig *rig = data;
    struct blk_state state;
    for (int i = 0; i < 200; i++) {
        blk_pause(rig->blk);
        io_drain(rig->io);
        blk_save(rig->blk, &state);
        blk_resume(rig->blk);
    }
    return NULL;
}

/* Several vCPUs, completions and the owner at once. The rings are filled before, since a guest's
 * stores to them can't be told apart from the device's by ThreadSanitizer. */
Test(virtio_hostile, registers_of_many_vcpus_and_pauses_do_not_deadlock)
{
    struct rig rig, others[3];
    pthread_t threads[4];
    setup(&rig, 6);
    for (int round = 0; round < 5; round++) {
        guest_start(&rig.guest, 0, BLK_QUEUE_SIZE);
        random_ring(&rig);
        for (uint32_t i = 0; i < 3; i++) {
            others[i] = rig;
            others[i].seed = 100 * i + (uint32_t)round;
            pthread_create(&threads[i], NULL, i < 2 ? torment : pause_and_resume, &others[i]);
        }
        for (int i = 0; i < 3; i++)
            pthread_join(threads[i], NULL);
    }
    expect_alive(&rig);
    teardown(&rig);
}

#ifndef __SANITIZE_THREAD__ /* races on guest memory are the point of it */
static void *change_rings(void *data)
{
    struct rig *rig = data;
    struct vring_avail *avail = guest_at(&rig->guest, GUEST_AVAIL);
    for (int i = 0; i < 200000; i++) {
        struct vring_desc *desc = guest_at(&rig->guest, GUEST_DESC + pick(rig, 128) * 16);
        desc->addr = pick(rig, 2) ? GUEST_DATA + pick(rig, 0x800000) : nasty(rig);
        desc->len = pick(rig, 2) ? 512 : (uint32_t)nasty(rig);
        desc->flags = (uint16_t)pick(rig, 4);
        desc->next = (uint16_t)pick(rig, 130);
        __atomic_store_n(&avail->idx, (uint16_t)(avail->idx + pick(rig, 3)), __ATOMIC_RELEASE);
    }
    return NULL;
}

Test(virtio_hostile, descriptors_that_change_while_they_are_read_are_survived)
{
    struct rig rig, other;
    pthread_t thread;
    setup(&rig, 7);
    guest_start(&rig.guest, 0, BLK_QUEUE_SIZE);
    random_ring(&rig);
    other = rig;
    pthread_create(&thread, NULL, change_rings, &other);
    for (int i = 0; i < 2000; i++) {
        guest_notify(&rig.guest);
        if (guest_device_is_broken(&rig.guest))
            guest_start(&rig.guest, 0, BLK_QUEUE_SIZE);
    }
    pthread_join(thread, NULL);
    io_drain(rig.io);
    expect_alive(&rig);
    teardown(&rig);
}
#endif
