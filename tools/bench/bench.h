/* SPDX-License-Identifier: Apache-2.0 */
/* What every file of thaw-bench shares: the run as a whole, its clock, its errors. */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include "results.h"
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <thaw/thaw.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_SIZE(a)       (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)           ((a) < (b) ? (a) : (b))
#define MAX(a, b)           ((a) > (b) ? (a) : (b))
#define KIB                 1024u
#define MIB                 (1024u * KIB)
#define PAGE_BYTES          4096u
#define PAGES_PER_MIB       (MIB / PAGE_BYTES)
#define PATH_BYTES          512
#define NONCE_BYTES         8
#define _printf_(fmt, args) __attribute__((format(printf, fmt, args)))

/* No guest of a benchmark is silent for so long, however busy the host is. */
#define GUEST_TIMEOUT_MS 60000

enum peer {
    PEER_DEFAULT, /* with all rows, if it is there */
    PEER_NONE,
    PEER_QEMU,
};

struct bench_options {
    bool quick;
    enum peer peer;
    const char *json_path; /* NULL: none */
    const char *html_path;
    const char *dir; /* where the scratch directory is made */
};

/* A VM that was measured, on the heap. */
struct ending {
    void (*end)(void *what); /* and frees it */
    void *what;
};

#define ENDINGS_MAX 16

struct bench {
    struct bench_options options;
    char guests_dir[PATH_BYTES]; /* the small guests */
    char data_tool[PATH_BYTES];  /* memtouch-data */
    char thaw_path[PATH_BYTES];  /* the command; empty: there is none */
    char self_path[PATH_BYTES];
    char dir[PATH_BYTES];        /* scratch, removed at the end */
    char nonce[NONCE_BYTES + 1]; /* of this run: every guest has it in its memory */
    unsigned seed;               /* the same, for the data of memtouch */
    bool peer_qemu;              /* is measured as well */
    unsigned orders;             /* that guests were told to touch their pages in */
    unsigned cpus;
    thaw_env *env;
    thaw_store *store;
    struct results results;
    struct ending endings[ENDINGS_MAX]; /* to be taken apart after the round, all together */
    unsigned ending_count;
};

/* Set by SIGINT and SIGTERM: no further sample is taken, and the scratch directory goes. */
extern volatile sig_atomic_t bench_interrupted;

static inline uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* User and system time of all threads of this process. */
uint64_t cpu_ns(void);

/* Both fill *error, which may not be NULL, and return the code. */
int bench_fail(struct thaw_error *error, int code, const char *format, ...) _printf_(3, 4);
int bench_errno(struct thaw_error *error, const char *format, ...) _printf_(2, 3);

static inline void cleanup_close(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void cleanup_free(void *ptr)
{
    free(*(void **)ptr);
}

#define _cleanup_close_ __attribute__((cleanup(cleanup_close)))
#define _cleanup_free_  __attribute__((cleanup(cleanup_free)))

static inline int take_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

#endif
