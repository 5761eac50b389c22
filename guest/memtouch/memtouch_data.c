// SPDX-License-Identifier: Apache-2.0
// memtouch-data: writes the initrd for the memtouch guest, or the sum that the guest should print.
// A host program. The same size and seed always give the same bytes.
#include "layout.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    PAGES_PER_MIB = 256,
    MAX_MIB = 1 << 20,
    USAGE = 2,
};

static int usage(void)
{
    fputs("usage: memtouch-data [-s SEED] [-o FILE] MIB   write the initrd (default: stdout)\n"
          "       memtouch-data [-s SEED] -c MIB          print the sum of an op=read pass\n",
        stderr);
    return USAGE;
}

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Two words of eight are random, the others are pointer-like: few values, alike in most bytes. */
static void fill_page(uint64_t *page, uint64_t index, uint64_t seed)
{
    uint64_t state = seed ^ index << 20;

    for (unsigned int i = MEMTOUCH_FILLER; i < MEMTOUCH_PAGE_WORDS; i++) {
        uint64_t r = next_random(&state);

        page[i] = i % 8 < 2 ? r : 0xffff888000000000u | (r & 0xf) << 12;
    }
    page[MEMTOUCH_MIX] = memtouch_mix(index, seed);
    page[MEMTOUCH_PASS] = 0;
}

static int write_pages(FILE *out, uint64_t pages, uint64_t seed)
{
    uint64_t page[MEMTOUCH_PAGE_WORDS];

    for (uint64_t i = 0; i < pages; i++) {
        fill_page(page, i, seed);
        if (i == 0) {
            page[MEMTOUCH_HEADER_MAGIC] = MEMTOUCH_MAGIC;
            page[MEMTOUCH_HEADER_SEED] = seed;
            page[MEMTOUCH_HEADER_PAGES] = pages;
        }
        if (fwrite(page, sizeof(page), 1, out) != 1)
            return -errno;
    }
    return fflush(out) ? -errno : 0;
}

static int write_file(const char *path, uint64_t pages, uint64_t seed)
{
    FILE *out = path ? fopen(path, "wbe") : stdout;
    int r = out ? write_pages(out, pages, seed) : -errno;

    if (path && out && fclose(out) && r == 0)
        r = -errno;
    if (r < 0)
        fprintf(stderr, "memtouch-data: writing %s: %s\n", path ? path : "stdout", strerror(-r));
    return r < 0 ? 1 : 0;
}

static int print_sum(uint64_t pages, uint64_t seed)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < pages; i++)
        sum += memtouch_mix(i, seed);
    return printf("%" PRIx64 "\n", sum) < 0 || fflush(stdout) ? 1 : 0;
}

static bool parse_number(const char *text, uint64_t *ret_value)
{
    char *end;

    errno = 0;
    *ret_value = strtoull(text, &end, 0);
    return *text && *text != '-' && !*end && !errno;
}

int main(int argc, char **argv)
{
    const char *path = NULL;
    uint64_t seed = 1, mib;
    bool sum_only = false;

    for (int c; (c = getopt(argc, argv, "s:o:c")) != -1;) {
        if (c == 's' && parse_number(optarg, &seed))
            continue;
        else if (c == 'o')
            path = optarg;
        else if (c == 'c')
            sum_only = true;
        else
            return usage();
    }
    if (optind + 1 != argc || !parse_number(argv[optind], &mib) || mib == 0 || mib > MAX_MIB)
        return usage();
    return sum_only ? print_sum(mib * PAGES_PER_MIB, seed)
                    : write_file(path, mib * PAGES_PER_MIB, seed);
}
