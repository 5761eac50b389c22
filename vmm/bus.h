/* SPDX-License-Identifier: Apache-2.0 */
/* A guest-visible address space (port I/O or MMIO): ranges of addresses that belong to devices. */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include "error.h"

#define BUS_RANGES_MAX 32

/* A device's side. `offset` counts from the start of its range; `bytes` is 1, 2, 4 or 8 and may be
 * more than the device likes: it ignores or reads as all ones what it does not support. Called on
 * vCPU threads, several at once: the device takes its own lock. */
struct bus_ops {
    void (*read)(void *device, uint64_t offset, uint8_t *data, unsigned bytes);
    void (*write)(void *device, uint64_t offset, const uint8_t *data, unsigned bytes);
};

struct bus_range {
    uint64_t base;
    uint64_t bytes;
    const struct bus_ops *ops;
    void *device;
    const char *name;
};

struct bus {
    struct bus_range ranges[BUS_RANGES_MAX]; /* sorted by base; fixed once the VM runs */
    size_t count;
};

/* Claims [base, base + bytes) for a device. -EEXIST, naming both, if it overlaps another. `name`
 * and `ops` must outlive the bus. */
int bus_add(struct bus *bus, uint64_t base, uint64_t bytes, const struct bus_ops *ops, void *device,
    const char *name, struct thaw_error *error);

/* One access by the guest. Where no single device claims all of it, reads give all ones and writes
 * are dropped, as on an empty bus. */
void bus_read(const struct bus *bus, uint64_t addr, uint8_t *data, unsigned bytes);
void bus_write(const struct bus *bus, uint64_t addr, const uint8_t *data, unsigned bytes);

#endif
