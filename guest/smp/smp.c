// SPDX-License-Identifier: Apache-2.0
// Starts all other CPUs; then each CPU, the boot CPU too, counts in a cache line of its own.
// The boot CPU prints the counts until all have passed the target.
#include "smp.h"

#include "acpi.h"
#include "apic.h"
#include "cpu.h"
#include "guest.h"
#include "tsc.h"

const char guest_name[] = "smp";

enum {
    INIT_WAIT_US = 1000,
    STARTUP_WAIT_US = 200,
    ARRIVAL_WAIT_US = 200 * 1000,    /* when nobody says how many CPUs there are */
    ARRIVAL_LIMIT_US = 10000 * 1000, /* for as many as there should be */
};

struct counter {
    volatile uint64_t count;
    uint8_t pad[56];
} __attribute__((aligned(64)));

static struct counter counters[MAX_CPUS];

/* For trampoline.S. CPU n's stack grows down from cpu_stacks[n]. */
volatile uint64_t cpus_started = 1;
uint8_t cpu_stacks[MAX_CPUS][1 << CPU_STACK_SHIFT] __attribute__((aligned(16)));
extern const uint8_t trampoline[], trampoline_end[];
__attribute__((noreturn)) void cpu_main(uint64_t cpu);

void cpu_main(uint64_t cpu)
{
    for (;;) {
        counters[cpu].count++;
        cpu_pause();
    }
}

static void wait_us(uint64_t us, uint64_t khz)
{
    tsc_spin_until(cpu_rdtsc() + us * khz / 1000);
}

static void start_others(uint64_t khz)
{
    uint8_t *to = (uint8_t *)TRAMPOLINE;

    for (const uint8_t *from = trampoline; from < trampoline_end; from++)
        *to++ = *from;
    apic_send_init_to_others();
    wait_us(INIT_WAIT_US, khz);
    apic_send_startup_to_others(TRAMPOLINE >> 12);
    wait_us(STARTUP_WAIT_US, khz);
    apic_send_startup_to_others(TRAMPOLINE >> 12);
}

/* Waits for `expected` CPUs, or, when that is 0, for those that come within a short time. */
static uint64_t wait_for_cpus(uint64_t expected, uint64_t khz)
{
    uint64_t limit = cpu_rdtsc() + (expected ? ARRIVAL_LIMIT_US : ARRIVAL_WAIT_US) * khz / 1000;

    while ((!expected || cpus_started < expected) && cpu_rdtsc() < limit)
        cpu_pause();
    if (expected && cpus_started != expected)
        fail("%lu of %lu cpus started", cpus_started, expected);
    return cpus_started;
}

/* Counts for `us` microseconds, so that the boot CPU has something to show too. */
static void count_for(uint64_t us, uint64_t khz)
{
    uint64_t end = cpu_rdtsc() + us * khz / 1000;

    do {
        counters[0].count++;
    } while (cpu_rdtsc() < end);
}

/* Prints every CPU's count; returns whether all have reached `target`. */
static bool print_counts(uint64_t cpus, uint64_t target)
{
    bool reached = true;

    for (uint64_t i = 0; i < cpus; i++) {
        uint64_t count = counters[i].count;

        say("smp: cpu %lu count %lu\n", i, count);
        reached = reached && count >= target;
    }
    return reached;
}

int guest_main(const struct boot_info *boot)
{
    uint64_t khz = tsc_khz(boot->cmdline);
    uint64_t target = option_u64(boot->cmdline, "target", 100);
    uint64_t period_us = option_u64(boot->cmdline, "period_us", 20000);
    bool loop = option_u64(boot->cmdline, "loop", 0);
    uint64_t expected = option_u64(boot->cmdline, "cpus", acpi_count_cpus(boot->rsdp_gpa));
    uint64_t cpus, round = 0;
    bool reached;

    if (expected > MAX_CPUS)
        fail("knows at most %lu cpus", (uint64_t)MAX_CPUS);
    if (expected != 1)
        start_others(khz);
    cpus = wait_for_cpus(expected, khz);
    say("smp: ready cpus %lu\n", cpus);
    do {
        count_for(period_us, khz);
        reached = print_counts(cpus, target);
        mark(++round);
    } while (loop || !reached);
    say("smp: ok cpus %lu\n", cpus);
    return 0;
}
