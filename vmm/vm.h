/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of thaw_vm.
 *
 * A VM is built in two steps. The *shell* is everything that takes time and does not depend on what
 * will run: memory range, memslots, interrupt controllers, vCPUs with their threads. Memory is
 * mapped, if it is known then what, before all that, else after it. Then devices are made and state
 * is set: by booting a kernel, or from a snapshot.
 *
 * Lock order: api_lock, then lock, then a vCPU's lock. Devices' locks are never held while taking
 * one of these, except `lock`, which no one holds while calling a device.
 */
#ifndef VMM_VM_H
#define VMM_VM_H

#include "env.h"
#include "machine.h"
#include "timing.h"
#include "vcpu.h"

#define VM_NAME_BYTES 65

struct vm_shape {
    uint32_t vcpu_count;
    uint64_t mem_bytes;
    bool log_dirty; /* KVM records which pages the guest writes */
};

/* What is behind a disk, for whoever wants to find it again. */
struct vm_disk {
    char *path; /* of the base image; NULL if it was given as a descriptor */
    bool read_only;
};

/* What others keep with a VM: freed when its threads and devices are gone, its memory not yet. */
struct vm_attachment {
    void *data; /* NULL: none */
    void (*free)(void *data);
};

struct thaw_vm {
    struct thaw_env *env;
    char name[VM_NAME_BYTES];
    struct vm_shape shape;
    int fd;
    struct mem mem;
    struct machine machine;
    struct vm_disk disks[THAW_DISKS_MAX];
    struct vm_attachment attachment; /* guarded by api_lock */
    /* Takes over from thaw_vm_free, which has stopped the VM, and calls vm_destroy; NULL: none. */
    void (*reap)(void *data, struct thaw_vm *vm);
    void *reap_data;
    struct thaw_vm *pool_next;          /* the pool's */
    struct vcpu *vcpus;                 /* shape.vcpu_count of them */
    const struct vm_chips *fresh_chips; /* until state is set; NULL: not known */

    pthread_mutex_t api_lock; /* one of start, pause, resume, stop at a time */
    pthread_mutex_t lock;     /* guards all below */
    pthread_cond_t changed;   /* state, or a vCPU has become parked */
    int event_fd;             /* -1: nobody has asked for it yet */
    unsigned event_count;
    enum thaw_vm_state state;
    enum thaw_vm_reason reason;
    char detail[THAW_VM_DETAIL_BYTES];
    uint32_t vcpu_count; /* how many of vcpus are made */
    uint32_t exit_status;
    uint32_t mark;
    uint64_t mark_count;
    struct timing timing;
    int full_disk; /* which found no room while the VM was about to run; -1: none */
};

/* Puts memory behind a VM's range before KVM knows it (mem.h). */
typedef int (*vm_map_fn)(void *data, struct thaw_vm *vm, struct thaw_error *error);

/* Of the vCPUs of a new VM. They inherit from the thread that starts theirs: priority, affinity and
 * control group. */
enum vm_threads {
    VM_THREADS_NONE, /* vm_start_threads comes later: until then the VM may only be freed */
    VM_THREADS_ASLEEP,
    VM_THREADS_ALERT, /* as by vm_alert */
};

/* Makes a shell: CREATED, no devices, its memory mapped by `map`, or, if that is NULL, vacant. */
int vm_new_shell(struct thaw_env *env, const char *name, const struct vm_shape *shape,
    enum vm_threads threads, vm_map_fn map, void *map_data, struct thaw_vm **ret,
    struct thaw_error *error);
int vm_start_threads(struct thaw_vm *vm, struct thaw_error *error);

/* Gives a shell what most guests have at least, so that it need not be set when there is no time.
 * `fresh` is of shells that had this done, and lives until state is set. */
int vm_prepare_shell(struct thaw_vm *vm, struct fresh *fresh, struct thaw_error *error);

/* Gives a shell another name; threads keep theirs. At most VM_NAME_BYTES - 1 bytes are kept. */
void vm_set_name(struct thaw_vm *vm, const char *name);

/* Stops the VM if need be and frees everything. NULL is allowed. */
void vm_destroy(struct thaw_vm *vm);

/* What the VM's devices are connected to. */
struct vm_devices {
    thaw_console_fn console;
    void *console_data;
    unsigned disk_count;
    int (*open_disk)(void *data, struct io *io, unsigned index, struct disk **ret,
        struct thaw_error *error); /* as in machine_config */
    void *disk_data;
};

/* Gives a shell its devices, as after power-on or as `state` (NULL: none) says. Memory is mapped.
 */
int vm_add_machine(struct thaw_vm *vm, const struct vm_devices *devices,
    const struct machine_state *state, struct thaw_error *error);

/* Remembers where a disk's base image is. Frees the disk on failure. */
int vm_note_disk(struct thaw_vm *vm, unsigned index, const struct disk_options *options,
    struct disk *disk, struct thaw_error *error);

/* CREATED to PAUSED, for a VM whose state was set. Fails if the VM has ended meanwhile: setting
 * state may need memory that cannot be provided. */
int vm_set_restored(struct thaw_vm *vm, struct thaw_error *error);

/* The VM, which is paused or about to be, will soon run: its vCPUs wait for that awake, if there is
 * another processor for whoever is busy until then. */
void vm_alert(struct thaw_vm *vm);

/* Pauses for a moment a VM that is RUNNING or PAUSED and keeps all others from changing its state
 * until vm_release, which the same thread calls. *ret_was_running says what to give to that.
 * Nothing runs and nothing is in flight in between. */
int vm_hold(struct thaw_vm *vm, bool *ret_was_running, struct thaw_error *error);
void vm_release(struct thaw_vm *vm, bool run);

/* The same for a VM that is PAUSED or STOPPED; THAW_ESTATE otherwise. vm_release(vm, false) ends
 * it. */
int vm_hold_still(struct thaw_vm *vm, struct thaw_error *error);

/* For putting a VM back into the state that it was restored with; the caller holds api_lock
 * throughout. vm_pause_for_reset pauses it whatever state it is in: nothing runs and nothing is in
 * flight afterwards. THAW_ESTATE if its memory can't be provided.
 *
 * From vm_begin_reset on the VM is PAUSED and no longer what it was. vm_end_reset gives it a new
 * life, unless it ended meanwhile (as in vm_set_restored), or ends it if `r` is an error; it
 * returns the VM's fate, and needs an error to say it in. */
int vm_pause_for_reset(struct thaw_vm *vm, struct thaw_error *error);
void vm_begin_reset(struct thaw_vm *vm);
int vm_end_reset(struct thaw_vm *vm, int r, const struct timing *timing, struct thaw_error *error);

/* Ends the VM as if its guest had done what it can't go on from. Any thread that holds none of the
 * VM's locks. */
void vm_fail(struct thaw_vm *vm, enum thaw_vm_reason reason, const char *detail);

#endif
