/* SPDX-License-Identifier: Apache-2.0 */
/* The model-specific registers of a vCPU, inside of kvm_state. */
#ifndef VMM_KVM_MSRS_H
#define VMM_KVM_MSRS_H

#include "kvm_state.h"

/* Reads those of `list` that the vCPU has into ret->msrs. */
int msrs_save(
    int vcpu_fd, const struct msr_list *list, struct vcpu_state *ret, struct thaw_error *error);

/* Sets state->msrs, in that order, but for those which have the same value in `known`, what the
 * vCPU is known to have (NULL: nothing). THAW_EHOST if KVM does not take one. */
int msrs_restore(int vcpu_fd, const struct vcpu_state *state, const struct vcpu_state *known,
    struct thaw_error *error);

#endif
