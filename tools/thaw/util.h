/* SPDX-License-Identifier: Apache-2.0 */
/* What every file of the command needs: cleanup at the end of a scope, and the clock. */
#ifndef TOOLS_UTIL_H
#define TOOLS_UTIL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))

static inline void cleanup_close(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void cleanup_free(void *ptr)
{
    free(*(void **)ptr);
}

static inline void cleanup_json(json_t **json)
{
    json_decref(*json);
}

#define _cleanup_close_     __attribute__((cleanup(cleanup_close)))
#define _cleanup_free_      __attribute__((cleanup(cleanup_free)))
#define _cleanup_json_      __attribute__((cleanup(cleanup_json)))
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

/* Milliseconds on the monotonic clock. */
static inline int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

#endif
