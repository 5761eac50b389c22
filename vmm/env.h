/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of thaw_env. */
#ifndef VMM_ENV_H
#define VMM_ENV_H

#include "fresh.h"
#include <pthread.h>
#include <stdatomic.h>
#include <thaw/env.h>

/* What all VMs of this host have in common. KVM takes a millisecond to say what guests can have,
 * longer than all else until a VM is needed: it is asked in the background. */
struct env_host {
    struct cpu_x86_cpuid cpuid; /* what guests are given, before it is made a vCPU's own */
    struct msr_list msrs;       /* what is saved of each vCPU */
    int result;
    struct thaw_error error; /* if result is negative */
};

struct thaw_env {
    atomic_uint references; /* the caller's and one per VM */
    struct kvm kvm;
    thaw_log_fn log;
    void *log_data;
    char *overlay_dir;
    struct env_host *host; /* written by host_thread, until it has ended */
    pthread_t host_thread;
    pthread_mutex_t host_lock; /* guards host, and host_asked: host_thread is not joined yet */
    bool host_asked;
    atomic_uint tsc_khz;   /* of a new vCPU; 0: not asked yet */
    atomic_bool tsc_stays; /* set before tsc_khz: guests see the host's TSC, whatever is set */
    unsigned cpus;         /* that this process may use */
    atomic_uint restoring; /* calls that restore VMs just now */
    atomic_uint shells;    /* made so far */
    struct fresh fresh;    /* what they have */
    struct fresh_processors processors;
    uint64_t image_budget_bytes;
    pthread_mutex_t images_lock; /* guards images */
    void *images;                /* kept by whoever restores; freed last, by images_free */
    void (*images_free)(void *images);
    atomic_int spare_vm_fd; /* of host_thread's, for the first VM; -1: not yet, or taken */
    int kick_signal;
    int userfaultfd_fd; /* the caller's /dev/userfaultfd, duplicated; -1: none */
};

struct thaw_env *env_ref(struct thaw_env *env);
void env_unref(struct thaw_env *env);

/* A VM without anything in it, the caller's. The first is made in the background, since it takes as
 * long as what has to be known until then. */
int env_create_vm(struct thaw_env *env, int *ret_fd, struct thaw_error *error);

/* Waits until it is known. */
int env_host(struct thaw_env *env, const struct env_host **ret, struct thaw_error *error);

void env_log(const struct thaw_env *env, enum thaw_log_level level, const char *format, ...)
    _printf_(3, 4);

#endif
