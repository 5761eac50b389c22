// SPDX-License-Identifier: Apache-2.0
// Reads or writes one word in each page of a working set, again and again, and checks every word.
// The pages come with the initrd: filling memory by a loop takes far too long under emulation.
#include "cpu.h"
#include "guest.h"
#include "layout.h"
#include "tsc.h"

const char guest_name[] = "memtouch";

enum {
    PAGES_PER_MIB = 256,
    THROTTLE_PAGES = 16,        /* look at the clock once in so many pages */
    THROTTLE_MAX_LAG_TICKS = 8, /* after a longer pause don't catch up, go on from now */
};

struct work {
    uint64_t (*data)[MEMTOUCH_PAGE_WORDS];
    uint64_t data_seed, pages;
    bool write, random;
    uint64_t mask, position, order_add; /* order=rand */
    uint8_t fold_shift;
    uint64_t cycles_per_tick, deadline; /* a tick is THROTTLE_PAGES pages; 0: no limit */
};

static void find_data(struct work *w, const struct boot_info *boot)
{
    const uint64_t *first = (const uint64_t *)boot->initrd_gpa;
    uint64_t pages = boot->initrd_bytes / MEMTOUCH_PAGE_BYTES;
    uint64_t ws = option_u64(boot->cmdline, "ws", 0) * PAGES_PER_MIB;

    if (!pages || boot->initrd_gpa % MEMTOUCH_PAGE_BYTES)
        fail("needs an initrd made by memtouch-data, at a page boundary");
    if (first[MEMTOUCH_HEADER_MAGIC] != MEMTOUCH_MAGIC || first[MEMTOUCH_HEADER_PAGES] > pages)
        fail("initrd at %lx of %lu pages is damaged or not by memtouch-data", boot->initrd_gpa,
            pages);
    w->data = (uint64_t(*)[MEMTOUCH_PAGE_WORDS])boot->initrd_gpa;
    w->data_seed = first[MEMTOUCH_HEADER_SEED];
    w->pages = first[MEMTOUCH_HEADER_PAGES];
    if (ws > w->pages)
        fail("ws= is larger than the initrd of %lu pages", w->pages);
    if (ws)
        w->pages = ws;
}

static void throttle(struct work *w)
{
    uint64_t now = cpu_rdtsc();

    w->deadline += w->cycles_per_tick;
    if (now < w->deadline)
        tsc_spin_until(w->deadline);
    else if (now - w->deadline > THROTTLE_MAX_LAG_TICKS * w->cycles_per_tick)
        w->deadline = now;
}

static __attribute__((noreturn)) void wrong_word(
    const struct work *w, const uint64_t *page, uint64_t pass)
{
    uint64_t i = (uint64_t)(page - w->data[0]) / MEMTOUCH_PAGE_WORDS;

    fail("page %lu in pass %lu: word 0 is %lx, should be %lx; last written in pass %lu", i, pass,
        page[MEMTOUCH_MIX], memtouch_mix(i, w->data_seed), page[MEMTOUCH_PASS]);
}

/* Checks one page, which pass `pass - 1` wrote last; returns what it adds to the sum. `write` is a
 * constant in every caller, and `mix` handed in, to keep the loops at few instructions a page. */
static inline __attribute__((always_inline)) uint64_t touch(
    const struct work *w, uint64_t *page, uint64_t mix, uint64_t pass, bool write)
{
    if (page[MEMTOUCH_MIX] != mix || (write && page[MEMTOUCH_PASS] != pass - 1))
        wrong_word(w, page, pass);
    if (!write)
        return mix;
    page[MEMTOUCH_PASS] = pass;
    return mix + pass;
}

static inline __attribute__((always_inline)) uint64_t touch_sequence(
    const struct work *w, uint64_t first, uint64_t end, uint64_t pass, bool write)
{
    uint64_t mix = memtouch_mix(first, w->data_seed), sum = 0;
    uint64_t *page = w->data[first], *last = w->data[end];

    for (; page != last; page += MEMTOUCH_PAGE_WORDS, mix += MEMTOUCH_MIX_STEP)
        sum += touch(w, page, mix, pass, write);
    return sum;
}

/* Takes `steps` steps of a full-cycle generator modulo mask + 1, a power of two, and touches the
 * pages it names; numbers past the end are skipped. Visits every page once without a table. The
 * generator's low bits are poor, hence the folding (a bijection). */
static inline __attribute__((always_inline)) uint64_t touch_random(
    const struct work *w, uint64_t *position, uint64_t steps, uint64_t pass, bool write)
{
    uint64_t mask = w->mask, pages = w->pages, seed = w->data_seed, add = w->order_add;
    uint64_t(*data)[MEMTOUCH_PAGE_WORDS] = w->data;
    uint64_t x = *position, sum = 0;
    uint8_t shift = w->fold_shift;

    for (; steps; steps--) {
        uint64_t i = x ^ x >> shift;

        x = (x * 6364136223846793005u + add) & mask;
        if (i < pages)
            sum += touch(w, data[i], memtouch_mix(i, seed), pass, write);
    }
    *position = x;
    return sum;
}

/* Touches `steps` steps from `done` on, in whichever way was asked for. */
static uint64_t touch_some(struct work *w, uint64_t done, uint64_t steps, uint64_t pass)
{
    if (w->random)
        return w->write ? touch_random(w, &w->position, steps, pass, true)
                        : touch_random(w, &w->position, steps, pass, false);
    return w->write ? touch_sequence(w, done, done + steps, pass, true)
                    : touch_sequence(w, done, done + steps, pass, false);
}

static uint64_t run_pass(struct work *w, uint64_t pass)
{
    uint64_t total = w->random ? w->mask + 1 : w->pages, sum = 0;
    uint64_t chunk = w->cycles_per_tick ? THROTTLE_PAGES : total;

    for (uint64_t done = 0; done < total; done += chunk) {
        sum += touch_some(w, done, chunk < total - done ? chunk : total - done, pass);
        if (w->cycles_per_tick)
            throttle(w);
    }
    return sum;
}

static void choose_order(struct work *w, uint64_t seed)
{
    unsigned int bits = w->pages > 1 ? 64 - (unsigned int)__builtin_clzl(w->pages - 1) : 0;

    w->mask = (1ul << bits) - 1;
    w->fold_shift = (uint8_t)((bits + 1) / 2);
    w->position = seed & w->mask;
    w->order_add = 2 * seed + 1;
}

int guest_main(const struct boot_info *boot)
{
    const char *cmdline = boot->cmdline;
    uint64_t passes = option_u64(cmdline, "passes", 0);
    uint64_t pages_per_s = option_u64(cmdline, "rate", 0) * PAGES_PER_MIB;
    struct work w = {
        .write = option_is(cmdline, "op", "write"),
        .random = option_is(cmdline, "order", "rand"),
    };

    find_data(&w, boot);
    choose_order(&w, option_u64(cmdline, "seed", 1));
    if (pages_per_s)
        w.cycles_per_tick = tsc_khz(cmdline) * 1000 * THROTTLE_PAGES / pages_per_s;
    say("memtouch: ready pages %lu op %s order %s\n", w.pages, w.write ? "write" : "read",
        w.random ? "rand" : "seq");

    w.deadline = cpu_rdtsc();
    for (uint64_t pass = 1;; pass++) {
        uint64_t sum = run_pass(&w, pass);

        say("memtouch: pass %lu pages %lu sum %lx\n", pass, w.pages, sum);
        mark(pass);
        if (pass == passes)
            return 0;
    }
}
