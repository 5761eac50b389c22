// SPDX-License-Identifier: Apache-2.0
// virtio-mmio, its queues, and the disk and entropy devices. The input is what a guest does: writes
// to registers and to memory, at any time, in any order; and what the owner does: pause, save,
// restore from a state that may be damaged.

#include "dev_blk.h"
#include "dev_rng.h"
#include "fuzz_input.h"
#include "machine.h"
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <sys/mman.h>

#define DISK_BYTES (64 * KIB + 512)
#define DESC_GPA   0x1000u
#define AVAIL_GPA  0x2000u
#define USED_GPA   0x3000u
#define HEADER_GPA 0x4000u
#define DATA_GPA   0x10000u
#define QUEUE_SIZE 8
#define STEPS_MAX  200 /* keeps one input fast */

enum {
    SLOT_BLK,
    SLOT_RNG,
    SLOTS
};

struct rig {
    struct io *io;
    struct bus bus;
    struct blk *blk;
    struct rng *rng;
};

static struct mem mem;
static int image = -1;

static void write_reg(const struct rig *rig, unsigned slot, uint32_t reg, uint32_t value)
{
    uint64_t gpa = MACHINE_VIRTIO_GPA + (uint64_t)slot * MACHINE_VIRTIO_STRIDE + reg;
    bus_write(&rig->bus, gpa, (const uint8_t *)&value, sizeof(value));
}

static struct virtio_env env_of(struct rig *rig, unsigned slot)
{
    return (struct virtio_env){.mem = &mem, .mmio = &rig->bus, .vm_fd = -1, .slot = slot};
}

/* False if the state is refused. */
static bool make_blk(struct rig *rig, const struct blk_state *state)
{
    struct disk *disk = NULL;
    struct disk_options options = {.fd = image, .overlay_dir = "/dev/shm"};
    FUZZ_ASSERT(disk_open(rig->io, &options, &disk, NULL) == 0);
    struct blk_env env = {
        .virtio = env_of(rig, SLOT_BLK), .io = rig->io, .disk = disk, .id = "fuzz"};
    struct thaw_error error = {0};
    int r = blk_new(&env, state, &rig->blk, &error);
    if (r < 0) {
        FUZZ_ASSERT(state && r == THAW_ECORRUPT && error.message[0]);
        disk_free(disk);
        return false;
    }
    blk_resume(rig->blk);
    return true;
}

static bool make_rng(struct rig *rig, const struct virtio_mmio_state *state)
{
    struct virtio_env env = env_of(rig, SLOT_RNG);
    int r = rng_new(&env, state, &rig->rng, NULL);
    FUZZ_ASSERT(r == 0 || (state && r == THAW_ECORRUPT));
    if (r == 0)
        rng_resume(rig->rng);
    return r == 0;
}

/* Changes up to three bytes. */
static void damage(struct fuzz_input *input, void *state, size_t bytes)
{
    for (unsigned i = fuzz_u8(input) % 4; i > 0; i--)
        ((uint8_t *)state)[fuzz_u16(input) % bytes] = fuzz_u8(input);
}

/* What of a state would be no valid object in C: the snapshot's decoder makes valid ones. */
static void make_bools(struct virtio_mmio_state *state, const uint8_t *raw)
{
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        size_t at = offsetof(struct virtio_mmio_state, queues) + i * sizeof(state->queues[0]) +
                    offsetof(struct virtqueue, ready);
        state->queues[i].ready = raw[at] & 1;
    }
}

static void save_and_restore(struct fuzz_input *input, struct rig *rig)
{
    struct blk_state blk_state, blk_damaged;
    struct virtio_mmio_state rng_state, rng_damaged;
    blk_pause(rig->blk);
    io_drain(rig->io);
    blk_save(rig->blk, &blk_state);
    rng_save(rig->rng, &rng_state);
    blk_free(rig->blk);
    rng_free(rig->rng);
    rig->bus = (struct bus){0};
    blk_damaged = blk_state;
    rng_damaged = rng_state;
    damage(input, &blk_damaged, sizeof(blk_damaged));
    damage(input, &rng_damaged, sizeof(rng_damaged));
    make_bools(&blk_damaged.virtio, (const uint8_t *)&blk_damaged.virtio);
    make_bools(&rng_damaged, (const uint8_t *)&rng_damaged);
    /* A state that the guest brought about is always taken. */
    if (!make_blk(rig, &blk_damaged))
        FUZZ_ASSERT(make_blk(rig, &blk_state));
    if (!make_rng(rig, &rng_damaged))
        FUZZ_ASSERT(make_rng(rig, &rng_state));
}

/* What a driver does first. */
static void start_driver(const struct rig *rig, unsigned slot)
{
    write_reg(rig, slot, VIRTIO_MMIO_STATUS, 0);
    write_reg(rig, slot, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    write_reg(rig, slot, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    write_reg(rig, slot, VIRTIO_MMIO_DRIVER_FEATURES, 1);
    write_reg(rig, slot, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_FEATURES_OK);
    write_reg(rig, slot, VIRTIO_MMIO_QUEUE_SEL, 0);
    write_reg(rig, slot, VIRTIO_MMIO_QUEUE_NUM, QUEUE_SIZE);
    write_reg(rig, slot, VIRTIO_MMIO_QUEUE_DESC_LOW, DESC_GPA);
    write_reg(rig, slot, VIRTIO_MMIO_QUEUE_AVAIL_LOW, AVAIL_GPA);
    write_reg(rig, slot, VIRTIO_MMIO_QUEUE_USED_LOW, USED_GPA);
    write_reg(rig, slot, VIRTIO_MMIO_QUEUE_READY, 1);
    write_reg(rig, slot, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_DRIVER_OK);
}

static void put_desc(struct fuzz_input *input)
{
    struct vring_desc desc = {0};
    unsigned index = fuzz_u8(input) % QUEUE_SIZE;
    uint8_t where = fuzz_u8(input);
    desc.addr = where & 0x80 ? DATA_GPA + 64u * where : HEADER_GPA + 16u * where;
    if (where == 0xff)
        fuzz_take(input, &desc.addr, sizeof(desc.addr));
    desc.len = fuzz_u16(input);
    if (desc.len == UINT16_MAX)
        desc.len = fuzz_u32(input);
    desc.flags = fuzz_u8(input) & 7;
    desc.next = fuzz_u8(input) % (QUEUE_SIZE + 1);
    (void)mem_write(&mem, DESC_GPA + index * sizeof(desc), &desc, sizeof(desc));
}

static void put_header(struct fuzz_input *input)
{
    uint8_t where = fuzz_u8(input) & 0x7f;
    struct virtio_blk_outhdr header = {.type = fuzz_u8(input) % 16, .sector = fuzz_u8(input)};
    (void)mem_write(&mem, HEADER_GPA + 16u * where, &header, sizeof(header));
}

static void offer(struct fuzz_input *input, const struct rig *rig, unsigned slot)
{
    uint16_t idx = 0, head = fuzz_u8(input) % (QUEUE_SIZE + 1);
    uint64_t gpa = AVAIL_GPA + offsetof(struct vring_avail, idx);
    (void)mem_read(&mem, gpa, &idx, sizeof(idx));
    (void)mem_write(&mem, AVAIL_GPA + offsetof(struct vring_avail, ring) + 2u * (idx % QUEUE_SIZE),
        &head, sizeof(head));
    idx++;
    (void)mem_write(&mem, gpa, &idx, sizeof(idx));
    write_reg(rig, slot, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
}

static void access_any(struct fuzz_input *input, const struct rig *rig, unsigned slot, bool write)
{
    uint8_t data[8];
    unsigned bytes = 1u << (fuzz_u8(input) & 3);
    uint64_t gpa = MACHINE_VIRTIO_GPA + slot * MACHINE_VIRTIO_STRIDE + fuzz_u16(input) % 0x140;
    fuzz_take(input, data, sizeof(data));
    if (write)
        bus_write(&rig->bus, gpa, data, bytes);
    else
        bus_read(&rig->bus, gpa, data, bytes);
}

static void write_memory(struct fuzz_input *input)
{
    uint8_t data[32];
    unsigned bytes = fuzz_u8(input) % sizeof(data);
    uint64_t gpa = DESC_GPA + fuzz_u16(input) % (DATA_GPA - DESC_GPA);
    fuzz_take(input, data, bytes);
    (void)mem_write(&mem, gpa, data, bytes);
}

static void step(struct fuzz_input *input, struct rig *rig)
{
    uint8_t op = fuzz_u8(input);
    unsigned slot = op >> 7;
    switch (op & 15) {
    case 0:
        start_driver(rig, slot);
        break;
    case 1:
    case 2:
        put_desc(input);
        break;
    case 3:
        put_header(input);
        break;
    case 4:
    case 5:
        offer(input, rig, slot);
        io_drain(rig->io);
        break;
    case 6:
        offer(input, rig, slot); /* several under way */
        break;
    case 7:
        access_any(input, rig, slot, true);
        break;
    case 8:
        access_any(input, rig, slot, false);
        break;
    case 9:
        write_reg(rig, slot, fuzz_u8(input) * 4u % VIRTIO_MMIO_CONFIG, fuzz_u32(input));
        break;
    case 10:
        write_memory(input);
        break;
    case 11:
        blk_pause(rig->blk);
        break;
    case 12:
        blk_resume(rig->blk);
        break;
    case 13:
        save_and_restore(input, rig);
        break;
    default:
        io_drain(rig->io);
        break;
    }
}

static void setup(void)
{
    static const char text[] = "base image";
    FUZZ_ASSERT(mem_init(&mem, 16 * MIB, NULL) == 0);
    image = memfd_create("image", MFD_CLOEXEC);
    FUZZ_ASSERT(image >= 0 && ftruncate(image, DISK_BYTES) == 0);
    FUZZ_ASSERT(pwrite(image, text, sizeof(text), 8192) == sizeof(text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
    struct fuzz_input input = {data, count};
    struct rig rig = {0};
    if (image < 0)
        setup();
    FUZZ_ASSERT(mem_map_anonymous(&mem, NULL) == 0);
    FUZZ_ASSERT(io_new(IO_BACKEND_SYNC, &rig.io, NULL) == 0);
    FUZZ_ASSERT(make_blk(&rig, NULL) && make_rng(&rig, NULL));
    for (unsigned i = 0; i < STEPS_MAX && input.left > 0; i++)
        step(&input, &rig);
    blk_free(rig.blk);
    rng_free(rig.rng);
    io_free(rig.io);
    return 0;
}
