// SPDX-License-Identifier: Apache-2.0
// Does to its memory what it is told by lines on the serial port, and watches its clock meanwhile:
// the largest gap between two looks at it is how long the guest stood still, as it saw it itself.
#include "../memtouch/layout.h"
#include "cpu.h"
#include "guest.h"
#include "tsc.h"

const char guest_name[] = "churn";

enum {
    PAGES_PER_MIB = 256,
    POLLS_PER_S = 5000,    /* each is an exit */
    THROTTLE_MAX_LAG = 64, /* pages; after a longer pause don't catch up, go on from now */
    LINE_BYTES = 40,
};

struct work {
    uint64_t (*data)[MEMTOUCH_PAGE_WORDS];
    uint64_t pages, seed; /* of the data */
    uint64_t ws_pages;    /* of the working set, the first ones */
    uint64_t generation;  /* of the last write; what a page holds is never beyond it */
    uint64_t khz;
    uint64_t replies;
    uint64_t cycles_per_page, deadline, next_page; /* of the steady writing; 0: there is none */
    uint64_t last_look, largest_gap, writes;
    size_t line_bytes;
    char line[LINE_BYTES];
};

static void find_data(struct work *w, const struct boot_info *boot)
{
    const uint64_t *first = (const uint64_t *)boot->initrd_gpa;

    if (!boot->initrd_bytes || boot->initrd_gpa % MEMTOUCH_PAGE_BYTES ||
        first[MEMTOUCH_HEADER_MAGIC] != MEMTOUCH_MAGIC ||
        first[MEMTOUCH_HEADER_PAGES] > boot->initrd_bytes / MEMTOUCH_PAGE_BYTES)
        fail("needs an initrd made by memtouch-data, at a page boundary");
    w->data = (uint64_t(*)[MEMTOUCH_PAGE_WORDS])boot->initrd_gpa;
    w->seed = first[MEMTOUCH_HEADER_SEED];
    w->pages = first[MEMTOUCH_HEADER_PAGES];
    w->ws_pages = option_u64(boot->cmdline, "ws", 1) * PAGES_PER_MIB;
    if (!w->ws_pages || w->ws_pages > w->pages)
        fail("ws= is nothing, or larger than the initrd of %lu pages", w->pages);
}

static __attribute__((noreturn)) void wrong_page(const struct work *w, uint64_t i)
{
    fail("page %lu: word 0 is %lx, should be %lx; last written in generation %lu of %lu", i,
        w->data[i][MEMTOUCH_MIX], memtouch_mix(i, w->seed), w->data[i][MEMTOUCH_PASS],
        w->generation);
}

static inline __attribute__((always_inline)) uint64_t read_page(
    const struct work *w, uint64_t i, uint64_t mix)
{
    if (w->data[i][MEMTOUCH_MIX] != mix)
        wrong_page(w, i);
    return mix;
}

static inline __attribute__((always_inline)) void write_page(
    const struct work *w, uint64_t i, uint64_t mix, uint64_t generation)
{
    uint64_t *page = w->data[i];

    if (page[MEMTOUCH_MIX] != mix || page[MEMTOUCH_PASS] > generation)
        wrong_page(w, i);
    page[MEMTOUCH_PASS] = generation;
}

/* --- What it can be told ---------------------------------------------------------------------- */

/* Every page of the working set once, in an order that the seed chooses: a full-cycle generator
 * modulo a power of two, whose numbers past the end are skipped. */
static void touch(struct work *w, uint64_t order)
{
    uint64_t bits = w->ws_pages > 1 ? 64 - (uint64_t)__builtin_clzl(w->ws_pages - 1) : 0;
    uint64_t mask = (1ul << bits) - 1, add = 2 * order + 1, x = order & mask, sum = 0;
    uint8_t shift = (uint8_t)((bits + 1) / 2);

    for (uint64_t n = 0; n <= mask; n++) {
        uint64_t i = x ^ x >> shift;

        x = (x * 6364136223846793005u + add) & mask;
        if (i < w->ws_pages)
            sum += read_page(w, i, memtouch_mix(i, w->seed));
    }
    say("churn: touch %lu pages %lu sum %lx\n", order, w->ws_pages, sum);
}

static void burst(struct work *w, uint64_t mib)
{
    uint64_t pages = mib * PAGES_PER_MIB, mix = memtouch_mix(0, w->seed);

    if (pages > w->pages)
        fail("cannot write %lu of %lu pages", pages, w->pages);
    w->generation++;
    for (uint64_t i = 0; i < pages; i++, mix += MEMTOUCH_MIX_STEP)
        write_page(w, i, mix, w->generation);
    say("churn: burst %lu pages %lu\n", w->generation, pages);
}

static void set_rate(struct work *w, uint64_t mibps)
{
    w->cycles_per_page = mibps ? w->khz * 1000 / (mibps * PAGES_PER_MIB) : 0;
    w->next_page = 0;
    w->generation++;
    say("churn: rate %lu\n", mibps);
}

static void tell_gap(const struct work *w)
{
    say("churn: gap %lu writes %lu\n", w->largest_gap * 1000 / (w->khz / 1000), w->writes);
}

static bool is_word(const struct work *w, const char *word, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (w->line[i] != word[i])
            return false;
    return true;
}

/* What happened meanwhile is no gap of the VMM's making. */
static void obey(struct work *w)
{
    uint64_t number = 0;

    w->line[w->line_bytes] = '\0';
    w->line_bytes = 0;
    if (is_word(w, "touch ", 6) && parse_u64(w->line + 6, &number) != w->line + 6)
        touch(w, number);
    else if (is_word(w, "burst ", 6) && parse_u64(w->line + 6, &number) != w->line + 6)
        burst(w, number);
    else if (is_word(w, "rate ", 5) && parse_u64(w->line + 5, &number) != w->line + 5)
        set_rate(w, number);
    else if (is_word(w, "gap", 3))
        tell_gap(w);
    else
        fail("does not know '%s'", w->line);
    mark(++w->replies);
    w->last_look = w->deadline = cpu_rdtsc();
    w->largest_gap = w->writes = 0;
}

static void listen(struct work *w)
{
    for (int c = serial_read(); c >= 0; c = serial_read()) {
        if (c == '\n')
            obey(w);
        else if (w->line_bytes + 1 < sizeof(w->line))
            w->line[w->line_bytes++] = (char)c;
    }
}

/* --- What it does all the time ---------------------------------------------------------------- */

/* Round and round in the working set, a generation each time. */
static void write_next(struct work *w, uint64_t now)
{
    write_page(w, w->next_page, memtouch_mix(w->next_page, w->seed), w->generation);
    w->writes++;
    if (++w->next_page == w->ws_pages) {
        w->next_page = 0;
        w->generation++;
    }
    w->deadline += w->cycles_per_page;
    if (now > w->deadline + THROTTLE_MAX_LAG * w->cycles_per_page)
        w->deadline = now;
}

int guest_main(const struct boot_info *boot)
{
    static struct work w;
    uint64_t poll_cycles, poll_at = 0;

    find_data(&w, boot);
    w.khz = tsc_khz(boot->cmdline);
    poll_cycles = w.khz * 1000 / POLLS_PER_S;
    say("churn: ready pages %lu ws %lu\n", w.pages, w.ws_pages);

    w.last_look = cpu_rdtsc();
    for (;;) {
        uint64_t now = cpu_rdtsc();

        if (now - w.last_look > w.largest_gap)
            w.largest_gap = now - w.last_look;
        w.last_look = now;
        if (w.cycles_per_page && now >= w.deadline)
            write_next(&w, now);
        if (now >= poll_at) {
            listen(&w);
            poll_at = now + poll_cycles;
        }
    }
}
