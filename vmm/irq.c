// SPDX-License-Identifier: Apache-2.0
// Creation of the interrupt controllers, and device lines into them. Their state is saved
// elsewhere.

#include "irq.h"
#include <linux/kvm.h>
#include <sys/ioctl.h>

int irq_create_chips(int vm_fd, struct thaw_error *error)
{
    if (ioctl(vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return error_errno(error, errno, "creating the in-kernel interrupt controllers");
    return 0;
}

int irq_create_timer(int vm_fd, struct thaw_error *error)
{
    /* KVM answers the speaker port itself: no exits for it. */
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    if (ioctl(vm_fd, KVM_CREATE_PIT2, &pit) < 0)
        return error_errno(error, errno, "creating the in-kernel timer");
    return 0;
}

void irq_line_sync(struct irq_line *line)
{
    if (line->vm_fd < 0 || (!line->level && !line->told))
        return;
    line->told = line->level;
    struct kvm_irq_level level = {.irq = line->gsi, .level = line->level};
    /* Fails only for a line or VM that does not exist, which construction has ruled out. */
    (void)ioctl(line->vm_fd, KVM_IRQ_LINE, &level);
}

void irq_line_set(struct irq_line *line, bool level)
{
    if (line->level == level)
        return;
    line->level = level;
    irq_line_sync(line);
}
