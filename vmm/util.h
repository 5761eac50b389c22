/* SPDX-License-Identifier: Apache-2.0 */
/* What every file needs: sizes, rounding, and cleanup at the end of a scope. */
#ifndef VMM_UTIL_H
#define VMM_UTIL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define KIB                             ((uint64_t)1 << 10)
#define MIB                             ((uint64_t)1 << 20)
#define GIB                             ((uint64_t)1 << 30)
#define PAGE_BYTES                      4096u
#define PAGE_SHIFT                      12

#define ARRAY_SIZE(a)                   (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)                       ((a) < (b) ? (a) : (b))
#define MAX(a, b)                       ((a) > (b) ? (a) : (b))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* `align` is a power of two. */
#define ALIGN_DOWN(x, align) ((x) & ~((uint64_t)(align)-1))
#define ALIGN_UP(x, align)   ALIGN_DOWN((x) + (uint64_t)(align)-1, align)
#define IS_ALIGNED(x, align) (((x) & ((uint64_t)(align)-1)) == 0)

/* True if [start, start + bytes) lies within [0, limit), without overflow. */
static inline bool range_fits(uint64_t start, uint64_t bytes, uint64_t limit)
{
    return start <= limit && bytes <= limit - start;
}

static inline void cleanup_close(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void cleanup_free(void *ptr)
{
    free(*(void **)ptr);
}

static inline void cleanup_fclose(FILE **file)
{
    if (*file)
        fclose(*file);
}

#define _cleanup_(fn)       __attribute__((cleanup(fn)))
#define _cleanup_close_     _cleanup_(cleanup_close)
#define _cleanup_free_      _cleanup_(cleanup_free)
#define _cleanup_fclose_    _cleanup_(cleanup_fclose)
#define _printf_(fmt, args) __attribute__((format(printf, fmt, args)))

/* Hands the value on and disarms the cleanup of the variable that held it. */
static inline int take_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

#define take_ptr(ptr)                                                                              \
    ({                                                                                             \
        __typeof__(ptr) taken_ = (ptr);                                                            \
        (ptr) = NULL;                                                                              \
        taken_;                                                                                    \
    })

#endif
