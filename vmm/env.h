/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of thaw_env. */
#ifndef VMM_ENV_H
#define VMM_ENV_H

#include "kvm_state.h"
#include <stdatomic.h>
#include <thaw/env.h>

struct thaw_env {
    atomic_uint references; /* the caller's and one per VM */
    struct kvm kvm;
    thaw_log_fn log;
    void *log_data;
    char *overlay_dir;
    struct cpu_x86_cpuid *cpuid; /* what guests are given, before it is made a vCPU's own */
    struct msr_list *msrs;       /* what is saved of each vCPU */
    atomic_uint tsc_khz;         /* of a new vCPU; 0: not asked yet */
    int kick_signal;
    int userfaultfd_fd; /* the caller's /dev/userfaultfd, duplicated; -1: none */
};

struct thaw_env *env_ref(struct thaw_env *env);
void env_unref(struct thaw_env *env);

void env_log(const struct thaw_env *env, enum thaw_log_level level, const char *format, ...)
    _printf_(3, 4);

#endif
