// SPDX-License-Identifier: Apache-2.0
// Reads and sets model-specific registers: which there are, and what to do where KVM does not take
// one. When is known to kvm_state.c.

#include "kvm_msrs.h"
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>

#define MSR_TSC          0x10u
#define MSR_TSC_DEADLINE 0x6e0u

/* Not in KVM's list, but state: memory types (SDM volume 3, 12.11). */
static const uint32_t more_msrs[] = {
    0x200,
    0x201,
    0x202,
    0x203,
    0x204,
    0x205,
    0x206,
    0x207,
    0x208,
    0x209,
    0x20a,
    0x20b,
    0x20c,
    0x20d,
    0x20e,
    0x20f,
    0x250,
    0x258,
    0x259,
    0x268,
    0x269,
    0x26a,
    0x26b,
    0x26c,
    0x26d,
    0x26e,
    0x26f,
    0x2ff,
};

static void list_add(struct msr_list *list, uint32_t index)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (list->indices[i] == index)
            return;
    if (list->count < VCPU_STATE_MSRS_MAX)
        list->indices[list->count++] = index;
}

int msr_list_read(const struct kvm *kvm, struct msr_list *ret, struct thaw_error *error)
{
    struct {
        struct kvm_msr_list head;
        uint32_t indices[VCPU_STATE_MSRS_MAX];
    } *all _cleanup_free_ = calloc(1, sizeof(*all));
    if (!all)
        return error_errno(error, ENOMEM, "allocating the list of MSRs");
    all->head.nmsrs = VCPU_STATE_MSRS_MAX - ARRAY_SIZE(more_msrs);
    if (ioctl(kvm->fd, KVM_GET_MSR_INDEX_LIST, all) < 0)
        return error_errno(error, errno, "asking KVM which MSRs make up a vCPU's state");

    *ret = (struct msr_list){0};
    for (uint32_t i = 0; i < all->head.nmsrs; i++)
        if (all->indices[i] != MSR_TSC && all->indices[i] != MSR_TSC_DEADLINE)
            list_add(ret, all->indices[i]);
    for (size_t i = 0; i < ARRAY_SIZE(more_msrs); i++)
        list_add(ret, more_msrs[i]);
    list_add(ret, MSR_TSC_DEADLINE); /* last */
    return 0;
}

/* 16 KiB, which a thread's stack has. */
struct msr_batch {
    struct kvm_msrs head;
    struct kvm_msr_entry entries[VCPU_STATE_MSRS_MAX];
};

/* KVM reads up to the first MSR that this vCPU does not have; that one is left out, and the rest
 * tried again. */
int msrs_save(
    int vcpu_fd, const struct msr_list *list, struct vcpu_state *ret, struct thaw_error *error)
{
    struct msr_batch batch;
    ret->msr_count = 0;
    for (uint32_t at = 0; at < list->count;) {
        batch.head = (struct kvm_msrs){.nmsrs = list->count - at};
        for (uint32_t i = 0; i < batch.head.nmsrs; i++)
            batch.entries[i] = (struct kvm_msr_entry){.index = list->indices[at + i]};
        int got = ioctl(vcpu_fd, KVM_GET_MSRS, &batch);
        if (got < 0)
            return error_errno(error, errno, "reading a vCPU's MSRs");
        memcpy(&ret->msrs[ret->msr_count], batch.entries, (size_t)got * sizeof(ret->msrs[0]));
        ret->msr_count += (uint32_t)got;
        at += (uint32_t)got + 1;
    }
    return 0;
}

/* Some MSRs are readable but not writable, on some hosts. That is no loss if the vCPU has the
 * wanted value anyway. */
static bool msr_has_value(int vcpu_fd, const struct kvm_msr_entry *wanted)
{
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } one = {.head.nmsrs = 1, .entry.index = wanted->index};
    return ioctl(vcpu_fd, KVM_GET_MSRS, &one) == 1 && one.entry.data == wanted->data;
}

/* The lists are the same, in the same order, unless the state is of another host. */
static bool is_known(
    const struct vcpu_state *known, uint32_t place, const struct kvm_msr_entry *wanted)
{
    if (!known)
        return false;
    if (place < known->msr_count && known->msrs[place].index == wanted->index)
        return known->msrs[place].data == wanted->data;
    for (uint32_t i = 0; i < known->msr_count; i++)
        if (known->msrs[i].index == wanted->index)
            return known->msrs[i].data == wanted->data;
    return false;
}

int msrs_restore(int vcpu_fd, const struct vcpu_state *state, const struct vcpu_state *known,
    struct thaw_error *error)
{
    struct msr_batch batch;
    batch.head = (struct kvm_msrs){0};
    for (uint32_t i = 0; i < state->msr_count; i++)
        if (!is_known(known, i, &state->msrs[i]))
            batch.entries[batch.head.nmsrs++] = state->msrs[i];
    while (batch.head.nmsrs > 0) {
        int set = ioctl(vcpu_fd, KVM_SET_MSRS, &batch);
        if (set < 0)
            return error_errno(error, errno, "setting a vCPU's MSRs");
        if ((uint32_t)set == batch.head.nmsrs)
            break;
        const struct kvm_msr_entry *refused = &batch.entries[set];
        if (!msr_has_value(vcpu_fd, refused))
            return error_set(error, THAW_EHOST,
                "this host's KVM does not take MSR 0x%x with value 0x%" PRIx64, refused->index,
                (uint64_t)refused->data);
        batch.head.nmsrs -= (uint32_t)set + 1;
        memmove(batch.entries, refused + 1, batch.head.nmsrs * sizeof(batch.entries[0]));
    }
    return 0;
}
