/* SPDX-License-Identifier: Apache-2.0 */
/* Test support: reads of files made slow, impossible, or only counted. For programs that are linked
 * with --wrap=pread. */
#ifndef TESTS_SLOW_READS_H
#define TESTS_SLOW_READS_H

#include <stdatomic.h>

extern atomic_int slow_reads_us; /* how long each takes in addition */
extern atomic_bool no_reads;     /* each fails with EIO */
extern atomic_int reads;         /* how many there were */

#endif
