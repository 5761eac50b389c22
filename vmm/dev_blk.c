// SPDX-License-Identifier: Apache-2.0
// virtio-blk: turns chains into requests of a disk and answers them.
// Does not know how a disk finds its blocks, nor how registers and rings work.

#include "dev_blk.h"
#include <endian.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <string.h>

struct blk {
    struct virtio_mmio virtio;
    struct io *io;
    struct disk *disk;
    uint8_t id[BLK_ID_BYTES];
    void (*full)(void *data);
    void *full_data;
    struct virtio_blk_config config;
    struct io_task task; /* take_requests */

    /* Under the transport's lock. */
    bool paused;
    bool full_told;
    bool crowded;         /* there may be chains that were left because of `in_flight` */
    unsigned in_flight;   /* chains that were taken and are neither answered nor parked */
    pthread_cond_t quiet; /* in_flight became 0 */
    unsigned parked_count;
    unsigned retry_count;            /* how many of the first are to be taken again */
    uint16_t parked[BLK_QUEUE_SIZE]; /* heads, oldest first */

    /* The io thread's own. */
    struct virtq_chain chain;
};

/* Where an answer goes. */
struct answer {
    uint16_t head;
    uint32_t written; /* what is said to the driver: all that it let the device write */
    uint64_t status_gpa;
};

struct blk_request {
    struct disk_request disk;
    struct blk *blk;
    struct answer answer;
    uint64_t *gpas; /* of iov's pieces; behind iov */
    struct iovec iov[];
};

/* A chain is done with, whatever came of it. */
static void leave_locked(struct blk *blk)
{
    if (--blk->in_flight == 0)
        pthread_cond_broadcast(&blk->quiet);
    if (blk->crowded) {
        blk->crowded = false;
        io_post(blk->io, &blk->task);
    }
}

static void answer(struct blk *blk, const struct answer *to, uint8_t status)
{
    pthread_mutex_lock(&blk->virtio.lock);
    if (virtio_mmio_queue_live_locked(&blk->virtio, 0)) {
        if (mem_write(blk->virtio.mem, to->status_gpa, &status, sizeof(status)) < 0)
            virtio_mmio_break_locked(&blk->virtio);
        else
            virtio_mmio_push_locked(&blk->virtio, 0, to->head, to->written);
    }
    leave_locked(blk);
    pthread_mutex_unlock(&blk->virtio.lock);
}

/* The host's file system is full. The chain is kept as its head: the driver owes us its descriptors
 * until they are answered, and they are checked again. */
static void park(struct blk *blk, uint16_t head)
{
    bool tell = false;
    pthread_mutex_lock(&blk->virtio.lock);
    if (virtio_mmio_queue_live_locked(&blk->virtio, 0)) {
        blk->parked[blk->parked_count++] = head;
        tell = !blk->full_told;
        blk->full_told = true;
    }
    leave_locked(blk);
    pthread_mutex_unlock(&blk->virtio.lock);
    if (tell && blk->full)
        blk->full(blk->full_data);
}

static void request_done(struct disk_request *disk_request, int result)
{
    struct blk_request *request = CONTAINER_OF(disk_request, struct blk_request, disk);
    struct blk *blk = request->blk;
    struct answer to = request->answer;
    /* Also after a failure, since some of it may have arrived. */
    if (request->disk.kind == DISK_READ) {
        for (unsigned i = 0; i < request->disk.iov_count; i++)
            mem_mark_dirty(blk->virtio.mem, request->gpas[i], request->iov[i].iov_len);
    }
    free(request);
    if (result == -ENOSPC)
        park(blk, to.head);
    else
        answer(blk, &to, (uint8_t)(result < 0 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK));
}

/* Points the request at [skip, skip + bytes) of these segments. */
static int map_data(struct blk_request *request, const struct virtq_segment *segments,
    unsigned count, uint64_t skip, uint64_t bytes)
{
    unsigned used = 0;
    for (unsigned i = 0; i < count && bytes > 0; i++) {
        if (skip >= segments[i].bytes) {
            skip -= segments[i].bytes;
            continue;
        }
        uint64_t gpa = segments[i].gpa + skip;
        uint64_t n = MIN(bytes, segments[i].bytes - skip);
        void *hva;
        int r = mem_hva(request->blk->virtio.mem, gpa, n, &hva);
        if (r < 0)
            return r;
        request->gpas[used] = gpa;
        request->iov[used++] = (struct iovec){hva, n};
        bytes -= n;
        skip = 0;
    }
    request->disk.iov_count = used;
    return 0;
}

/* Hands the chain in blk->chain to the disk. Returns 0, or -errno if that was not possible. */
static int start_request(struct blk *blk, const struct answer *to, enum disk_request_kind kind,
    uint64_t sector, uint64_t bytes)
{
    const struct virtq_chain *chain = &blk->chain;
    if (bytes > BLK_REQUEST_BYTES_MAX || sector > DISK_BYTES_MAX / DISK_SECTOR_BYTES)
        return -EINVAL;
    unsigned count = bytes == 0 ? 0 : MAX(chain->readable, chain->writable);
    struct blk_request *request =
        malloc(sizeof(*request) + count * (sizeof(request->iov[0]) + sizeof(request->gpas[0])));
    if (!request)
        return -ENOMEM;
    request->blk = blk;
    request->answer = *to;
    request->gpas = (uint64_t *)(void *)&request->iov[count];
    request->disk = (struct disk_request){.kind = kind,
        .disk_off = sector * DISK_SECTOR_BYTES,
        .iov = request->iov,
        .done = request_done};
    int r = 0;
    if (kind == DISK_READ)
        r = map_data(request, chain->segments + chain->readable, chain->writable, 0, bytes);
    else if (kind == DISK_WRITE)
        r = map_data(
            request, chain->segments, chain->readable, sizeof(struct virtio_blk_outhdr), bytes);
    if (r < 0) {
        free(request);
        return r;
    }
    disk_submit(blk->disk, &request->disk);
    return 0;
}

static uint8_t get_id(struct blk *blk)
{
    uint64_t room = MIN(blk->chain.writable_bytes - 1, sizeof(blk->id));
    int64_t n = virtq_chain_write(&blk->chain, blk->virtio.mem, 0, blk->id, room);
    return n < 0 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK;
}

/* Carries out the chain in blk->chain. Header and status may lie in any number of segments. */
static void handle(struct blk *blk)
{
    const struct virtq_chain *chain = &blk->chain;
    struct virtio_blk_outhdr header;
    int64_t n = virtq_chain_read(chain, blk->virtio.mem, 0, &header, sizeof(header));
    if (n != sizeof(header) || chain->writable_bytes == 0) {
        /* There is no way of telling the driver what is wrong with this one. */
        pthread_mutex_lock(&blk->virtio.lock);
        virtio_mmio_break_locked(&blk->virtio);
        leave_locked(blk);
        pthread_mutex_unlock(&blk->virtio.lock);
        return;
    }
    const struct virtq_segment *last = &chain->segments[chain->readable + chain->writable - 1];
    struct answer to = {.head = chain->head,
        .written = (uint32_t)MIN(chain->writable_bytes, UINT32_MAX),
        .status_gpa = last->gpa + last->bytes - 1};
    uint64_t sector = le64toh(header.sector);
    int r = 0;
    switch (le32toh(header.type)) {
    case VIRTIO_BLK_T_IN:
        r = start_request(blk, &to, DISK_READ, sector, chain->writable_bytes - 1);
        break;
    case VIRTIO_BLK_T_OUT:
        r = start_request(blk, &to, DISK_WRITE, sector, chain->readable_bytes - sizeof(header));
        break;
    case VIRTIO_BLK_T_FLUSH:
        r = start_request(blk, &to, DISK_FLUSH, 0, 0);
        break;
    case VIRTIO_BLK_T_GET_ID:
        answer(blk, &to, get_id(blk));
        break;
    default:
        answer(blk, &to, VIRTIO_BLK_S_UNSUPP);
        break;
    }
    if (r < 0)
        answer(blk, &to, VIRTIO_BLK_S_IOERR);
}

/* Takes a parked chain that is to be tried again. 1, or -errno. */
static int take_parked_locked(struct blk *blk)
{
    uint16_t head = blk->parked[0];
    blk->parked_count--;
    blk->retry_count--;
    memmove(blk->parked, blk->parked + 1, blk->parked_count * sizeof(blk->parked[0]));
    int r = virtq_read_chain(&blk->virtio.state.queues[0], blk->virtio.mem, head, &blk->chain);
    if (r < 0)
        virtio_mmio_break_locked(&blk->virtio);
    return r < 0 ? r : 1;
}

/* Gets the next chain into blk->chain, if it may be carried out now. The number of chains taken is
 * bounded, whatever the driver puts into the ring. */
static bool take_chain(struct blk *blk)
{
    int r = 0;
    pthread_mutex_lock(&blk->virtio.lock);
    if (!blk->paused && virtio_mmio_queue_live_locked(&blk->virtio, 0)) {
        if (blk->retry_count > 0)
            r = take_parked_locked(blk);
        else if (blk->in_flight + blk->parked_count < BLK_QUEUE_SIZE)
            r = virtio_mmio_pop_locked(&blk->virtio, 0, &blk->chain);
        else
            blk->crowded = true;
    }
    if (r > 0)
        blk->in_flight++;
    pthread_mutex_unlock(&blk->virtio.lock);
    return r > 0;
}

static void take_requests(struct io_task *task)
{
    struct blk *blk = CONTAINER_OF(task, struct blk, task);
    for (unsigned i = 0; i < BLK_QUEUE_SIZE; i++) {
        if (!take_chain(blk))
            return;
        handle(blk);
    }
    io_post(blk->io, &blk->task); /* others get their turn first */
}

static void blk_read_config(void *device, uint32_t offset, uint8_t *data, unsigned bytes)
{
    const struct blk *blk = device;
    for (unsigned i = 0; i < bytes && offset + i < sizeof(blk->config); i++)
        data[i] = ((const uint8_t *)&blk->config)[offset + i];
}

static void blk_notify(void *device, unsigned queue)
{
    struct blk *blk = device;
    (void)queue;
    if (!blk->paused)
        io_post(blk->io, &blk->task);
}

/* Requests in flight have pointers into guest memory, so they are waited for; parked ones are
 * forgotten. The io thread never waits for this thread with a request in flight. */
static void blk_stop(void *device)
{
    struct blk *blk = device;
    while (blk->in_flight > 0)
        pthread_cond_wait(&blk->quiet, &blk->virtio.lock);
    blk->parked_count = 0;
    blk->retry_count = 0;
}

static const struct virtio_ops blk_ops = {
    .read_config = blk_read_config,
    .notify = blk_notify,
    .stop = blk_stop,
};

static int restore_parked(struct blk *blk, const struct blk_state *state, struct thaw_error *error)
{
    const struct virtqueue *queue = &state->virtio.queues[0];
    if (state->parked_count > BLK_QUEUE_SIZE || (state->parked_count > 0 && !queue->ready))
        return error_set(
            error, THAW_ECORRUPT, "making a disk device: its saved state contradicts itself");
    for (unsigned i = 0; i < state->parked_count; i++) {
        if (state->parked[i] >= queue->size)
            return error_set(error, THAW_ECORRUPT,
                "making a disk device: saved request %u is not in its queue", i);
        blk->parked[i] = state->parked[i];
    }
    blk->parked_count = state->parked_count;
    return 0;
}

static void fill_config(struct blk *blk)
{
    blk->config.capacity = htole64(disk_bytes(blk->disk) / DISK_SECTOR_BYTES);
    blk->config.size_max = htole32((uint32_t)BLK_SEGMENT_BYTES_MAX);
    blk->config.seg_max = htole32(BLK_SEGMENTS_MAX);
    blk->config.blk_size = htole32(DISK_SECTOR_BYTES);
    /* A guest that writes whole blocks spares us reading the rest of them. */
    blk->config.physical_block_exp = DISK_BLOCK_SHIFT - 9;
    blk->config.min_io_size = htole16(DISK_BLOCK_BYTES / DISK_SECTOR_BYTES);
}

int blk_new(const struct blk_env *env, const struct blk_state *state, struct blk **ret,
    struct thaw_error *error)
{
    _cleanup_free_ struct blk *blk = calloc(1, sizeof(*blk));
    if (!blk)
        return error_errno(error, ENOMEM, "making a disk device");
    blk->io = env->io;
    blk->disk = env->disk;
    blk->full = env->full;
    blk->full_data = env->full_data;
    blk->task.fn = take_requests;
    blk->paused = true;
    memcpy(blk->id, env->id, strnlen(env->id, sizeof(blk->id)));
    fill_config(blk);

    struct virtio_device_info info = {
        .name = "virtio-blk",
        .device_id = VIRTIO_ID_BLOCK,
        .features = 1ull << VIRTIO_BLK_F_SIZE_MAX | 1ull << VIRTIO_BLK_F_SEG_MAX |
                    1ull << VIRTIO_BLK_F_BLK_SIZE | 1ull << VIRTIO_BLK_F_FLUSH |
                    1ull << VIRTIO_BLK_F_TOPOLOGY,
        .queue_count = 1,
        .queue_size_max = BLK_QUEUE_SIZE,
        .ops = &blk_ops,
        .device = blk,
    };
    if (disk_is_read_only(env->disk))
        info.features |= 1ull << VIRTIO_BLK_F_RO;
    int r = state ? restore_parked(blk, state, error) : 0;
    if (r == 0)
        r = io_start(env->io, error);
    if (r == 0)
        r = virtio_mmio_init(
            &blk->virtio, &env->virtio, &info, state ? &state->virtio : NULL, error);
    if (r < 0)
        return r;
    pthread_cond_init(&blk->quiet, NULL);
    *ret = take_ptr(blk);
    return 0;
}

void blk_free(struct blk *blk)
{
    if (!blk)
        return;
    blk_pause(blk);
    io_drain(blk->io);
    virtio_mmio_fini(&blk->virtio);
    pthread_cond_destroy(&blk->quiet);
    disk_free(blk->disk);
    free(blk);
}

void blk_pause(struct blk *blk)
{
    pthread_mutex_lock(&blk->virtio.lock);
    blk->paused = true;
    pthread_mutex_unlock(&blk->virtio.lock);
}

void blk_resume(struct blk *blk)
{
    virtio_mmio_sync_irq(&blk->virtio);
    pthread_mutex_lock(&blk->virtio.lock);
    blk->paused = false;
    blk->full_told = false;
    blk->retry_count = blk->parked_count;
    if (virtio_mmio_queue_live_locked(&blk->virtio, 0))
        io_post(blk->io, &blk->task);
    pthread_mutex_unlock(&blk->virtio.lock);
}

void blk_save(struct blk *blk, struct blk_state *ret)
{
    pthread_mutex_lock(&blk->virtio.lock);
    *ret = (struct blk_state){.virtio = blk->virtio.state, .parked_count = blk->parked_count};
    memcpy(ret->parked, blk->parked, blk->parked_count * sizeof(blk->parked[0]));
    pthread_mutex_unlock(&blk->virtio.lock);
}

void blk_reset(struct blk *blk, const struct blk_state *state)
{
    pthread_mutex_lock(&blk->virtio.lock);
    virtio_mmio_reset_locked(&blk->virtio, &state->virtio);
    blk->full_told = false;
    blk->crowded = false;
    blk->retry_count = 0;
    blk->parked_count = state->parked_count;
    memcpy(blk->parked, state->parked, state->parked_count * sizeof(blk->parked[0]));
    pthread_mutex_unlock(&blk->virtio.lock);
}

struct disk *blk_disk(const struct blk *blk)
{
    return blk->disk;
}
