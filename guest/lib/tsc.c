// SPDX-License-Identifier: Apache-2.0
// How fast the TSC runs, and waiting by polling it.
// Does not calibrate against another clock: that would cost more than the guests' whole start.
#include "tsc.h"

#include "cpu.h"
#include "guest.h"

enum {
    FALLBACK_KHZ = 2600000
};

static uint64_t khz_from_cpuid(void)
{
    struct cpuid id = cpu_cpuid(1);

    if (id.ecx >> 31 && cpu_cpuid(0x40000000).eax >= 0x40000010 && cpu_cpuid(0x40000010).eax)
        return cpu_cpuid(0x40000010).eax;
    if (cpu_cpuid(0).eax >= 0x15) {
        id = cpu_cpuid(0x15);
        if (id.eax && id.ebx && id.ecx)
            return (uint64_t)id.ecx * id.ebx / id.eax / 1000;
    }
    return FALLBACK_KHZ;
}

uint64_t tsc_khz(const char *cmdline)
{
    uint64_t khz = option_u64(cmdline, "tsc_khz", 0);

    return khz ? khz : khz_from_cpuid();
}

void tsc_spin_until(uint64_t deadline)
{
    while (cpu_rdtsc() < deadline)
        cpu_pause();
}
