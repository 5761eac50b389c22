// SPDX-License-Identifier: Apache-2.0
// Finds the device that an address belongs to. Knows nothing of what devices do.

#include "bus.h"
#include <inttypes.h>
#include <string.h>

int bus_add(struct bus *bus, uint64_t base, uint64_t bytes, const struct bus_ops *ops, void *device,
    const char *name, struct thaw_error *error)
{
    if (bytes == 0 || bytes > UINT64_MAX - base)
        return error_set(error, -EINVAL,
            "%s: a range of %" PRIu64 " bytes at 0x%" PRIx64 " does not fit the address space",
            name, bytes, base);
    if (bus->count == BUS_RANGES_MAX)
        return error_set(
            error, -ENOSPC, "%s: the bus holds no more than %d ranges", name, BUS_RANGES_MAX);

    size_t at = 0;
    while (at < bus->count && bus->ranges[at].base < base)
        at++;
    const struct bus_range *clash = NULL;
    if (at > 0 && bus->ranges[at - 1].base + bus->ranges[at - 1].bytes > base)
        clash = &bus->ranges[at - 1];
    else if (at < bus->count && base + bytes > bus->ranges[at].base)
        clash = &bus->ranges[at];
    if (clash)
        return error_set(error, -EEXIST, "%s at 0x%" PRIx64 " overlaps %s at 0x%" PRIx64, name,
            base, clash->name, clash->base);

    memmove(&bus->ranges[at + 1], &bus->ranges[at], (bus->count - at) * sizeof(bus->ranges[0]));
    bus->ranges[at] = (struct bus_range){base, bytes, ops, device, name};
    bus->count++;
    return 0;
}

/* The range that holds all of [addr, addr + bytes), or NULL. */
static const struct bus_range *find(const struct bus *bus, uint64_t addr, unsigned bytes)
{
    size_t low = 0, high = bus->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (bus->ranges[mid].base <= addr)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == 0)
        return NULL;
    const struct bus_range *range = &bus->ranges[low - 1];
    return range_fits(addr - range->base, bytes, range->bytes) ? range : NULL;
}

void bus_read(const struct bus *bus, uint64_t addr, uint8_t *data, unsigned bytes)
{
    const struct bus_range *range = find(bus, addr, bytes);
    memset(data, 0xff, bytes);
    if (range && range->ops->read)
        range->ops->read(range->device, addr - range->base, data, bytes);
}

void bus_write(const struct bus *bus, uint64_t addr, const uint8_t *data, unsigned bytes)
{
    const struct bus_range *range = find(bus, addr, bytes);
    if (range && range->ops->write)
        range->ops->write(range->device, addr - range->base, data, bytes);
}
