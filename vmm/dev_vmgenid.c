// SPDX-License-Identifier: Apache-2.0
// The generation id and its notification. When to change it is decided by whoever restores.

#include "dev_vmgenid.h"
#include "machine.h"
#include <sys/random.h>

int vmgenid_renew(struct mem *mem, struct thaw_error *error)
{
    uint8_t id[16];
    if (getrandom(id, sizeof(id), 0) != sizeof(id))
        return error_errno(error, errno, "drawing a generation id");
    int r = mem_write(mem, MACHINE_VMGENID_GPA, id, sizeof(id));
    return r < 0 ? error_errno(error, -r, "writing the generation id") : 0;
}

void vmgenid_notify(struct irq_line *line)
{
    irq_line_set(line, true);
    irq_line_set(line, false);
}
