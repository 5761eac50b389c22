/* SPDX-License-Identifier: Apache-2.0 */
/* Test support: reads of files made slow, impossible, or only counted. For programs that are linked
 * with --wrap=pread. */
#ifndef TESTS_SLOW_READS_H
#define TESTS_SLOW_READS_H

#include <stdatomic.h>

extern atomic_int slow_reads_us; /* how long each takes in addition */
extern atomic_bool no_reads;     /* each fails with EIO */
extern atomic_int reads;         /* how many there were */

/* From now on threads of this name stay in their next read. Returns at once. */
void slow_reads_hold(const char *thread_name);
/* Waits until one is held. */
void slow_reads_wait_held(void);
/* Lets them go on. Fails the test if they had to go on before, since the test could not: it waited
 * for what they were to do. */
void slow_reads_release(void);

#endif
