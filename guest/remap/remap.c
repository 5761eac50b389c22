// SPDX-License-Identifier: Apache-2.0
// Maps two pages at one address, by turns, and looks through it all the time: the witness that
// nothing is left of translations that are not in its page tables any more.
#include "cpu.h"
#include "guest.h"

const char guest_name[] = "remap";

enum {
    LOOKS = 300, /* at each of the pages before it is the other's turn */
};

#define LARGE_PAGE  0x200000ull
#define FAR_ADDRESS 0x4000000000ull /* of linear memory, 256 GiB */

extern uint64_t page_tables[]; /* start.S */
static uint64_t directory[512] __attribute__((aligned(4096)));

static void map(uint64_t gpa)
{
    *(volatile uint64_t *)directory = gpa | 0xe3; /* present, writable, accessed, dirty, large */
    __asm__ volatile("invlpg (%0)" : : "r"(FAR_ADDRESS) : "memory");
}

int guest_main(const struct boot_info *boot)
{
    uint64_t first = boot->ram_bytes / 2 / LARGE_PAGE * LARGE_PAGE;
    uint64_t *pdpt = (uint64_t *)(page_tables[0] & ~0xfffull);

    for (uint64_t i = 0; i < 2; i++)
        *(volatile uint64_t *)(first + i * LARGE_PAGE) = i;
    pdpt[FAR_ADDRESS >> 30] = (uint64_t)directory | 0x23;
    say("remap: ready\n");
    for (uint64_t n = 1;; n++) {
        map(first + n % 2 * LARGE_PAGE);
        for (unsigned i = 0; i < LOOKS; i++) {
            uint64_t found = *(volatile uint64_t *)FAR_ADDRESS;

            if (found != n % 2)
                fail("turn %lu: found page %lu", n, found);
        }
        mark(n);
    }
}
