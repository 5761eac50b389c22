/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual machine. Its life:
 *
 *      thaw_vm_new            thaw_vm_start         thaw_vm_pause
 *   ------------->  CREATED  --------->  RUNNING  <==============>  PAUSED
 *                                                  thaw_vm_resume
 *   any of these  ---->  STOPPED  (powered off, reset, ended by its owner)
 *   any of these  ---->  FAILED   (the guest or the host did what cannot be continued)
 *
 * STOPPED and FAILED are final; `reason` and `detail` of thaw_vm_info say why. Only thaw_vm_reset
 * (snapshot.h) leads back from there.
 *
 * Threads: calls on different VMs are independent. Calls on one VM may come from any thread and are
 * serialised inside, except thaw_vm_free, which must be the last call. Callbacks run on threads of
 * the library and must not call back into the library for the same VM.
 */
#ifndef THAW_VM_H
#define THAW_VM_H

#include <stddef.h>
#include <stdint.h>
#include <thaw/env.h>

#ifdef __cplusplus
extern "C" {
#endif

#define THAW_VCPUS_MAX     16
#define THAW_MEM_MIN_BYTES (16ull << 20)
#define THAW_MEM_MAX_BYTES (1ull << 40)
#define THAW_DISKS_MAX     8

typedef struct thaw_vm thaw_vm;

enum thaw_vm_state {
    THAW_VM_CREATED = 0,
    THAW_VM_RUNNING = 1,
    THAW_VM_PAUSED = 2,
    THAW_VM_STOPPED = 3,
    THAW_VM_FAILED = 4,
};

/* Why a VM is in the state it is in. */
enum thaw_vm_reason {
    THAW_REASON_NONE = 0,         /* created, running */
    THAW_REASON_REQUEST = 1,      /* paused or stopped by the owner */
    THAW_REASON_POWEROFF = 2,     /* stopped: the guest powered itself off */
    THAW_REASON_RESET = 3,        /* stopped: the guest asked for a reset */
    THAW_REASON_EXIT = 4,         /* stopped: the guest wrote its exit status to the test port */
    THAW_REASON_TRIPLE_FAULT = 5, /* failed: the guest's processor shut down */
    THAW_REASON_EMULATION = 6,    /* failed: KVM could not run or emulate an instruction */
    THAW_REASON_KVM = 7,          /* failed: KVM refused to go on for another cause */
    THAW_REASON_MEMORY = 8,       /* failed: guest memory could not be provided */
    THAW_REASON_DISK_FULL = 9,    /* paused: the host has no room for the disk overlay */
};

/* Constant lower-case words for states and reasons ("running", "triple-fault"); "unknown" for
 * others. */
THAW_API const char *thaw_vm_state_name(enum thaw_vm_state state);
THAW_API const char *thaw_vm_reason_name(enum thaw_vm_reason reason);

#define THAW_DISK_READ_ONLY 1u /* the guest sees a read-only disk; no overlay is made */

/* A disk: a raw base image, opened read-only and never written, under a writable overlay that lives
 * as long as the VM. */
struct thaw_disk_options {
    size_t size;
    const char *path; /* the base image: a regular file or block device, a multiple of 512 bytes */
    int fd;           /* the base image already open for reading, instead of path */
    uint32_t flags;   /* THAW_DISK_* */
};

/* Receives what the guest writes to its serial port. Called on a vCPU thread, while the guest
 * waits: it must return quickly. */
typedef void (*thaw_console_fn)(void *data, const char *bytes, size_t count);

struct thaw_vm_options {
    size_t size;
    const char *name;        /* for messages and thread names; NULL: "vm". At most 64 bytes */
    uint32_t vcpu_count;     /* 1 to THAW_VCPUS_MAX; 0: 1 */
    uint64_t mem_bytes;      /* THAW_MEM_MIN_BYTES to THAW_MEM_MAX_BYTES in whole MiB; 0: 128 MiB */
    const char *kernel_path; /* bzImage (64-bit boot protocol 2.12 or later) or ELF64; required */
    const char *initrd_path; /* NULL: none */
    const char *cmdline;     /* NULL: empty. At most 2047 bytes */
    const struct thaw_disk_options *disks; /* disk_count structs, each disks[0].size bytes long */
    size_t disk_count;                     /* at most THAW_DISKS_MAX */
    thaw_console_fn console;               /* NULL: output is dropped */
    void *console_data;
};

/* Makes a VM, loads its kernel and leaves it CREATED: nothing runs yet. On success *ret is owned by
 * the caller. Errors: -EINVAL (an option), -E2BIG (the command line is longer than this kernel
 * takes), THAW_EIMAGE (kernel or initrd), THAW_EHOST, -ENOMEM, -errno from files. */
THAW_API int thaw_vm_new(
    thaw_env *env, const struct thaw_vm_options *options, thaw_vm **ret, struct thaw_error *error);

/* Stops the VM if need be, ends its threads and frees everything. NULL is allowed. */
THAW_API void thaw_vm_free(thaw_vm *vm);

/* CREATED to RUNNING. THAW_ESTATE otherwise. */
THAW_API int thaw_vm_start(thaw_vm *vm, struct thaw_error *error);

/* RUNNING to PAUSED, and returns when no vCPU runs and no device I/O is in flight; 0 at once if it
 * is paused already. THAW_ESTATE from other states, also if the VM ended before it was paused. */
THAW_API int thaw_vm_pause(thaw_vm *vm, struct thaw_error *error);

/* PAUSED to RUNNING; 0 at once if it is running already. THAW_ESTATE from other states. A VM whose
 * disk is still full is PAUSED again, THAW_REASON_DISK_FULL, maybe before this returns. */
THAW_API int thaw_vm_resume(thaw_vm *vm, struct thaw_error *error);

/* Any state to STOPPED, unless it is STOPPED or FAILED already, which is no error and changes
 * nothing. Returns when no vCPU runs any more. The guest is not asked. */
THAW_API int thaw_vm_stop(thaw_vm *vm, struct thaw_error *error);

#define THAW_VM_DETAIL_BYTES 256

struct thaw_vm_info {
    size_t size; /* set by the caller; fields that lie beyond it are not written */
    enum thaw_vm_state state;
    enum thaw_vm_reason reason;
    uint32_t vcpu_count;
    uint32_t disk_count;
    uint64_t mem_bytes;
    uint64_t exits;       /* returns from KVM_RUN to this process, all vCPUs, since the start */
    uint32_t exit_status; /* what the guest wrote, if reason is THAW_REASON_EXIT */
    uint32_t mark;        /* the last value that the guest wrote to the mark port */
    uint64_t mark_count;  /* how often it did */
    char detail[THAW_VM_DETAIL_BYTES]; /* one line on the reason, for people; may be empty */
};

/* Fills *info. Never blocks on the guest. Returns 0, or -EINVAL if size is not set. */
THAW_API int thaw_vm_get_info(thaw_vm *vm, struct thaw_vm_info *info);

/* When the steps of a VM's way from a snapshot, by restore or reset, to its first exit were done:
 * nanoseconds of CLOCK_MONOTONIC, each at the end of its step, in the order of the fields. 0: not
 * done, or not yet; a VM that was booted has the last two only. */
struct thaw_vm_timing {
    size_t size;           /* set by the caller; fields that lie beyond it are not written */
    uint64_t request_ns;   /* thaw_restore or thaw_image_restore was called */
    uint64_t opened_ns;    /* the snapshot is open, and its memory read if that is eager or small */
    uint64_t shell_ns;     /* there is a VM: from the pool, or made anew */
    uint64_t memory_ns;    /* its memory is mapped, and its working set there: image.h */
    uint64_t state_ns;     /* its state is set; thaw_vm_resume lets it run */
    uint64_t first_run_ns; /* the first vCPU is about to enter the guest */
    uint64_t first_exit_ns; /* the guest made a vCPU return from KVM_RUN for the first time */
};

/* Fills *timing. Never blocks. Any thread. Returns 0, or -EINVAL if size is not set. */
THAW_API int thaw_vm_get_timing(thaw_vm *vm, struct thaw_vm_timing *timing);

/* An eventfd that becomes readable when the VM's state changes or the guest writes a mark.
 * Borrowed: it belongs to the VM. The caller reads it to re-arm it. It is made at the first call,
 * and says then what has happened before. Any thread. Returns the descriptor, or -errno if none
 * can be made. */
THAW_API int thaw_vm_event_fd(thaw_vm *vm);

/* Waits until the VM is STOPPED or FAILED, at most timeout_ms milliseconds (negative: for ever).
 * Returns 0, or -ETIMEDOUT. */
THAW_API int thaw_vm_wait(thaw_vm *vm, int timeout_ms);

/* Offers input to the guest's serial port. Returns how many of the count bytes were taken: the
 * port's receive buffer is finite, and the rest may be offered again later. */
THAW_API int thaw_vm_console_input(
    thaw_vm *vm, const char *bytes, size_t count, struct thaw_error *error);

#ifdef __cplusplus
}
#endif
#endif
