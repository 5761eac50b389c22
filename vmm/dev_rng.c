// SPDX-License-Identifier: Apache-2.0
// virtio-rng: fills the guest's buffers with the host's random numbers.
// Keeps no entropy and no state of its own.

#include "dev_rng.h"
#include <linux/virtio_ids.h>
#include <sys/random.h>

#define RNG_QUEUE_SIZE 8

struct rng {
    struct virtio_mmio virtio;
    struct virtq_chain chain; /* under the transport's lock */
};

/* Fills the chain's writable part. Returns how many bytes, or -errno. */
static int64_t fill(struct rng *rng)
{
    uint8_t buf[4096];
    uint64_t done = 0;
    uint64_t bytes = MIN(rng->chain.writable_bytes, RNG_REQUEST_BYTES_MAX);
    while (done < bytes) {
        ssize_t n = getrandom(buf, MIN(bytes - done, sizeof(buf)), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        int64_t r = virtq_chain_write(&rng->chain, rng->virtio.mem, done, buf, (uint64_t)n);
        if (r < 0)
            return r;
        done += (uint64_t)n;
    }
    return (int64_t)done;
}

/* Answers what is in the queue, but no more at once than fits it: a driver that adds to it
 * meanwhile notifies us again. */
static void serve_locked(struct rng *rng)
{
    for (unsigned i = 0; i < RNG_QUEUE_SIZE; i++) {
        if (!virtio_mmio_queue_live_locked(&rng->virtio, 0) ||
            virtio_mmio_pop_locked(&rng->virtio, 0, &rng->chain) <= 0)
            return;
        int64_t n = fill(rng);
        if (n < 0)
            virtio_mmio_break_locked(&rng->virtio);
        else
            virtio_mmio_push_locked(&rng->virtio, 0, rng->chain.head, (uint32_t)n);
    }
}

static void rng_notify(void *device, unsigned queue)
{
    (void)queue;
    serve_locked(device);
}

static void rng_read_config(void *device, uint32_t offset, uint8_t *data, unsigned bytes)
{
    (void)device; /* there is no configuration space */
    (void)offset;
    (void)data;
    (void)bytes;
}

static const struct virtio_ops rng_ops = {.read_config = rng_read_config, .notify = rng_notify};

int rng_new(const struct virtio_env *env, const struct virtio_mmio_state *state, struct rng **ret,
    struct thaw_error *error)
{
    _cleanup_free_ struct rng *rng = calloc(1, sizeof(*rng));
    if (!rng)
        return error_errno(error, ENOMEM, "making an entropy device");
    struct virtio_device_info info = {
        .name = "virtio-rng",
        .device_id = VIRTIO_ID_RNG,
        .queue_count = 1,
        .queue_size_max = RNG_QUEUE_SIZE,
        .ops = &rng_ops,
        .device = rng,
    };
    int r = virtio_mmio_init(&rng->virtio, env, &info, state, error);
    if (r == 0)
        *ret = take_ptr(rng);
    return r;
}

void rng_free(struct rng *rng)
{
    if (!rng)
        return;
    virtio_mmio_fini(&rng->virtio);
    free(rng);
}

void rng_resume(struct rng *rng)
{
    virtio_mmio_sync_irq(&rng->virtio);
    pthread_mutex_lock(&rng->virtio.lock);
    serve_locked(rng);
    pthread_mutex_unlock(&rng->virtio.lock);
}

void rng_reset(struct rng *rng, const struct virtio_mmio_state *state)
{
    virtio_mmio_reset(&rng->virtio, state);
}

void rng_save(struct rng *rng, struct virtio_mmio_state *ret)
{
    virtio_mmio_save(&rng->virtio, ret);
}
