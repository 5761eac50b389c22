// SPDX-License-Identifier: Apache-2.0
// Test support: runs small guests through the public API and watches their console.

#include "guest.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

const char *guest_path(const char *name)
{
    static char path[512];
    snprintf(path, sizeof(path), "%s/%s", THAW_GUEST_DIR, name);
    return path;
}

static void keep_console(void *data, const char *bytes, size_t count)
{
    struct guest *guest = data;
    pthread_mutex_lock(&guest->lock);
    size_t room = sizeof(guest->console) - 1 - guest->console_count;
    size_t kept = count < room ? count : room;
    memcpy(guest->console + guest->console_count, bytes, kept);
    guest->console_count += kept;
    pthread_cond_broadcast(&guest->more);
    pthread_mutex_unlock(&guest->lock);
}

static void init(struct guest *guest)
{
    struct thaw_error error;
    *guest = (struct guest){0};
    pthread_mutex_init(&guest->lock, NULL);
    pthread_cond_init(&guest->more, NULL);
    int r = thaw_env_new(NULL, &guest->env, &error);
    if (r == THAW_EHOST)
        cr_skip_test("%s", error.message);
    cr_assert_eq(r, 0, "%s", error.message);
}

void guest_new(struct guest *guest, struct thaw_vm_options options)
{
    struct thaw_error error;
    init(guest);
    options.size = sizeof(options);
    if (options.kernel_path && !strchr(options.kernel_path, '/'))
        options.kernel_path = guest_path(options.kernel_path);
    options.console = keep_console;
    options.console_data = guest;
    int r = thaw_vm_new(guest->env, &options, &guest->vm, &error);
    cr_assert_eq(r, 0, "%s", error.message);
}

void guest_restore(struct guest *guest, thaw_store *store, struct thaw_restore_options options,
    const char *snapshot)
{
    struct thaw_error error;
    init(guest);
    options.size = sizeof(options);
    options.console = keep_console;
    options.console_data = guest;
    /* As large guests are: the memory of these is so little that it would be read whole. */
    if (options.mode == THAW_RESTORE_LAZY && !(options.flags & THAW_RESTORE_RECORD))
        options.flags |= THAW_RESTORE_NO_PREFETCH;
    int r = thaw_restore(guest->env, store, snapshot, &options, &guest->vm, &error);
    cr_assert_eq(r, 0, "%s", error.message);
}

void guest_start(struct guest *guest)
{
    struct thaw_error error;
    cr_assert_eq(thaw_vm_start(guest->vm, &error), 0, "%s", error.message);
}

void guest_free(struct guest *guest)
{
    thaw_vm_free(guest->vm);
    thaw_env_free(guest->env);
    pthread_cond_destroy(&guest->more);
    pthread_mutex_destroy(&guest->lock);
}

struct thaw_vm_info guest_info(struct guest *guest)
{
    struct thaw_vm_info info = {.size = sizeof(info)};
    cr_assert_eq(thaw_vm_get_info(guest->vm, &info), 0);
    return info;
}

size_t guest_console_count(struct guest *guest)
{
    pthread_mutex_lock(&guest->lock);
    size_t count = guest->console_count;
    pthread_mutex_unlock(&guest->lock);
    return count;
}

static struct timespec after_ms(unsigned ms)
{
    struct timespec when;
    clock_gettime(CLOCK_REALTIME, &when);
    when.tv_sec += ms / 1000;
    when.tv_nsec += (long)(ms % 1000) * 1000000;
    when.tv_sec += when.tv_nsec / 1000000000;
    when.tv_nsec %= 1000000000;
    return when;
}

size_t guest_expect(struct guest *guest, const char *text, size_t from)
{
    struct timespec deadline = after_ms(GUEST_TIMEOUT_MS);
    const char *found = NULL;
    bool ended = false, late = false;
    pthread_mutex_lock(&guest->lock);
    for (;;) {
        found = strstr(guest->console + from, text);
        if (found || ended || late)
            break;
        struct timespec tick = after_ms(50);
        pthread_cond_timedwait(&guest->more, &guest->lock, &tick);
        late = tick.tv_sec > deadline.tv_sec;
        pthread_mutex_unlock(&guest->lock);
        enum thaw_vm_state state = guest_info(guest).state;
        ended = state == THAW_VM_STOPPED || state == THAW_VM_FAILED;
        pthread_mutex_lock(&guest->lock);
    }
    size_t end = found ? (size_t)(found - guest->console) + strlen(text) : 0;
    pthread_mutex_unlock(&guest->lock);
    cr_assert(found, "\"%s\" did not come; state %s, %s; console:\n%s", text,
        thaw_vm_state_name(guest_info(guest).state), guest_info(guest).detail, guest->console);
    return end;
}

struct thaw_vm_info guest_wait(struct guest *guest)
{
    cr_assert_eq(thaw_vm_wait(guest->vm, GUEST_TIMEOUT_MS), 0,
        "the guest did not end; console:\n%s", guest->console);
    return guest_info(guest);
}
