// SPDX-License-Identifier: Apache-2.0
// Sleeps in HLT until the local APIC timer wakes it, in each mode that the timer has.
// A lost interrupt hangs it, one too many fails it.
#include "apic.h"
#include "cpu.h"
#include "guest.h"
#include "irq.h"
#include "tsc.h"

const char guest_name[] = "timer";

enum {
    CPUID_TSC_DEADLINE = 1 << 24
};

/* One mode's turn. */
struct turn {
    const char *name;
    enum apic_timer_mode mode;
    uint64_t ticks;
    uint32_t period_ns;
    uint64_t period_cycles;
};

static volatile uint64_t interrupts; /* counted by the handler */

static void on_timer(void)
{
    interrupts++;
    apic_eoi();
}

static void start_next(const struct turn *t)
{
    if (t->mode == APIC_TSC_DEADLINE)
        apic_timer_deadline(cpu_rdtsc() + t->period_cycles);
    else if (t->mode == APIC_ONE_SHOT)
        apic_timer_start(t->period_ns);
}

/* A periodic timer may have fired more than once when the guest was not running for a while. */
static void wait_for_tick(const struct turn *t)
{
    uint64_t before = interrupts;

    while (interrupts == before)
        cpu_sleep();
    if (t->mode != APIC_PERIODIC && interrupts != before + 1)
        fail("%s: %lu interrupts instead of one", t->name, interrupts - before);
}

static void run(const struct turn *t, uint64_t *tick)
{
    apic_timer_init(t->mode);
    if (t->mode == APIC_PERIODIC)
        apic_timer_start(t->period_ns);
    for (uint64_t i = 0; i < t->ticks; i++) {
        start_next(t);
        wait_for_tick(t);
        ++*tick;
        say("timer: tick %lu %s\n", *tick, t->name);
        mark(*tick);
    }
    apic_timer_start(0);
}

int guest_main(const struct boot_info *boot)
{
    bool has_deadline = cpu_cpuid(1).ecx & CPUID_TSC_DEADLINE;
    bool loop = option_u64(boot->cmdline, "loop", 0);
    uint64_t period_us = option_u64(boot->cmdline, "period_us", 10000);
    struct turn t = {.ticks = option_u64(boot->cmdline, "ticks", 20)};
    uint64_t tick = 0;

    t.period_ns = (uint32_t)(period_us * 1000);
    t.period_cycles = period_us * tsc_khz(boot->cmdline) / 1000;
    irq_set_handler(on_timer);
    say("timer: ready period_us %lu deadline %s\n", period_us, has_deadline ? "yes" : "no");
    do {
        t.name = "periodic", t.mode = APIC_PERIODIC;
        run(&t, &tick);
        t.name = "oneshot", t.mode = APIC_ONE_SHOT;
        run(&t, &tick);
        t.name = "deadline", t.mode = APIC_TSC_DEADLINE;
        if (has_deadline)
            run(&t, &tick);
    } while (loop);
    say("timer: ok ticks %lu\n", tick);
    return 0;
}
