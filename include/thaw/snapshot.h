/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking snapshots of VMs and making VMs from them.
 *
 * Work that takes long is a job: it runs on threads of the library, reports its progress, and can
 * be cancelled. A job that fails or is cancelled leaves things as they were before it.
 *
 * Threads: all calls may come from any thread, also at the same time, except thaw_job_free, which
 * must be the last on its job. Calls on one VM are serialised inside (vm.h); while a snapshot of it
 * is written, only its pause makes others wait.
 */
#ifndef THAW_SNAPSHOT_H
#define THAW_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>
#include <thaw/store.h>
#include <thaw/vm.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- Jobs ------------------------------------------------------------------------------------- */

typedef struct thaw_job thaw_job;

enum thaw_job_state {
    THAW_JOB_RUNNING = 0,
    THAW_JOB_DONE = 1,
    THAW_JOB_FAILED = 2, /* cancelled as well: the error is -ECANCELED then */
};

struct thaw_job_progress {
    size_t size; /* set by the caller; fields that lie beyond it are not written */
    enum thaw_job_state state;
    const char *phase;    /* what it is doing, in a word or two; a constant. A snapshot's
                             begin with "starting" and "memory", and its VM stands still for it no
                             longer than that */
    uint64_t done_bytes;  /* of total_bytes; never goes back */
    uint64_t total_bytes; /* 0 while not known */
};

/* Told how far a job is: when it turns to something else, at most ten times a second meanwhile, and
 * at its end. On a thread of the library, one call at a time, possibly while the VM stands still:
 * must return soon, and call nothing for that VM or that job. *progress is valid during the call.
 * Returns 0; anything else is as thaw_job_cancel. */
typedef int (*thaw_progress_fn)(void *data, const struct thaw_job_progress *progress);

/* Any thread. Returns 0, or -EINVAL if size is not set. */
THAW_API int thaw_job_poll(thaw_job *job, struct thaw_job_progress *progress);

/* An eventfd that becomes readable when the job ends and, at most ten times a second, when it has
 * progressed. Borrowed until the job is freed. */
THAW_API int thaw_job_event_fd(const thaw_job *job);

/* Asks the job to end early. It may succeed all the same. Any thread, also several times. */
THAW_API void thaw_job_cancel(thaw_job *job);

/* Waits for the end, at most timeout_ms milliseconds (negative: for ever). Returns the job's own
 * result, 0 or its error, or -ETIMEDOUT if it has not ended (and error is not written). */
THAW_API int thaw_job_wait(thaw_job *job, int timeout_ms, struct thaw_error *error);

/* Cancels the job, waits for its end and frees it. NULL is allowed. */
THAW_API void thaw_job_free(thaw_job *job);

/* --- Taking a snapshot ------------------------------------------------------------------------ */

/* Flags of thaw_vm_snapshot. Neither FULL nor DIFF: a diff where that is possible. */

/* Depends on no other snapshot. */
#define THAW_SNAPSHOT_FULL 1u
/* Stores only what changed since the VM's last snapshot in this store, or the one that it was
 * restored from; an error if there is none. It can still be restored without any other. */
#define THAW_SNAPSHOT_DIFF 2u
/* Stops the VM once the snapshot is durable, without letting it run again. */
#define THAW_SNAPSHOT_KILL 4u
/* The VM stands still until all memory is written; otherwise memory is copied while it runs, and
 * again what it changes meanwhile, so that the pause is short. */
#define THAW_SNAPSHOT_STOP_AND_COPY 8u

struct thaw_snapshot_options {
    size_t size;
    const char *name; /* NULL: "<template>-<6 characters>". See store.h for what is allowed */
    const char *template_name; /* what the VM was created from; NULL: as it was restored, or "vm" */
    uint32_t flags;       /* THAW_SNAPSHOT_*; neither FULL nor DIFF: DIFF where it is possible */
    int level;            /* of zstd, 1 to 19; 0: 1 */
    uint32_t threads;     /* that compress, at most 64; 0: one a CPU */
    const char *metadata; /* a JSON object of up to 64 KiB (white space aside) and 12 levels, which
                             thaw_snapshot_inspect gives back; NULL: as it was restored, or empty */
    thaw_progress_fn progress; /* NULL: nobody is told */
    void *progress_data;       /* used until the job is freed */
};

/* What a snapshot cost. */
struct thaw_snapshot_result {
    size_t size; /* set by the caller; fields that lie beyond it are not written */
    char id[33];
    char name[65];
    uint32_t diff;         /* 1: stored what changed only */
    uint64_t pause_ns;     /* how long the VM stood still for it; 0 if it was paused before */
    uint64_t total_ns;     /* from the call until durable */
    uint64_t pages;        /* that were looked at: all in use, or those that changed */
    uint64_t zero_pages;   /* of them, all zero: not stored */
    uint64_t stored_bytes; /* that the snapshot added to the store */
    uint32_t rounds;       /* in which memory was copied before the pause; 0: stop-and-copy, or the
                              VM was paused */
    uint32_t reserved;     /* 0 */
    uint64_t paused_pages; /* of memory, that were copied during the pause */
    uint64_t stale_pages;  /* stored in vain, since the guest wrote them again */
};

/* Starts to take a snapshot of a VM that is RUNNING or PAUSED, which goes on as it was afterwards,
 * whatever comes out (but for KILL, if it succeeds). One at a time per VM. The name is reserved
 * when this returns. The VM and the store must outlive the job. Errors: -EINVAL (an option),
 * -EEXIST (the name is taken), THAW_ESTATE (the VM is neither RUNNING nor PAUSED; or DIFF, and
 * there is nothing that it could be relative to), -EBUSY (another snapshot of the VM is being
 * taken), -ENOMEM, -errno. */
THAW_API int thaw_vm_snapshot(thaw_vm *vm, thaw_store *store,
    const struct thaw_snapshot_options *options, thaw_job **ret, struct thaw_error *error);

/* The result of a job that took or flattened a snapshot and is DONE. Returns 0, THAW_ESTATE if it
 * is another job or not DONE, or -EINVAL if size is not set. */
THAW_API int thaw_job_get_snapshot(thaw_job *job, struct thaw_snapshot_result *result);

/* --- Restoring -------------------------------------------------------------------------------- */

enum thaw_restore_mode {
    THAW_RESTORE_LAZY = 0,  /* memory is read when it is touched, and in the background. What is so
                               little (eight frames) that waiting once takes longer is read first,
                               unless a flag or a recorded working set says what to read */
    THAW_RESTORE_EAGER = 1, /* all memory is read first */
};

enum thaw_clock {
    THAW_CLOCK_CONTINUE = 0, /* the guest's clocks go on from what they showed */
    THAW_CLOCK_HOST = 1,     /* they jump ahead by the time that passed since the snapshot */
};

/* Another place for a disk's base image. Only the size is compared with what it was: that nobody
 * has written to it since the snapshot was taken is for the caller to know. */
struct thaw_disk_override {
    size_t size;
    uint32_t index;   /* of the disk, from 0 */
    const char *path; /* or, if NULL, */
    int fd;
};

/* Flags of thaw_restore. */

/* Also on a host that lacks what the guest saw where it was saved. */
#define THAW_RESTORE_FORCE 1u
/* About working sets: as THAW_IMAGE_ of the same name (image.h). In thaw_image_restore they mean
 * nothing, since that is the image's. thaw_vm_record_end ends RECORD. */
#define THAW_RESTORE_NO_PREFETCH    2u
#define THAW_RESTORE_PREFETCH_ASYNC 4u
#define THAW_RESTORE_RECORD         8u
/* The VM runs when the call returns, sooner than with a thaw_vm_resume after it: its vCPUs wake up
 * while state is being set. Its console may be called before that. thaw_vm_resume says when a VM
 * does not run after all. */
#define THAW_RESTORE_RESUME 16u

struct thaw_restore_options {
    size_t size;
    const char *name; /* of the new VM, cut after 64 bytes; NULL: the snapshot's name */
    enum thaw_restore_mode mode;
    enum thaw_clock clock;
    uint32_t flags;                         /* THAW_RESTORE_* */
    const struct thaw_disk_override *disks; /* disk_count structs, each disks[0].size bytes long */
    size_t disk_count;
    thaw_console_fn console;
    void *console_data;
    struct thaw_pool *pool; /* where to take the VM from (image.h), of the snapshot's shape; NULL:
                               it is made anew */
    int memory_fd;          /* as in thaw_image_options; thaw_image_restore does not look at it */
};

/* Makes a new VM, PAUSED or, with THAW_RESTORE_RESUME, RUNNING, from a READY snapshot (`ref`: see
 * store.h): vCPUs, memory size and devices are the snapshot's. thaw_vm_resume lets it run. Any
 * number of VMs may be made from one snapshot, in any number of processes; it cannot be deleted as
 * long as one of them lives. options may be NULL. Errors, of `ref`: -ENOENT, -ENOTUNIQ (the
 * beginning of several ids), THAW_ESTATE (it is not READY: being created, or FAILED), -EBUSY (just
 * being published, or deleted). Of the snapshot: THAW_ECORRUPT (names file and offset), -EOPNOTSUPP
 * (it needs a newer thaw; or RECORD without userfaultfd), THAW_EGUEST (the VM ended meanwhile).
 * Of the rest: -EINVAL (an option, no such disk, a pool of another shape), THAW_EHOST (lists what
 * this host lacks), THAW_EIMAGE (a disk's base image was changed), -ENOMEM, -errno. */
THAW_API int thaw_restore(thaw_env *env, thaw_store *store, const char *ref,
    const struct thaw_restore_options *options, thaw_vm **ret, struct thaw_error *error);

struct thaw_reset_options {
    size_t size;
    enum thaw_clock clock;
    uint32_t flags; /* THAW_RESET_* */
};

/* RESUME: the VM runs afterwards, sooner than with a thaw_vm_resume. If someone else stops it just
 * when it was reset, that is a THAW_ESTATE. */
#define THAW_RESET_RESUME 1u

/* Puts a VM that was restored back to its snapshot, as if it were freed and restored again, but in
 * a fraction of the time: it is PAUSED afterwards (but see RESUME), its memory, disks, devices,
 * processors and clocks are the snapshot's, its generation id is a new one, and its counters begin
 * at 0. Everything that the guest did meanwhile is dropped, and so is what snapshots of it since
 * were relative to: the next diff is relative to the snapshot that the VM came from. The VM may be
 * RUNNING (it is paused first), PAUSED, STOPPED or FAILED. options may be NULL.
 *
 * THAW_ESTATE if the VM was not restored from a snapshot, or its memory could not be provided
 * (THAW_REASON_MEMORY); -EBUSY while a snapshot of it is being taken; THAW_EHOST if this host's KVM
 * cannot do it. If there is no room for new disk overlays nothing is changed, except that a
 * RUNNING VM is paused. After any later failure it is FAILED, and may be reset again:
 * THAW_ECORRUPT (memory that was still to be read is damaged), THAW_EGUEST (the VM ended
 * meanwhile), -errno. */
THAW_API int thaw_vm_reset(
    thaw_vm *vm, const struct thaw_reset_options *options, struct thaw_error *error);

/* --- Comparing memory ------------------------------------------------------------------------- */

#define THAW_DIGEST_BYTES 42 /* "xxh3-128:", 32 hexadecimal characters, and the final zero */

/* The XXH3-128 of a VM's whole RAM, in the order of its addresses, pages of zeros included. Only
 * the 16 bytes of the generation id count as zeros, whatever they are: they differ in each clone on
 * purpose. So a clone that has not run yet has the digest that its source had when it was saved.
 * The VM must be PAUSED or STOPPED (THAW_ESTATE), and other calls on it wait. Memory that was never
 * touched remains so; what a lazy clone still lacks is read from its snapshot, with
 * thaw_restore's errors. Takes about as long as reading the memory: a second for some GiB. */
THAW_API int thaw_vm_memory_digest(
    thaw_vm *vm, char ret_digest[THAW_DIGEST_BYTES], struct thaw_error *error);

/* --- Looking after snapshots ------------------------------------------------------------------
 *
 * For all three `ref` is to be of a READY snapshot, which cannot be deleted meanwhile. Errors:
 * those that thaw_restore lists of `ref`, THAW_ECORRUPT, -EOPNOTSUPP (it needs a newer thaw),
 * -ENOMEM, -errno; of flattening also -EINVAL and -EEXIST, of the new name. */

/* Starts to read every byte of a snapshot and check it. The job fails with THAW_ECORRUPT and a
 * message that names the first bad file and the offset in it. */
THAW_API int thaw_snapshot_verify(
    thaw_store *store, const char *ref, thaw_job **ret, struct thaw_error *error);

/* Starts to make a new snapshot that is equal to one, but shares data with no other and holds only
 * what it uses. The old one stays as it is. name NULL: generated. thaw_job_get_snapshot tells id
 * and name. */
THAW_API int thaw_snapshot_flatten(
    thaw_store *store, const char *ref, const char *name, thaw_job **ret, struct thaw_error *error);

/* Everything that a snapshot says of itself, as JSON text: manifest, every record of the VM's
 * state, for each memory how many pages are zero, data of its own, data shared with ancestors, and
 * the compression ratio; and its recorded working set. *ret_json is freed with thaw_text_free. */
THAW_API int thaw_snapshot_inspect(
    thaw_store *store, const char *ref, char **ret_json, struct thaw_error *error);
THAW_API void thaw_text_free(char *text);

#ifdef __cplusplus
}
#endif
#endif
