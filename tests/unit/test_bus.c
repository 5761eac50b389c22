// SPDX-License-Identifier: Apache-2.0
#include "bus.h"
#include <criterion/criterion.h>
#include <string.h>

struct probe {
    unsigned reads, writes;
    uint64_t offset;
    uint8_t written[8];
};

static void probe_read(void *device, uint64_t offset, uint8_t *data, unsigned bytes)
{
    struct probe *probe = device;
    probe->reads++;
    probe->offset = offset;
    memset(data, 0x5a, bytes);
}

static void probe_write(void *device, uint64_t offset, const uint8_t *data, unsigned bytes)
{
    struct probe *probe = device;
    probe->writes++;
    probe->offset = offset;
    memcpy(probe->written, data, bytes);
}

static const struct bus_ops ops = {.read = probe_read, .write = probe_write};

Test(bus, an_access_reaches_the_device_that_claims_it)
{
    struct bus bus = {0};
    struct probe low = {0}, high = {0};
    cr_assert_eq(bus_add(&bus, 0x2000, 0x10, &ops, &high, "high", NULL), 0);
    cr_assert_eq(bus_add(&bus, 0x1000, 0x10, &ops, &low, "low", NULL), 0);

    uint8_t data[4] = {1, 2, 3, 4};
    bus_write(&bus, 0x2004, data, 4);
    cr_assert_eq(high.writes, 1);
    cr_assert_eq(high.offset, 4);
    cr_assert_arr_eq(high.written, data, 4);
    cr_assert_eq(low.writes, 0);

    bus_read(&bus, 0x100f, data, 1);
    cr_assert_eq(low.reads, 1);
    cr_assert_eq(low.offset, 0xf);
    cr_assert_eq(data[0], 0x5a);
}

Test(bus, overlapping_claims_are_refused_with_both_names)
{
    struct bus bus = {0};
    struct thaw_error error;
    cr_assert_eq(bus_add(&bus, 0x1000, 0x100, &ops, NULL, "first", NULL), 0);
    static const uint64_t bases[] = {0xfff, 0x1000, 0x1001, 0x10ff, 0xf01};
    for (size_t i = 0; i < ARRAY_SIZE(bases); i++) {
        cr_assert_eq(bus_add(&bus, bases[i], 0x100, &ops, NULL, "second", &error), -EEXIST);
        cr_assert(strstr(error.message, "first") && strstr(error.message, "second"));
    }
    cr_assert_eq(bus_add(&bus, 0x1100, 0x100, &ops, NULL, "after", NULL), 0);
    cr_assert_eq(bus_add(&bus, 0xf00, 0x100, &ops, NULL, "before", NULL), 0);
    cr_assert_eq(bus.count, 3);
}

Test(bus, empty_and_wrapping_ranges_are_refused)
{
    struct bus bus = {0};
    cr_assert_eq(bus_add(&bus, 0x1000, 0, &ops, NULL, "empty", NULL), -EINVAL);
    cr_assert_eq(bus_add(&bus, UINT64_MAX, 2, &ops, NULL, "wraps", NULL), -EINVAL);
}

Test(bus, a_full_bus_refuses_more)
{
    struct bus bus = {0};
    for (uint64_t i = 0; i < BUS_RANGES_MAX; i++)
        cr_assert_eq(bus_add(&bus, i * 16, 16, &ops, NULL, "device", NULL), 0);
    cr_assert_eq(bus_add(&bus, 0x10000, 16, &ops, NULL, "one more", NULL), -ENOSPC);
}

Test(bus, unclaimed_reads_give_all_ones_and_writes_vanish)
{
    struct bus bus = {0};
    struct probe probe = {0};
    cr_assert_eq(bus_add(&bus, 0x1000, 4, &ops, &probe, "device", NULL), 0);
    uint8_t data[8];
    memset(data, 0, sizeof(data));
    bus_read(&bus, 0x5000, data, 8);
    for (size_t i = 0; i < sizeof(data); i++)
        cr_assert_eq(data[i], 0xff);
    bus_write(&bus, 0x5000, data, 8);
    bus_read(&bus, 0xfff, data, 4);
    cr_assert_eq(probe.reads + probe.writes, 0);
}

Test(bus, an_access_that_leaves_a_range_reaches_no_device)
{
    struct bus bus = {0};
    struct probe probe = {0};
    cr_assert_eq(bus_add(&bus, 0x1000, 4, &ops, &probe, "device", NULL), 0);
    uint8_t data[8] = {0};
    bus_read(&bus, 0x1002, data, 4);
    bus_write(&bus, 0x1001, data, 8);
    bus_read(&bus, UINT64_MAX, data, 8);
    cr_assert_eq(probe.reads + probe.writes, 0);
    cr_assert_eq(data[0], 0xff);
}
