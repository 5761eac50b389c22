// SPDX-License-Identifier: Apache-2.0
// Keeps empty VMs ready, and takes used ones apart, both off everybody's critical path. Puts
// nothing into them.

#include "pool.h"
#include "env.h"
#include "options.h"
#include "thread.h"
#include <inttypes.h>
#include <string.h>
#include <time.h>

/* After a VM could not be made: not again at once, since what is missing is likely to be still. */
#define RETRY_NS 1000000000u

/* Whoever takes a VM is about to restore, and making the next would compete for the processor and
 * for the lock of the address space: the pool waits until nobody has taken one for a while, but not
 * for ever. */
#define QUIET_NS     3000000u
#define QUIET_NS_MAX 30000000u

/* Taking a VM apart is waiting for the most part, for the kernel's grace periods. */
#define REAPERS 4

/* The pool outlives its owner's thaw_pool_free for as long as VMs that came from it live. */
struct thaw_pool {
    struct thaw_env *env;
    struct vm_shape shape;
    struct fresh fresh;
    pthread_t maker, reapers[REAPERS];
    unsigned reaper_count;
    pthread_mutex_t lock;   /* guards all below */
    pthread_cond_t wanted;  /* for the maker */
    pthread_cond_t left;    /* for the reapers */
    pthread_cond_t settled; /* for thaw_pool_wait */
    bool closing;
    uint64_t first_taken_ns; /* since a VM was made; 0: none was */
    uint64_t last_taken_ns;
    bool maker_asleep; /* and does not know yet that one was taken */
    uint32_t target;
    uint32_t ready_count, leaving_count;
    uint32_t references;   /* the owner's, and one per VM that was taken and not yet freed */
    struct thaw_vm *ready; /* lists, by vm->pool_next */
    struct thaw_vm *leaving;
    uint64_t taken, missed;
    int failure; /* why the last VM could not be made; 0: it could */
    struct thaw_error error;
};

static void push(struct thaw_vm **list, struct thaw_vm *vm)
{
    vm->pool_next = *list;
    *list = vm;
}

static struct thaw_vm *pop(struct thaw_vm **list)
{
    struct thaw_vm *vm = *list;
    if (vm)
        *list = vm->pool_next;
    return vm;
}

static void free_pool(struct thaw_pool *pool)
{
    pthread_cond_destroy(&pool->settled);
    pthread_cond_destroy(&pool->left);
    pthread_cond_destroy(&pool->wanted);
    pthread_mutex_destroy(&pool->lock);
    env_unref(pool->env);
    fresh_fini(&pool->fresh);
    free(pool);
}

static void unref(struct thaw_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    bool last = --pool->references == 0;
    pthread_mutex_unlock(&pool->lock);
    if (last)
        free_pool(pool);
}

/* A VM of the pool was freed by its owner. It is stopped. A pool that is being freed, or is but a
 * memory, has no thread to leave it to. */
static void on_reap(void *data, struct thaw_vm *vm)
{
    struct thaw_pool *pool = data;
    pthread_mutex_lock(&pool->lock);
    bool alone = pool->closing;
    if (!alone) {
        push(&pool->leaving, vm);
        pool->leaving_count++;
        pthread_cond_signal(&pool->left);
    }
    pthread_mutex_unlock(&pool->lock);
    if (alone)
        vm_destroy(vm);
    unref(pool);
}

/* --- The threads ------------------------------------------------------------------------------ */

/* Until `ns` of CLOCK_MONOTONIC. */
static int wait_until_locked(struct thaw_pool *pool, pthread_cond_t *cond, uint64_t ns)
{
    const struct timespec until = {
        .tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    return pthread_cond_timedwait(cond, &pool->lock, &until);
}

static int make_shell(struct thaw_pool *pool, struct thaw_vm **ret, struct thaw_error *error)
{
    struct thaw_vm *vm;
    int r =
        vm_new_shell(pool->env, "pool", &pool->shape, VM_THREADS_ASLEEP, NULL, NULL, &vm, error);
    if (r < 0)
        return r;
    r = vm_prepare_shell(vm, &pool->fresh, error);
    if (r < 0)
        vm_destroy(vm);
    else
        *ret = vm;
    return r;
}

static void make_one_locked(struct thaw_pool *pool)
{
    struct thaw_vm *vm = NULL;
    struct thaw_error error = {0};
    pool->first_taken_ns = 0;
    pthread_mutex_unlock(&pool->lock);
    int r = make_shell(pool, &vm, &error);
    pthread_mutex_lock(&pool->lock);
    pool->failure = r;
    pool->error = error;
    if (r == 0) {
        push(&pool->ready, vm);
        pool->ready_count++;
    }
}

/* When the next VM may be made. */
static uint64_t quiet_from_locked(const struct thaw_pool *pool)
{
    if (pool->first_taken_ns == 0)
        return 0;
    return MIN(pool->last_taken_ns + QUIET_NS, pool->first_taken_ns + QUIET_NS_MAX);
}

/* vCPUs inherit the priority of this thread, so it is the embedding program's. */
static void *maker_thread(void *data)
{
    struct thaw_pool *pool = data;
    pthread_mutex_lock(&pool->lock);
    while (!pool->closing) {
        if (pool->ready_count >= pool->target) {
            pool->first_taken_ns = 0; /* the next one that is taken wakes it */
            pthread_cond_wait(&pool->wanted, &pool->lock);
        } else if (pool->failure < 0) {
            if (wait_until_locked(pool, &pool->wanted, timing_now_ns() + RETRY_NS) == ETIMEDOUT)
                pool->failure = 0;
        } else if (quiet_from_locked(pool) > timing_now_ns())
            wait_until_locked(pool, &pool->wanted, quiet_from_locked(pool));
        else
            make_one_locked(pool);
        pthread_cond_broadcast(&pool->settled);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static void take_apart_locked(struct thaw_pool *pool)
{
    struct thaw_vm *vm = pop(&pool->leaving);
    pthread_mutex_unlock(&pool->lock);
    vm_destroy(vm);
    pthread_mutex_lock(&pool->lock);
    pool->leaving_count--;
    pthread_cond_broadcast(&pool->settled);
}

/* One that is ready is too many. From now on it does not count: the target may rise again. */
static void dismiss_locked(struct thaw_pool *pool)
{
    push(&pool->leaving, pop(&pool->ready));
    pool->ready_count--;
    pool->leaving_count++;
}

static void *reaper_thread(void *data)
{
    struct thaw_pool *pool = data;
    thread_give_way(); /* to whoever restores */
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        if (pool->leaving)
            take_apart_locked(pool);
        else if (pool->ready && (pool->closing || pool->ready_count > pool->target))
            dismiss_locked(pool);
        else if (pool->closing)
            break;
        else
            pthread_cond_wait(&pool->left, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static void close_pool(struct thaw_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_signal(&pool->wanted);
    pthread_cond_broadcast(&pool->left);
    pthread_mutex_unlock(&pool->lock);
}

static void join_reapers(struct thaw_pool *pool)
{
    for (unsigned i = 0; i < pool->reaper_count; i++)
        pthread_join(pool->reapers[i], NULL);
}

static int start_threads(struct thaw_pool *pool, struct thaw_error *error)
{
    int r = 0;
    for (unsigned i = 0; i < REAPERS && r == 0; i++) {
        r = thread_start(&pool->reapers[i], "thaw/reaper", reaper_thread, pool);
        if (r == 0)
            pool->reaper_count++;
    }
    if (r == 0)
        r = thread_start(&pool->maker, "thaw/pool", maker_thread, pool);
    if (r == 0)
        return 0;
    close_pool(pool);
    join_reapers(pool);
    return error_errno(error, -r, "starting a pool's thread");
}

/* --- Calls ------------------------------------------------------------------------------------ */

static int check_target(uint32_t target, struct thaw_error *error)
{
    if (target > THAW_POOL_TARGET_MAX)
        return error_set(
            error, -EINVAL, "a pool of %u VMs: at most %d", target, THAW_POOL_TARGET_MAX);
    return 0;
}

int thaw_pool_new(thaw_env *env, const struct thaw_pool_options *options, thaw_pool **ret,
    struct thaw_error *error)
{
    struct thaw_pool_options opt = {0};
    int r = options_read(&opt, sizeof(opt), options, "struct thaw_pool_options", error);
    if (r == 0)
        r = check_target(opt.target, error);
    if (r < 0)
        return r;
    struct thaw_pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return error_errno(error, ENOMEM, "allocating a pool");
    pool->references = 1;
    pool->env = env_ref(env);
    pool->target = opt.target ? opt.target : 1;
    pool->shape = (struct vm_shape){
        .vcpu_count = opt.vcpu_count ? opt.vcpu_count : 1,
        .mem_bytes = opt.mem_bytes ? opt.mem_bytes : 128 * MIB,
        .log_dirty = true,
    };
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&pool->wanted, &attr);
    pthread_cond_init(&pool->left, &attr);
    pthread_cond_init(&pool->settled, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&pool->lock, NULL);
    /* The first is made here, so that a shape that cannot be is refused here. */
    r = make_shell(pool, &pool->ready, error);
    if (r == 0) {
        pool->ready_count = 1;
        r = start_threads(pool, error);
        if (r < 0)
            vm_destroy(pool->ready);
    }
    if (r < 0) {
        free_pool(pool);
        return r;
    }
    *ret = pool;
    return 0;
}

void thaw_pool_free(thaw_pool *pool)
{
    if (!pool)
        return;
    close_pool(pool);
    pthread_join(pool->maker, NULL);
    join_reapers(pool);
    /* The reapers may have ended before the maker's last VM was there. */
    vm_destroy(pop(&pool->ready));
    unref(pool);
}

int thaw_pool_set_target(thaw_pool *pool, uint32_t target, struct thaw_error *error)
{
    int r = check_target(target, error);
    if (r < 0)
        return r;
    pthread_mutex_lock(&pool->lock);
    pool->target = target;
    pthread_cond_signal(&pool->wanted);
    pthread_cond_broadcast(&pool->left);
    pthread_mutex_unlock(&pool->lock);
    return 0;
}

static bool is_settled_locked(const struct thaw_pool *pool)
{
    return pool->leaving_count == 0 && (pool->ready_count == pool->target ||
                                           (pool->failure < 0 && pool->ready_count < pool->target));
}

int thaw_pool_wait(thaw_pool *pool, int timeout_ms, struct thaw_error *error)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + (uint64_t)MAX(timeout_ms, 0) * 1000000u;
    until.tv_sec += (time_t)(ns / 1000000000u);
    until.tv_nsec = (long)(ns % 1000000000u);
    int err = 0;
    pthread_mutex_lock(&pool->lock);
    while (err == 0 && !is_settled_locked(pool))
        err = timeout_ms < 0 ? pthread_cond_wait(&pool->settled, &pool->lock)
                             : pthread_cond_timedwait(&pool->settled, &pool->lock, &until);
    int r = err ? -err : pool->failure;
    if (!err && r < 0 && error)
        *error = pool->error;
    pthread_mutex_unlock(&pool->lock);
    return r;
}

int thaw_pool_get_info(thaw_pool *pool, struct thaw_pool_info *info)
{
    size_t bytes = info->size;
    if (bytes < sizeof(info->size))
        return -EINVAL;
    pthread_mutex_lock(&pool->lock);
    struct thaw_pool_info all = {
        .size = bytes,
        .target = pool->target,
        .ready = pool->ready_count,
        .leaving = pool->leaving_count,
        .taken = pool->taken,
        .missed = pool->missed,
    };
    pthread_mutex_unlock(&pool->lock);
    memcpy(info, &all, MIN(bytes, sizeof(all)));
    return 0;
}

static void note_taken_locked(struct thaw_pool *pool)
{
    pool->last_taken_ns = timing_now_ns();
    if (pool->first_taken_ns != 0)
        return;
    pool->first_taken_ns = pool->last_taken_ns;
    pool->maker_asleep = true;
}

/* If the maker knows that one was taken, it waits by itself for the time to make the next. */
void pool_refill(struct thaw_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    bool wake = pool->maker_asleep;
    pool->maker_asleep = false;
    pthread_mutex_unlock(&pool->lock);
    if (wake)
        pthread_cond_signal(&pool->wanted);
}

static struct thaw_vm *take_ready(struct thaw_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    struct thaw_vm *vm = pop(&pool->ready);
    if (vm) {
        pool->ready_count--;
        pool->taken++;
        pool->references++;
        vm->reap = on_reap;
        vm->reap_data = pool;
        note_taken_locked(pool);
    } else {
        pool->missed++;
    }
    pthread_mutex_unlock(&pool->lock);
    return vm;
}

int pool_take(struct thaw_pool *pool, const char *name, const struct vm_shape *shape,
    struct thaw_vm **ret, struct thaw_error *error)
{
    if (shape->vcpu_count != pool->shape.vcpu_count || shape->mem_bytes != pool->shape.mem_bytes)
        return error_set(error, -EINVAL,
            "the pool is of VMs with %u vCPUs and %" PRIu64
            " MiB, the snapshot of one with %u and %" PRIu64,
            pool->shape.vcpu_count, pool->shape.mem_bytes / MIB, shape->vcpu_count,
            shape->mem_bytes / MIB);
    struct thaw_vm *vm = take_ready(pool);
    if (vm)
        vm_set_name(vm, name);
    *ret = vm;
    return 0;
}

void pool_adopt(struct thaw_pool *pool, struct thaw_vm *vm)
{
    pthread_mutex_lock(&pool->lock);
    pool->references++;
    pthread_mutex_unlock(&pool->lock);
    vm->reap = on_reap;
    vm->reap_data = pool;
}
