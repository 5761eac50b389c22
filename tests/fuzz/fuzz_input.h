/* SPDX-License-Identifier: Apache-2.0 */
/* For inputs that are lists of things to do: takes them apart from the front. An input that ends
 * early reads as zeros. */
#ifndef TESTS_FUZZ_INPUT_H
#define TESTS_FUZZ_INPUT_H

#include "fuzz.h"
#include <stdio.h>

/* What must hold whatever the input is. */
#define FUZZ_ASSERT(condition)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct fuzz_input {
    const uint8_t *at;
    size_t left;
};

/* Takes `count` bytes, or as many as there are; the rest of dst is zero. */
static inline void fuzz_take(struct fuzz_input *input, void *dst, size_t count)
{
    size_t taken = count < input->left ? count : input->left;
    memset(dst, 0, count);
    memcpy(dst, input->at, taken);
    input->at += taken;
    input->left -= taken;
}

static inline uint8_t fuzz_u8(struct fuzz_input *input)
{
    uint8_t value;
    fuzz_take(input, &value, sizeof(value));
    return value;
}

static inline uint16_t fuzz_u16(struct fuzz_input *input)
{
    uint16_t value;
    fuzz_take(input, &value, sizeof(value));
    return value;
}

static inline uint32_t fuzz_u32(struct fuzz_input *input)
{
    uint32_t value;
    fuzz_take(input, &value, sizeof(value));
    return value;
}

#endif
