/* SPDX-License-Identifier: Apache-2.0 */
/* Role: keeps a VM with a processor, which never runs, for as long as it lives: between a host's
 * first VM and its last one, Linux does not change its own code for the sake of VMs (README.md,
 * Facts, says why that matters). */
/* Not its role: anything with that VM. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
    /* A local APIC that the guest has not enabled yet counts, too. */
    if (vm < 0 || ioctl(vm, KVM_CREATE_IRQCHIP) < 0 || ioctl(vm, KVM_CREATE_VCPU, 0) < 0) {
        perror("keep-vm");
        return 1;
    }
    for (;;)
        pause();
}
