/* SPDX-License-Identifier: Apache-2.0 */
/* A small guest under test: a VM with its console kept, and waiting for what it prints. */
#ifndef TESTS_KVM_GUEST_H
#define TESTS_KVM_GUEST_H

#include <pthread.h>
#include <thaw/thaw.h>

struct guest {
    thaw_env *env;
    thaw_vm *vm;
    pthread_mutex_t lock; /* guards console */
    pthread_cond_t more;
    char console[1 << 16];
    size_t console_count;
};

/* How long anything may take before the test fails: far beyond what a slow machine needs. */
#define GUEST_TIMEOUT_MS 60000

/* Makes the VM of options (kernel_path may be the bare name of a small guest) and fails the test if
 * it can't. Skips the test if there is no KVM. Not started yet. */
void guest_new(struct guest *guest, struct thaw_vm_options options);
/* Restores a snapshot the same way: PAUSED. */
void guest_restore(struct guest *guest, thaw_store *store, struct thaw_restore_options options,
    const char *snapshot);
void guest_start(struct guest *guest);
void guest_free(struct guest *guest);

/* Waits until the console contains text, from offset `from` on; returns the offset behind it. Fails
 * the test if the guest ends before that. */
size_t guest_expect(struct guest *guest, const char *text, size_t from);

/* How many bytes the guest has printed so far. */
size_t guest_console_count(struct guest *guest);

/* Waits for the guest's end and returns how it ended. */
struct thaw_vm_info guest_wait(struct guest *guest);
struct thaw_vm_info guest_info(struct guest *guest);

/* The path of a small guest; in a static buffer. */
const char *guest_path(const char *name);

#endif
