// SPDX-License-Identifier: Apache-2.0
// The virtio-mmio transport, one split virtqueue, and block requests of three descriptors each.
// Each slot owns its three descriptors for good, so there is no free list.
#include "virtio_blk.h"

#include "cpu.h"
#include "guest.h"

enum { /* register offsets */
    REG_MAGIC = 0x000,
    REG_VERSION = 0x004,
    REG_DEVICE_ID = 0x008,
    REG_DEVICE_FEATURES = 0x010,
    REG_DEVICE_FEATURES_SEL = 0x014,
    REG_DRIVER_FEATURES = 0x020,
    REG_DRIVER_FEATURES_SEL = 0x024,
    REG_QUEUE_SEL = 0x030,
    REG_QUEUE_NUM_MAX = 0x034,
    REG_QUEUE_NUM = 0x038,
    REG_QUEUE_READY = 0x044,
    REG_QUEUE_NOTIFY = 0x050,
    REG_STATUS = 0x070,
    REG_QUEUE_DESC = 0x080,
    REG_QUEUE_DRIVER = 0x090,
    REG_QUEUE_DEVICE = 0x0a0,
    REG_CAPACITY = 0x100,
};

enum {
    MAGIC = 0x74726976, /* "virt" */
    VERSION = 2,
    ID_BLOCK = 2,
    STATUS_ACKNOWLEDGE = 1,
    STATUS_DRIVER = 2,
    STATUS_DRIVER_OK = 4,
    STATUS_FEATURES_OK = 8,
    FEATURE_RO = 1 << 5,
    FEATURE_FLUSH = 1 << 9,
    FEATURE_VERSION_1 = 1 << 0, /* of the upper 32 bits */
    DESC_NEXT = 1,
    DESC_WRITE = 2, /* by the device */
    AVAIL_NO_INTERRUPT = 1,
    QUEUE_SIZE = 32, /* a power of two, at least 3 * BLK_SLOTS */
    SLOT_DESCS = 3,
    THAW_FIRST_SLOT = 0xd0000000,
    THAW_SLOT_BYTES = 0x1000,
    THAW_SLOTS = 16,
};

struct desc {
    uint64_t gpa;
    uint32_t bytes;
    uint16_t flags, next;
};

struct avail {
    uint16_t flags, idx, ring[QUEUE_SIZE];
};

struct used {
    uint16_t flags;
    volatile uint16_t idx;
    struct {
        uint32_t id, bytes;
    } ring[QUEUE_SIZE];
};

struct request {
    uint32_t type, reserved;
    uint64_t sector;
    volatile uint8_t status;
};

static struct desc descs[QUEUE_SIZE] __attribute__((aligned(16)));
static struct avail avail;
static struct used used __attribute__((aligned(4)));
static struct request requests[BLK_SLOTS];

/* The device reads and writes memory behind the compiler's back. x86 itself keeps the order. */
static void barrier(void)
{
    __asm__ volatile("" : : : "memory");
}

static uint32_t read_reg(const struct blk *d, unsigned int reg)
{
    return cpu_read_mmio(d->gpa + reg);
}

static void write_reg(const struct blk *d, unsigned int reg, uint32_t value)
{
    cpu_write_mmio(d->gpa + reg, value);
}

static void write_reg_gpa(const struct blk *d, unsigned int reg, const void *p)
{
    write_reg(d, reg, (uint32_t)(uintptr_t)p);
    write_reg(d, reg + 4, (uint32_t)((uintptr_t)p >> 32));
}

/* Whether `gpa` is the block device that is wanted; counts `index` down at each that is passed. */
static bool is_wanted(uintptr_t gpa, uint64_t *index)
{
    if (cpu_read_mmio(gpa + REG_MAGIC) != MAGIC || cpu_read_mmio(gpa + REG_DEVICE_ID) != ID_BLOCK)
        return false;
    if ((*index)--)
        return false;
    if (cpu_read_mmio(gpa + REG_VERSION) != VERSION)
        fail("device at %lx is legacy virtio; QEMU needs virtio-mmio.force-legacy=false", gpa);
    return true;
}

static uintptr_t find(const char *cmdline, uint64_t index)
{
    const char *key = "virtio_mmio.device", *s = option_find(cmdline, key);
    uint64_t wanted = index, gpa;

    if (!s) {
        for (uintptr_t i = 0; i < THAW_SLOTS; i++)
            if (is_wanted(THAW_FIRST_SLOT + i * THAW_SLOT_BYTES, &index))
                return THAW_FIRST_SLOT + i * THAW_SLOT_BYTES;
    }
    for (; s; s = option_find(s, key)) {
        while (*s && *s != ' ' && *s != '@')
            s++;
        if (*s == '@' && parse_u64(s + 1, &gpa) != s + 1 && is_wanted(gpa, &index))
            return gpa;
    }
    fail("there is no block device number %lu", wanted);
}

static void negotiate(struct blk *d)
{
    uint32_t low, high;

    write_reg(d, REG_STATUS, 0);
    write_reg(d, REG_STATUS, STATUS_ACKNOWLEDGE);
    write_reg(d, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    write_reg(d, REG_DEVICE_FEATURES_SEL, 0);
    low = read_reg(d, REG_DEVICE_FEATURES) & (FEATURE_RO | FEATURE_FLUSH);
    write_reg(d, REG_DEVICE_FEATURES_SEL, 1);
    high = read_reg(d, REG_DEVICE_FEATURES) & FEATURE_VERSION_1;
    write_reg(d, REG_DRIVER_FEATURES_SEL, 0);
    write_reg(d, REG_DRIVER_FEATURES, low);
    write_reg(d, REG_DRIVER_FEATURES_SEL, 1);
    write_reg(d, REG_DRIVER_FEATURES, high);
    write_reg(d, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
    if (!high || !(read_reg(d, REG_STATUS) & STATUS_FEATURES_OK))
        fail("device at %lx did not accept virtio 1", d->gpa);
    d->read_only = low & FEATURE_RO;
    d->has_flush = low & FEATURE_FLUSH;
}

static void set_up_queue(struct blk *d)
{
    for (uint16_t i = 0; i < BLK_SLOTS * SLOT_DESCS; i++)
        descs[i].next = (uint16_t)(i + 1);
    avail.flags = AVAIL_NO_INTERRUPT;
    barrier();
    write_reg(d, REG_QUEUE_SEL, 0);
    if (read_reg(d, REG_QUEUE_NUM_MAX) < QUEUE_SIZE)
        fail("queue of device at %lx is too short", d->gpa);
    write_reg(d, REG_QUEUE_NUM, QUEUE_SIZE);
    write_reg_gpa(d, REG_QUEUE_DESC, descs);
    write_reg_gpa(d, REG_QUEUE_DRIVER, &avail);
    write_reg_gpa(d, REG_QUEUE_DEVICE, &used);
    write_reg(d, REG_QUEUE_READY, 1);
}

void blk_open(struct blk *d, const char *cmdline, uint64_t index)
{
    *d = (struct blk){.gpa = find(cmdline, index)};
    negotiate(d);
    set_up_queue(d);
    write_reg(
        d, REG_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
    d->capacity_sectors = (uint64_t)read_reg(d, REG_CAPACITY + 4) << 32 | read_reg(d, REG_CAPACITY);
}

void blk_submit(struct blk *d, unsigned int slot, enum blk_request type, uint64_t sector,
    void *data, uint32_t bytes)
{
    uint16_t first = (uint16_t)(slot * SLOT_DESCS);
    struct desc *head = &descs[first];
    struct request *r = &requests[slot];

    r->type = type;
    r->sector = sector;
    r->status = 0xff;
    head[0].gpa = (uintptr_t)r;
    head[0].bytes = 16;
    head[0].flags = DESC_NEXT;
    head[0].next = (uint16_t)(bytes ? first + 1 : first + 2); /* a flush has no data */
    head[1].gpa = (uintptr_t)data;
    head[1].bytes = bytes;
    head[1].flags = (uint16_t)(type == BLK_READ ? DESC_NEXT | DESC_WRITE : DESC_NEXT);
    head[2].gpa = (uintptr_t)&r->status;
    head[2].bytes = 1;
    head[2].flags = DESC_WRITE;
    avail.ring[d->submitted++ % QUEUE_SIZE] = first;
}

void blk_kick(struct blk *d)
{
    barrier();
    avail.idx = d->submitted;
    barrier();
    write_reg(d, REG_QUEUE_NOTIFY, 0);
}

unsigned int blk_reap(struct blk *d, enum blk_status *ret_status)
{
    uint32_t id;

    while (used.idx == d->reaped)
        cpu_pause();
    barrier();
    id = used.ring[d->reaped++ % QUEUE_SIZE].id;
    if (id % SLOT_DESCS || id / SLOT_DESCS >= BLK_SLOTS)
        fail("device completed request %lu, which does not exist", (uint64_t)id);
    *ret_status = requests[id / SLOT_DESCS].status;
    return id / SLOT_DESCS;
}

enum blk_status blk_do(
    struct blk *d, enum blk_request type, uint64_t sector, void *data, uint32_t bytes)
{
    enum blk_status status;

    blk_submit(d, 0, type, sector, data, bytes);
    blk_kick(d);
    if (blk_reap(d, &status) != 0)
        fail("device completed a request that was not made");
    return status;
}
