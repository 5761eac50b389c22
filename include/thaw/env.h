/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The environment: what the embedding program lends to the library. One environment serves any
 * number of VMs, and a process may have several. The library keeps no other state between calls,
 * prints nothing, never exits, and installs no signal handler.
 *
 * Option structs begin with `size`, which the caller sets to sizeof(the struct). A zero field means
 * the default. A struct from a newer header whose additional fields are non-zero is refused
 * (-EINVAL) rather than misread. A descriptor field holds an open descriptor above 0; 0 or less
 * means that none is given. Strings are copied; descriptors are duplicated (close-on-exec), so the
 * caller keeps its own.
 */
#ifndef THAW_ENV_H
#define THAW_ENV_H

#include <stddef.h>
#include <stdint.h>
#include <thaw/error.h>
#include <thaw/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a function fails with is in its error and not logged; warnings are of what was not done and
 * costs time only. The other levels are not used yet. */
enum thaw_log_level {
    THAW_LOG_ERROR = 0,
    THAW_LOG_WARNING = 1,
    THAW_LOG_INFO = 2,
    THAW_LOG_DEBUG = 3,
};

/* Receives one line without a newline. May be called from any thread that the library owns, and
 * from several at once; it must not call into the library. */
typedef void (*thaw_log_fn)(void *data, enum thaw_log_level level, const char *message);

struct thaw_env_options {
    size_t size;
    thaw_log_fn log; /* NULL: nothing is logged */
    void *log_data;
    int kvm_fd;         /* an open /dev/kvm; 0: the library opens it */
    int userfaultfd_fd; /* an open /dev/userfaultfd; 0: the library opens it when it needs it */
    const char *overlay_dir; /* where unnamed disk overlay files live; NULL: /var/tmp */
    int kick_signal; /* the signal that takes a vCPU out of guest mode; 0: SIGRTMIN + 4. It is
                        sent to the library's own vCPU threads only, and blocked in them except
                        inside KVM_RUN, so no handler exists or is needed. Its disposition must
                        not be SIG_IGN. */
    uint64_t image_budget_bytes; /* how much memory of snapshots that nobody uses is kept for the
                                    next restore (image.h); 0: none */
};

typedef struct thaw_env thaw_env;

/* Checks that the host offers what is needed (THAW_EHOST names everything that is missing) and
 * makes an environment. options may be NULL. On success *ret is owned by the caller. Any thread. */
THAW_API int thaw_env_new(
    const struct thaw_env_options *options, thaw_env **ret, struct thaw_error *error);

/* Gives the caller's reference back; VMs made from it keep what they need. NULL is allowed. Any
 * thread. */
THAW_API void thaw_env_free(thaw_env *env);

#ifdef __cplusplus
}
#endif
#endif
