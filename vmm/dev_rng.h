/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio-rng (virtio 1.2, 5.4): the host's getrandom. Requests are answered on the vCPU that makes
 * them: nothing is ever in flight, so there is nothing to pause, and a VM without disks needs no
 * I/O thread. One notification costs a bounded time.
 */
#ifndef VMM_DEV_RNG_H
#define VMM_DEV_RNG_H

#include "virtio_mmio.h"

#define RNG_REQUEST_BYTES_MAX (64 * KIB) /* of a longer request, so much is answered */

struct rng;

/* Makes the device, as after power-on or as `state` (NULL: none) says. */
int rng_new(const struct virtio_env *env, const struct virtio_mmio_state *state, struct rng **ret,
    struct thaw_error *error);
void rng_free(struct rng *rng);

/* Tells KVM the interrupt level and answers what is in the queue. After the interrupt controllers
 * are set, before vCPUs run. */
void rng_resume(struct rng *rng);

/* Back into a state that it was made with. No vCPU runs. */
void rng_reset(struct rng *rng, const struct virtio_mmio_state *state);

/* No vCPU runs. */
void rng_save(struct rng *rng, struct virtio_mmio_state *ret);

#endif
