// SPDX-License-Identifier: Apache-2.0
// The disk device, driven through its registers and queue.

#include "dev_blk.h"
#include "unit/virtio_guest.h"
#include <criterion/criterion.h>
#include <linux/virtio_blk.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>

#define NEXT         VRING_DESC_F_NEXT
#define WRITE        VRING_DESC_F_WRITE
#define SECTOR       DISK_SECTOR_BYTES
#define DISK_SECTORS 64u
#define HEADERS      GUEST_DATA               /* 16 bytes each */
#define STATUSES     (GUEST_DATA + 0x10000u)  /* a byte each */
#define BUFFERS      (GUEST_DATA + 0x100000u) /* 64 KiB each */
#define BUFFER(i)    (BUFFERS + (i)*0x10000u)
#define STATUS_UNSET 0xee

struct rig {
    struct guest guest;
    struct io *io;
    struct blk *blk;
    char path[64];
    _Atomic int full;
};

static void told_full(void *data)
{
    ((struct rig *)data)->full++;
}

static uint8_t base_byte(uint64_t off)
{
    return (uint8_t)(off / SECTOR + 1);
}

static void make_base(struct rig *rig)
{
    strcpy(rig->path, "/tmp/thaw-test-XXXXXX");
    int fd = mkstemp(rig->path);
    cr_assert(fd >= 0);
    for (uint64_t off = 0; off < DISK_SECTORS * SECTOR; off++) {
        uint8_t byte = base_byte(off);
        cr_assert_eq(write(fd, &byte, 1), 1);
    }
    close(fd);
}

static int device_new(struct rig *rig, struct disk *disk, const struct blk_state *state)
{
    struct blk_env env = {.virtio = guest_env(&rig->guest),
        .io = rig->io,
        .disk = disk,
        .id = "serial-number",
        .full = told_full,
        .full_data = rig};
    return blk_new(&env, state, &rig->blk, NULL);
}

static struct disk *open_disk(struct rig *rig, bool read_only, const char *dir)
{
    struct disk *disk = NULL;
    struct disk_options options = {.path = rig->path, .read_only = read_only, .overlay_dir = dir};
    cr_assert_eq(disk_open(rig->io, &options, &disk, NULL), 0);
    return disk;
}

static void setup(struct rig *rig, bool read_only)
{
    *rig = (struct rig){0};
    guest_init(&rig->guest);
    make_base(rig);
    cr_assert_eq(io_new(IO_BACKEND_AUTO, &rig->io, NULL), 0);
    cr_assert_eq(device_new(rig, open_disk(rig, read_only, "/tmp"), NULL), 0);
    blk_resume(rig->blk);
    guest_start(&rig->guest, 1ull << VIRTIO_BLK_F_FLUSH, BLK_QUEUE_SIZE);
}

static void teardown(struct rig *rig)
{
    blk_free(rig->blk);
    io_free(rig->io);
    guest_fini(&rig->guest);
    unlink(rig->path);
}

static void set_header(struct guest *guest, uint16_t slot, uint32_t type, uint64_t sector)
{
    struct virtio_blk_outhdr *header = guest_at(guest, HEADERS + slot * 16u);
    *header = (struct virtio_blk_outhdr){.type = type, .sector = sector};
    *(uint8_t *)guest_at(guest, STATUSES + slot) = STATUS_UNSET;
}

/* Offers a request as Linux does: header, data, status, in descriptors 3 * slot and following. */
static void offer(struct guest *guest, uint16_t slot, uint32_t type, uint64_t sector, uint64_t gpa,
    uint32_t bytes)
{
    uint16_t d = (uint16_t)(3 * slot);
    set_header(guest, slot, type, sector);
    guest_desc(guest, GUEST_DESC, d, HEADERS + slot * 16u, 16, NEXT, (uint16_t)(d + 1));
    guest_desc(guest, GUEST_DESC, d + 1u, gpa, bytes,
        type == VIRTIO_BLK_T_OUT ? NEXT : NEXT | WRITE, (uint16_t)(d + 2));
    guest_desc(guest, GUEST_DESC, d + 2u, STATUSES + slot, 1, WRITE, 0);
    guest_offer(guest, d);
}

static uint8_t status(struct guest *guest, uint16_t slot)
{
    return *(uint8_t *)guest_at(guest, STATUSES + slot);
}

static uint8_t request(
    struct rig *rig, uint32_t type, uint64_t sector, uint64_t gpa, uint32_t bytes)
{
    uint32_t head = 1, written = 0;
    offer(&rig->guest, 0, type, sector, gpa, bytes);
    guest_notify(&rig->guest);
    guest_wait_used(&rig->guest, &head, &written);
    cr_assert_eq(head, 0);
    return status(&rig->guest, 0);
}

static void expect_sector(struct rig *rig, uint64_t sector, uint8_t byte)
{
    cr_assert_eq(request(rig, VIRTIO_BLK_T_IN, sector, BUFFER(15), SECTOR), VIRTIO_BLK_S_OK);
    uint8_t *data = guest_at(&rig->guest, BUFFER(15));
    cr_assert(data[0] == byte && data[SECTOR - 1] == byte);
}

Test(dev_blk, describes_the_disk)
{
    struct rig rig;
    setup(&rig, true);
    cr_assert_eq(guest_read(&rig.guest, VIRTIO_MMIO_DEVICE_ID), 2);
    cr_assert_eq(guest_read(&rig.guest, VIRTIO_MMIO_CONFIG), DISK_SECTORS);
    cr_assert_eq(guest_read(&rig.guest, VIRTIO_MMIO_CONFIG + 12), BLK_SEGMENTS_MAX);
    cr_assert_eq(guest_read(&rig.guest, VIRTIO_MMIO_CONFIG + 20), SECTOR);
    guest_write(&rig.guest, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
    cr_assert(guest_read(&rig.guest, VIRTIO_MMIO_DEVICE_FEATURES) >> VIRTIO_BLK_F_RO & 1);
    teardown(&rig);
}

Test(dev_blk, reads_and_writes_sectors)
{
    struct rig rig;
    setup(&rig, false);
    expect_sector(&rig, 5, 6);
    memset(guest_at(&rig.guest, BUFFER(0)), 0x77, 3 * SECTOR);
    cr_assert_eq(request(&rig, VIRTIO_BLK_T_OUT, 6, BUFFER(0), 3 * SECTOR), VIRTIO_BLK_S_OK);
    cr_assert_eq(request(&rig, VIRTIO_BLK_T_FLUSH, 0, BUFFER(0), 0), VIRTIO_BLK_S_OK);
    expect_sector(&rig, 5, 6);
    expect_sector(&rig, 6, 0x77);
    expect_sector(&rig, 8, 0x77);
    expect_sector(&rig, 9, 10);
    cr_assert_eq(guest_read(&rig.guest, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
    teardown(&rig);
}

Test(dev_blk, marks_what_it_wrote_into_guest_memory)
{
    struct rig rig;
    setup(&rig, false);
    cr_assert_eq(request(&rig, VIRTIO_BLK_T_IN, 0, BUFFER(1) + 4000, SECTOR), VIRTIO_BLK_S_OK);
    for (uint64_t page = BUFFER(1) / PAGE_BYTES; page < BUFFER(1) / PAGE_BYTES + 3; page++) {
        bool dirty = rig.guest.mem.host_dirty[page / 64] >> (page % 64) & 1;
        cr_assert_eq(dirty, page < BUFFER(1) / PAGE_BYTES + 2);
    }
    teardown(&rig);
}

Test(dev_blk, takes_requests_in_any_layout)
{
    struct rig rig;
    struct guest *guest = &rig.guest;
    uint32_t head = 0, written = 0;
    setup(&rig, false);

    /* The header in three pieces, one of them with data; the status at the end of other data. */
    set_header(guest, 0, VIRTIO_BLK_T_OUT, 20);
    memset(guest_at(guest, HEADERS + 16), 0x42, SECTOR);
    guest_desc(guest, GUEST_DESC, 0, HEADERS, 3, NEXT, 1);
    guest_desc(guest, GUEST_DESC, 1, HEADERS + 3, 10, NEXT, 2);
    guest_desc(guest, GUEST_DESC, 2, HEADERS + 13, 3 + 100, NEXT, 3);
    guest_desc(guest, GUEST_DESC, 3, HEADERS + 116, SECTOR - 100, NEXT, 4);
    guest_desc(guest, GUEST_DESC, 4, STATUSES, 1, WRITE, 0);
    guest_offer(guest, 0);
    guest_notify(guest);
    guest_wait_used(guest, &head, &written);
    cr_assert_eq(status(guest, 0), VIRTIO_BLK_S_OK);
    expect_sector(&rig, 20, 0x42);

    set_header(guest, 0, VIRTIO_BLK_T_IN, 20);
    guest_desc(guest, GUEST_DESC, 0, HEADERS, 16, NEXT, 1);
    guest_desc(guest, GUEST_DESC, 1, BUFFER(0), 1, NEXT | WRITE, 2);
    guest_desc(guest, GUEST_DESC, 2, BUFFER(1), SECTOR, WRITE, 0);
    guest_offer(guest, 0);
    guest_notify(guest);
    guest_wait_used(guest, &head, &written);
    cr_assert_eq(written, SECTOR + 1);
    uint8_t *data = guest_at(guest, BUFFER(1));
    cr_assert_eq(data[SECTOR - 2], 0x42);
    cr_assert_eq(data[SECTOR - 1], VIRTIO_BLK_S_OK);
    teardown(&rig);
}

Test(dev_blk, answers_many_requests_at_once)
{
    struct rig rig;
    struct guest *guest = &rig.guest;
    setup(&rig, false);
    for (int round = 0; round < 20; round++) {
        for (uint16_t i = 0; i < 42; i++)
            offer(guest, i, VIRTIO_BLK_T_IN, i, BUFFERS + i * SECTOR, SECTOR);
        guest_notify(guest);
        for (int i = 0; i < 42; i++) {
            uint32_t head = 0, written = 0;
            guest_wait_used(guest, &head, &written);
            cr_assert_eq(status(guest, (uint16_t)(head / 3)), VIRTIO_BLK_S_OK);
            cr_assert_eq(*(uint8_t *)guest_at(guest, BUFFERS + head / 3 * SECTOR), head / 3 + 1);
        }
    }
    teardown(&rig);
}

Test(dev_blk, says_its_serial_number)
{
    struct rig rig;
    setup(&rig, false);
    memset(guest_at(&rig.guest, BUFFER(0)), 'x', 32);
    cr_assert_eq(request(&rig, VIRTIO_BLK_T_GET_ID, 0, BUFFER(0), BLK_ID_BYTES), VIRTIO_BLK_S_OK);
    cr_assert(memcmp(guest_at(&rig.guest, BUFFER(0)), "serial-number\0\0\0\0\0\0\0x", 21) == 0);
    memset(guest_at(&rig.guest, BUFFER(0)), 'x', 32);
    cr_assert_eq(request(&rig, VIRTIO_BLK_T_GET_ID, 0, BUFFER(0), 6), VIRTIO_BLK_S_OK);
    cr_assert(memcmp(guest_at(&rig.guest, BUFFER(0)), "serialx", 7) == 0);
    teardown(&rig);
}

Test(dev_blk, refuses_what_it_cannot_do)
{
    struct rig rig;
    setup(&rig, false);
    cr_assert_eq(request(&rig, 0x1234, 0, BUFFER(0), SECTOR), VIRTIO_BLK_S_UNSUPP);
    cr_assert_eq(request(&rig, VIRTIO_BLK_T_DISCARD, 0, BUFFER(0), 16), VIRTIO_BLK_S_UNSUPP);
    static const struct {
        uint64_t sector;
        uint32_t bytes;
    } bad[] = {{DISK_SECTORS, SECTOR}, {DISK_SECTORS - 1, 2 * SECTOR}, {UINT64_MAX, SECTOR},
        {1ull << 55, SECTOR}, {0, 100}, {0, SECTOR + 1}, {DISK_SECTORS + 1, SECTOR}};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        cr_assert_eq(request(&rig, VIRTIO_BLK_T_IN, bad[i].sector, BUFFER(0), bad[i].bytes),
            VIRTIO_BLK_S_IOERR);
        cr_assert_eq(request(&rig, VIRTIO_BLK_T_OUT, bad[i].sector, BUFFER(0), bad[i].bytes),
            VIRTIO_BLK_S_IOERR);
    }
    expect_sector(&rig, DISK_SECTORS - 1, DISK_SECTORS);
    teardown(&rig);
}

Test(dev_blk, does_not_write_to_a_read_only_disk)
{
    struct rig rig;
    setup(&rig, true);
    cr_assert_eq(request(&rig, VIRTIO_BLK_T_OUT, 0, BUFFER(0), SECTOR), VIRTIO_BLK_S_IOERR);
    expect_sector(&rig, 0, 1);
    teardown(&rig);
}

Test(dev_blk, takes_nothing_while_paused_and_looks_for_it_on_resume)
{
    struct rig rig;
    uint32_t head = 0, written = 0;
    setup(&rig, false);
    blk_pause(rig.blk);
    io_drain(rig.io);
    offer(&rig.guest, 0, VIRTIO_BLK_T_IN, 7, BUFFER(0), SECTOR);
    guest_notify(&rig.guest);
    io_drain(rig.io);
    cr_assert(!guest_take_used(&rig.guest, &head, &written));
    blk_resume(rig.blk);
    guest_wait_used(&rig.guest, &head, &written);
    cr_assert_eq(*(uint8_t *)guest_at(&rig.guest, BUFFER(0)), 8);
    teardown(&rig);
}

Test(dev_blk, goes_on_in_another_device_from_a_saved_state)
{
    struct rig rig;
    struct blk_state state;
    uint32_t head = 0, written = 0;
    setup(&rig, false);
    expect_sector(&rig, 3, 4);
    blk_pause(rig.blk);
    io_drain(rig.io);
    offer(&rig.guest, 0, VIRTIO_BLK_T_IN, 7, BUFFER(0), SECTOR);
    blk_save(rig.blk, &state);
    blk_free(rig.blk);

    rig.guest.bus = (struct bus){0};
    cr_assert_eq(device_new(&rig, open_disk(&rig, false, "/tmp"), &state), 0);
    io_drain(rig.io);
    cr_assert(!guest_take_used(&rig.guest, &head, &written), "not before it is resumed");
    blk_resume(rig.blk);
    guest_wait_used(&rig.guest, &head, &written);
    cr_assert_eq(*(uint8_t *)guest_at(&rig.guest, BUFFER(0)), 8);
    expect_sector(&rig, 3, 4);

    struct disk *disk = open_disk(&rig, false, "/tmp");
    struct blk *blk = rig.blk;
    rig.guest.bus = (struct bus){0};
    state.parked_count = 1;
    state.parked[0] = BLK_QUEUE_SIZE;
    cr_assert_eq(device_new(&rig, disk, &state), THAW_ECORRUPT);
    state.parked_count = UINT32_MAX;
    cr_assert_eq(device_new(&rig, disk, &state), THAW_ECORRUPT);
    disk_free(disk);
    rig.blk = blk;
    teardown(&rig);
}

/* A base whose blocks take their time. */
static void slow_lookup(
    const struct disk_layer *layer, uint64_t block, uint64_t count, struct disk_extent *ret)
{
    (void)layer;
    (void)block;
    *ret = (struct disk_extent){.kind = DISK_EXTENT_SOURCE, .fd = -1, .blocks = count};
}

static int slow_read(const struct disk_layer *layer, uint64_t block, uint64_t count, void *buf)
{
    (void)layer;
    struct timespec pause = {.tv_nsec = 3000000};
    nanosleep(&pause, NULL);
    memset(buf, (int)block + 1, count * DISK_BLOCK_BYTES);
    return 0;
}

static void slow_free(struct disk_layer *layer)
{
    free(layer);
}

static const struct disk_layer_ops slow_ops = {
    .lookup = slow_lookup, .read = slow_read, .free = slow_free};

Test(dev_blk, leaves_guest_memory_alone_after_a_reset)
{
    struct rig rig = {0};
    struct guest *guest = &rig.guest;
    struct disk *disk = NULL;
    struct disk_overlay *overlay = NULL;
    struct disk_layer *slow = malloc(sizeof(*slow));
    *slow = (struct disk_layer){.ops = &slow_ops};
    guest_init(guest);
    make_base(&rig);
    cr_assert_eq(io_new(IO_BACKEND_AUTO, &rig.io, NULL), 0);
    cr_assert_eq(disk_overlay_new("/tmp", MIB, &overlay, NULL), 0);
    cr_assert_eq(disk_new(rig.io, slow, overlay, MIB, &disk, NULL), 0);
    cr_assert_eq(device_new(&rig, disk, NULL), 0);
    blk_resume(rig.blk);

    for (int round = 0; round < 10; round++) {
        guest_start(guest, 0, BLK_QUEUE_SIZE);
        for (uint16_t i = 0; i < 10; i++)
            offer(guest, i, i % 2 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, i * 8u + 1, BUFFER(i),
                SECTOR);
        guest_notify(guest);
        usleep((useconds_t)round * 1000);
        if (round % 2)
            guest_write(guest, VIRTIO_MMIO_STATUS, 0);
        else
            guest_write(guest, VIRTIO_MMIO_QUEUE_READY, 0);
        memset(guest_at(guest, GUEST_DATA), 0x5a, 0x200000);
        usleep(10000);
        const uint8_t *bytes = guest_at(guest, GUEST_DATA);
        for (uint32_t i = 0; i < 0x200000; i++)
            cr_assert_eq(bytes[i], 0x5a);
    }
    guest_start(guest, 0, BLK_QUEUE_SIZE);
    cr_assert_eq(request(&rig, VIRTIO_BLK_T_IN, 200, BUFFER(0), SECTOR), VIRTIO_BLK_S_OK);
    cr_assert_eq(*(uint8_t *)guest_at(guest, BUFFER(0)), 200 / 8 + 1);
    teardown(&rig);
}

Test(dev_blk, is_freed_with_requests_in_its_queue)
{
    struct rig rig;
    setup(&rig, false);
    for (uint16_t i = 0; i < 30; i++)
        offer(&rig.guest, i, VIRTIO_BLK_T_IN, i, BUFFERS + i * SECTOR, SECTOR);
    guest_notify(&rig.guest);
    teardown(&rig);
    blk_free(NULL);
}

/* A device whose overlay has room for four blocks and which was given eight to write: some are
 * parked. False if the host does not let us make it. Returns how many were answered. */
static bool setup_full(struct rig *rig, char *dir, unsigned *ret_answered)
{
    uint32_t head = 0, written = 0;
    cr_assert_not_null(mkdtemp(dir));
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", dir, "tmpfs", 0, "size=16k") < 0) {
        rmdir(dir);
        return false;
    }
    *rig = (struct rig){0};
    guest_init(&rig->guest);
    make_base(rig);
    cr_assert_eq(io_new(IO_BACKEND_AUTO, &rig->io, NULL), 0);
    cr_assert_eq(device_new(rig, open_disk(rig, false, dir), NULL), 0);
    blk_resume(rig->blk);
    guest_start(&rig->guest, 0, BLK_QUEUE_SIZE);
    memset(guest_at(&rig->guest, BUFFERS), 0x99, DISK_SECTORS * SECTOR);
    for (uint16_t i = 0; i < 8; i++)
        offer(&rig->guest, i, VIRTIO_BLK_T_OUT, i * 8u, BUFFERS + i * 4096u, 4096);
    guest_notify(&rig->guest);
    io_drain(rig->io);
    *ret_answered = 0;
    while (guest_take_used(&rig->guest, &head, &written)) {
        cr_assert_eq(status(&rig->guest, (uint16_t)(head / 3)), VIRTIO_BLK_S_OK);
        ++*ret_answered;
    }
    return true;
}

static void teardown_full(struct rig *rig, const char *dir)
{
    teardown(rig);
    umount(dir);
    rmdir(dir);
}

Test(dev_blk, parks_writes_that_find_the_host_full)
{
    char dir[] = "/tmp/thaw-full-XXXXXX";
    struct rig rig;
    unsigned answered = 0;
    uint32_t head = 0, written = 0;
    if (!setup_full(&rig, dir, &answered))
        cr_skip_test("needs the right to mount a small tmpfs");
    cr_assert_lt(answered, 8);
    cr_assert_eq(rig.full, 1, "told once");

    blk_pause(rig.blk);
    io_drain(rig.io);
    blk_resume(rig.blk);
    io_drain(rig.io);
    cr_assert_eq(rig.full, 2, "still full");
    cr_assert(!guest_take_used(&rig.guest, &head, &written));

    blk_pause(rig.blk);
    io_drain(rig.io);
    cr_assert_eq(mount("none", dir, "tmpfs", MS_REMOUNT, "size=1m"), 0);
    blk_resume(rig.blk);
    for (; answered < 8; answered++) {
        guest_wait_used(&rig.guest, &head, &written);
        cr_assert_eq(status(&rig.guest, (uint16_t)(head / 3)), VIRTIO_BLK_S_OK);
    }
    for (uint64_t sector = 0; sector < DISK_SECTORS; sector += 5)
        expect_sector(&rig, sector, 0x99);
    teardown_full(&rig, dir);
}

Test(dev_blk, saves_parked_writes_and_carries_them_out_after_a_restore)
{
    char dir[] = "/tmp/thaw-full-XXXXXX";
    struct rig rig;
    struct blk_state state;
    unsigned answered = 0;
    uint32_t heads[8] = {0}, written = 0;
    if (!setup_full(&rig, dir, &answered))
        cr_skip_test("needs the right to mount a small tmpfs");
    blk_pause(rig.blk);
    io_drain(rig.io);
    blk_save(rig.blk, &state);
    blk_free(rig.blk);
    cr_assert_eq(answered + state.parked_count, 8, "none is failed, none is lost");

    rig.guest.bus = (struct bus){0};
    cr_assert_eq(device_new(&rig, open_disk(&rig, false, "/tmp"), &state), 0);
    blk_resume(rig.blk);
    for (unsigned i = 0; i < state.parked_count; i++) {
        guest_wait_used(&rig.guest, &heads[i], &written);
        cr_assert_eq(status(&rig.guest, (uint16_t)(heads[i] / 3)), VIRTIO_BLK_S_OK);
    }
    for (unsigned i = 0; i < state.parked_count; i++)
        expect_sector(&rig, heads[i] / 3 * 8 + 7, 0x99);
    teardown_full(&rig, dir);
}

Test(dev_blk, forgets_parked_writes_on_reset)
{
    char dir[] = "/tmp/thaw-full-XXXXXX";
    struct rig rig;
    unsigned answered = 0;
    if (!setup_full(&rig, dir, &answered))
        cr_skip_test("needs the right to mount a small tmpfs");
    guest_start(&rig.guest, 0, BLK_QUEUE_SIZE);
    blk_pause(rig.blk);
    io_drain(rig.io);
    blk_resume(rig.blk);
    expect_sector(&rig, DISK_SECTORS - 1, DISK_SECTORS);
    cr_assert_eq(rig.full, 1);
    teardown_full(&rig, dir);
}
