// SPDX-License-Identifier: Apache-2.0
// Counts aloud, for ever or up to a number: the witness that a restored guest goes on where it was.
// Echoes lines that are typed, so that console input can be tested.
#include "apic.h"
#include "cpu.h"
#include "guest.h"
#include "irq.h"
#include "tsc.h"

const char guest_name[] = "tick";

enum {
    DEFAULT_INTERVAL = 130 * 1000 * 1000, /* 50 ms at 2.6 GHz */
    MAX_SLEEP_NS = 1000 * 1000 * 1000,
};

/* An input line that is not complete yet. */
struct input {
    size_t bytes;
    char text[80];
};

static void on_timer(void)
{
    apic_eoi();
}

/* Sleeps until the TSC reaches `deadline`; the timer only has to wake us near enough to it. */
static void sleep_until(uint64_t deadline, uint64_t khz)
{
    for (uint64_t now = cpu_rdtsc(); now < deadline; now = cpu_rdtsc()) {
        uint64_t ns = (deadline - now) * 1000000 / khz + 1;

        apic_timer_start(ns < MAX_SLEEP_NS ? (uint32_t)ns : MAX_SLEEP_NS);
        cpu_sleep();
    }
}

static void echo_input(struct input *in)
{
    for (int c = serial_read(); c >= 0; c = serial_read()) {
        if (c == '\n' || c == '\r') {
            in->text[in->bytes] = '\0';
            say("tick: input %s\n", in->text);
            in->bytes = 0;
        } else if (in->bytes + 1 < sizeof(in->text)) {
            in->text[in->bytes++] = (char)c;
        }
    }
}

int guest_main(const struct boot_info *boot)
{
    uint64_t ticks = option_u64(boot->cmdline, "ticks", 0);
    uint64_t interval = option_u64(boot->cmdline, "interval", DEFAULT_INTERVAL);
    bool spin = option_is(boot->cmdline, "wait", "spin");
    uint64_t khz = tsc_khz(boot->cmdline);
    struct input in = {.bytes = 0};
    char nonce[64];

    option_copy(boot->cmdline, "nonce", nonce, sizeof(nonce));
    if (!spin) {
        irq_set_handler(on_timer);
        apic_timer_init(APIC_ONE_SHOT);
    }
    say("tick: ready interval %lu\n", interval);

    for (uint64_t n = 1;; n++) {
        say(nonce[0] ? "tick %lu %s\n" : "tick %lu\n", n, nonce);
        mark(n);
        if (n == ticks)
            return 0;
        if (spin)
            tsc_spin_until(cpu_rdtsc() + interval);
        else
            sleep_until(cpu_rdtsc() + interval, khz);
        echo_input(&in);
    }
}
