// SPDX-License-Identifier: Apache-2.0
// Keeps empty VMs ready, and takes used ones apart, both off everybody's critical path. Puts
// nothing into them.

#include "pool.h"
#include "env.h"
#include "options.h"
#include "thread.h"
#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

/* After a VM could not be made: not again at once, since what is missing is likely to be still. */
#define RETRY_SECONDS 1
#define POOL_NICE     10

/* The pool outlives its owner's thaw_pool_free for as long as VMs that came from it live. */
struct thaw_pool {
    struct thaw_env *env;
    struct vm_shape shape;
    pthread_t thread;
    pthread_mutex_t lock;   /* guards all below */
    pthread_cond_t work;    /* for the thread */
    pthread_cond_t settled; /* for thaw_pool_wait */
    bool closing;
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
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    env_unref(pool->env);
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
        pthread_cond_signal(&pool->work);
    }
    pthread_mutex_unlock(&pool->lock);
    if (alone)
        vm_destroy(vm);
    unref(pool);
}

/* --- The thread ------------------------------------------------------------------------------- */

static void refill_locked(struct thaw_pool *pool)
{
    struct thaw_vm *vm = NULL;
    struct thaw_error error = {0};
    pthread_mutex_unlock(&pool->lock);
    int r = vm_new_shell(pool->env, "pool", &pool->shape, NULL, NULL, &vm, &error);
    pthread_mutex_lock(&pool->lock);
    pool->failure = r;
    pool->error = error;
    if (r == 0) {
        push(&pool->ready, vm);
        pool->ready_count++;
    }
}

/* Frees one VM of a list; its count goes down when that is done. */
static void drop_locked(struct thaw_pool *pool, struct thaw_vm **list, uint32_t *count)
{
    struct thaw_vm *vm = pop(list);
    pthread_mutex_unlock(&pool->lock);
    vm_destroy(vm);
    pthread_mutex_lock(&pool->lock);
    (*count)--;
}

static void pause_locked(struct thaw_pool *pool)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += RETRY_SECONDS;
    pthread_cond_timedwait(&pool->work, &pool->lock, &until);
}

/* Filling goes before taking apart: someone may be about to need a VM. */
static void *pool_thread(void *data)
{
    struct thaw_pool *pool = data;
    /* On Linux this is of one thread. Whoever restores goes first. */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), POOL_NICE);
    pthread_mutex_lock(&pool->lock);
    while (!pool->closing || pool->leaving || pool->ready) {
        if (!pool->closing && pool->ready_count < pool->target && pool->failure == 0)
            refill_locked(pool);
        else if (pool->leaving)
            drop_locked(pool, &pool->leaving, &pool->leaving_count);
        else if (pool->ready && (pool->closing || pool->ready_count > pool->target))
            drop_locked(pool, &pool->ready, &pool->ready_count);
        else if (pool->failure < 0) {
            pause_locked(pool);
            pool->failure = pool->closing ? pool->failure : 0;
        } else
            pthread_cond_wait(&pool->work, &pool->lock);
        pthread_cond_broadcast(&pool->settled);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
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
    pthread_cond_init(&pool->work, &attr);
    pthread_cond_init(&pool->settled, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&pool->lock, NULL);
    /* The first is made here, so that a shape that cannot be is refused here. */
    struct thaw_vm *first;
    r = vm_new_shell(env, "pool", &pool->shape, NULL, NULL, &first, error);
    if (r == 0) {
        push(&pool->ready, first);
        pool->ready_count = 1;
        r = thread_start(&pool->thread, "thaw/pool", pool_thread, pool);
        if (r < 0) {
            error_errno(error, -r, "starting a pool's thread");
            vm_destroy(first);
        }
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
    pthread_mutex_lock(&pool->lock);
    pool->closing = true;
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    pthread_join(pool->thread, NULL);
    unref(pool);
}

int thaw_pool_set_target(thaw_pool *pool, uint32_t target, struct thaw_error *error)
{
    int r = check_target(target, error);
    if (r < 0)
        return r;
    pthread_mutex_lock(&pool->lock);
    pool->target = target;
    pthread_cond_signal(&pool->work);
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
        pthread_cond_signal(&pool->work);
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
