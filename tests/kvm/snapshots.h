/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of snapshots: a temporary store, taking and checking, and what a VM's memory is. All of
 * these fail the test where they don't return an error. */
#ifndef TESTS_KVM_SNAPSHOTS_H
#define TESTS_KVM_SNAPSHOTS_H

#include <thaw/thaw.h>

struct snapshots {
    char path[64];
    thaw_store *store;
};

/* An empty store; in memory where possible, since only the kernel could lose what is not synced. */
void snapshots_init(struct snapshots *snapshots);
/* Closes the store and removes it. */
void snapshots_fini(struct snapshots *snapshots);
/* Closes and opens the store, which recovers it. */
void snapshots_reopen(struct snapshots *snapshots);

/* Waits for a job, frees it and returns its result; or returns r < 0 if there is none. */
int snapshots_wait(int r, thaw_job *job, struct thaw_error *error);

/* Both return the result of the call or of the job. */
int snapshots_try(struct snapshots *snapshots, thaw_vm *vm, const char *name, uint32_t flags,
    struct thaw_error *error);
int snapshots_verify(struct snapshots *snapshots, const char *ref, struct thaw_error *error);

/* A snapshot that must succeed. */
void snapshots_take(struct snapshots *snapshots, thaw_vm *vm, const char *name, uint32_t flags);

/* What must be so when nobody works on the store: READY snapshots verify and have their names, and
 * nothing else is there but the records of failures. Returns how many are READY. */
unsigned snapshots_check_store(struct snapshots *snapshots, const char *when);

/* A copy of all memory of a VM that does not run; malloced. */
uint8_t *snapshots_copy_memory(thaw_vm *vm);
/* Compares all memory of a VM with such a copy: 0 if it is equal; -1 if some of it can't be had,
 * and the rest is equal; 1 + the first page that differs. */
int64_t snapshots_compare_memory(thaw_vm *vm, const uint8_t *memory);

/* How many entries a directory of the store has. */
unsigned snapshots_count(const struct snapshots *snapshots, const char *directory);

#endif
