/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Userfaultfd: who touches a page of a registered range that has no contents waits until the page
 * was provided *and* the touch was woken. Thin wrappers that deal with partial success.
 */
#ifndef SNAPSHOT_FAULT_H
#define SNAPSHOT_FAULT_H

#include "error.h"

/* Opens a userfaultfd that can handle KVM's faults, non-blocking: from `device_fd`, an open
 * /dev/userfaultfd; 0 or less: opens that device, or uses the system call. -errno. */
int fault_open(int device_fd, int *ret_uffd, struct thaw_error *error);

/* From now on, touches of missing pages in the range (memfd memory, shared or private) wait. */
int fault_register(int uffd, void *start, uint64_t bytes, struct thaw_error *error);

/* Puts contents into missing pages, each page at once. Pages that are there already stay as they
 * are. Wakes nobody. -errno. */
int fault_copy(int uffd, void *dst, const void *src, uint64_t bytes);

/* Maps zeros into missing pages of a private range, without touching the file behind it. Wakes
 * nobody. 0, or -errno; -ENOENT if the range is not registered any more. */
int fault_zero(int uffd, void *dst, uint64_t bytes);

/* Has those who wait in the range look again. */
void fault_wake(int uffd, void *start, uint64_t bytes);

/* Reads the addresses of up to `room` new waiting touches; 0 if there are none. -errno. */
int fault_read(int uffd, uint64_t *addresses, unsigned room);

#endif
