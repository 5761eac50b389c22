/* SPDX-License-Identifier: Apache-2.0 */
/* What every fuzz target needs. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count);

/* A copy that the target may change, in a block of exactly that size, so that the sanitizer sees
 * any byte read past its end. Freed by the caller. */
static inline uint8_t *fuzz_copy(const uint8_t *data, size_t count)
{
    uint8_t *copy = malloc(count ? count : 1);
    if (!copy)
        abort();
    if (count)
        memcpy(copy, data, count);
    return copy;
}

/* Keeps the compiler from dropping the reads that led to `value`. */
static inline void fuzz_use(unsigned value)
{
    __asm__ volatile("" : : "r"(value));
}

#endif
