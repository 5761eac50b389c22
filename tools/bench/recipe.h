/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guests of the benchmarks, and how each proves that it is the one that was saved, going on
 * where it was: its output has a number that counts on, and what only this run's guests know.
 *
 *   beat      a loop that does nothing but count in its memory and print count and nonce: whatever
 *             is between request and first output is not the guest's
 *   tick      counts aloud as fast as it can, with the nonce: as little as a guest with a kernel's
 *             ways in can do, which QEMU wants
 *   memtouch  reads or writes a working set page by page, checks each page, and prints a sum of
 *             what it read: its first output says that the working set was touched
 *
 *   churn     does what it is told line by line: writes, reads, tells how long it stood still. Its
 *             answers say what it did, and it checks each page that it writes
 *
 * Records of beat are 13 bytes: the nonce, the count in little-endian, a newline. KVM may stop it
 * between any two of them.
 */
#ifndef BENCH_RECIPE_H
#define BENCH_RECIPE_H

#include "bench.h"

enum recipe_kind {
    RECIPE_BEAT,
    RECIPE_TICK,
    RECIPE_MEMTOUCH,
    RECIPE_CHURN,
};

struct recipe {
    enum recipe_kind kind;
    char name[40]; /* of the snapshot that is made of it */
    char kernel[PATH_BYTES];
    char initrd[PATH_BYTES]; /* empty: none */
    char cmdline[128];
    unsigned mem_mib;
    unsigned data_mib; /* RECIPE_MEMTOUCH, RECIPE_CHURN: the initrd */
    unsigned ws_mib;
    bool writes;
};

/* Fill *ret, and make what files the guest needs in the scratch directory. */
int recipe_beat(
    struct bench *bench, unsigned mem_mib, struct recipe *ret, struct thaw_error *error);

int recipe_tick(struct bench *bench, const char *name, unsigned mem_mib, struct recipe *ret,
    struct thaw_error *error);

struct memtouch_options {
    unsigned mem_mib;
    unsigned data_mib;
    unsigned ws_mib;
    bool writes;
    bool random;        /* the order */
    unsigned rate_mibs; /* MiB a second; 0: as fast as possible */
};

int recipe_memtouch(struct bench *bench, const char *name, const struct memtouch_options *options,
    struct recipe *ret, struct thaw_error *error);

/* mem_mib, data_mib and ws_mib count. */
int recipe_churn(struct bench *bench, const char *name, const struct memtouch_options *options,
    struct recipe *ret, struct thaw_error *error);

/* What the words of the first `pages` of the data add up to. */
uint64_t recipe_sum(const struct bench *bench, uint64_t pages);

/* Where a guest is. beat: how many bytes it has printed; others: the last tick or pass; churn:
 * the order that it was last told to touch its pages in, or the generation that it wrote, else 0.
 */
#define POSITION_UNKNOWN UINT32_MAX

/* Looks for the first record in what a guest has printed since it was at `from`. 1: it is there,
 * and *ret_position is where the guest is behind it. 0: more has to come. Negative: it is wrong,
 * and error says in what. POSITION_UNKNOWN is for memtouch only, and passes over half a line. */
int recipe_read(const struct bench *bench, const struct recipe *recipe, uint32_t from,
    const char *bytes, size_t count, uint32_t *ret_position, struct thaw_error *error);

/* Where a guest is that has printed `total` bytes, the last `count` of which are given. The same
 * results. */
int recipe_position(const struct bench *bench, const struct recipe *recipe, size_t total,
    const char *bytes, size_t count, uint32_t *ret_position, struct thaw_error *error);

#endif
