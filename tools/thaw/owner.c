/* SPDX-License-Identifier: Apache-2.0 */
/* Role: the life of one VM in its process: claim, make, serve, record, end.
 * Not here: the terminal (foreground.c) and going into the background (process.c). */
#include "owner.h"
#include "api.h"
#include "capture.h"
#include "fail.h"
#include "offer.h"
#include "recording.h"
#include "runtime.h"
#include "server.h"
#include "signals.h"
#include "storage.h"
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <thaw/image.h>

#define CONSOLE_PAUSE_MS  5    /* output is collected for so long between two looks at it */
#define FINISH_MS         1000 /* for readers to take the rest of the output */
#define FIRST_MS          2    /* for the first output, before a VM is announced */
#define DEFAULT_NAMES_MAX 9999

struct owner {
    struct vm_config config;
    thaw_snapshot_list *snapshot; /* the one that the VM is restored from; else NULL */
    struct runtime_slot slot;
    struct loop loop;
    struct console *console;
    struct server *server;
    struct capture capture;
    struct recording recording;
    thaw_env *env;
    thaw_vm *vm;
    struct loop_source vm_source, console_source, signal_source;
    struct timespec started, stopped;
    int64_t started_ms, stopped_ms;
    int64_t console_ms;         /* when to look for output again; 0: when it is signalled */
    enum thaw_vm_state state;   /* as recorded */
    enum thaw_vm_reason reason; /* as recorded */
    bool ended;
};

const char *owner_name(const struct owner *owner)
{
    return owner->config.name;
}

struct loop *owner_loop(struct owner *owner)
{
    return &owner->loop;
}

struct console *owner_console(struct owner *owner)
{
    return owner->console;
}

void owner_get_info(struct owner *owner, struct thaw_vm_info *ret)
{
    *ret = (struct thaw_vm_info){.size = sizeof(*ret)};
    if (owner->vm)
        thaw_vm_get_info(owner->vm, ret);
}

json_t *owner_describe(struct owner *owner)
{
    struct vm_times times = {
        .started = owner->started,
        .uptime_ms = (owner->ended ? owner->stopped_ms : now_ms()) - owner->started_ms,
        .ended = owner->ended,
        .stopped = owner->stopped,
    };
    struct thaw_vm_info info;
    json_t *vm;

    owner_get_info(owner, &info);
    vm = vm_json_new(&owner->config, &info, &times);
    if (json_object_set_new(vm, "working_set", recording_describe(&owner->recording)) < 0) {
        json_decref(vm);
        return NULL;
    }
    return vm;
}

static int write_record(struct owner *owner, struct thaw_error *error)
{
    _cleanup_json_ json_t *status = owner_describe(owner);

    if (!status)
        return fail_errno(error, ENOMEM, "cannot describe the VM");
    return runtime_write_status(&owner->slot, status, error);
}

/* False: it is as it was. */
static bool look_at_state(struct owner *owner)
{
    struct thaw_vm_info info;

    owner_get_info(owner, &info);
    if (info.state == owner->state && info.reason == owner->reason)
        return false;
    owner->state = info.state;
    owner->reason = info.reason;
    if (!owner->ended && (info.state == THAW_VM_STOPPED || info.state == THAW_VM_FAILED)) {
        owner->ended = true;
        owner->stopped_ms = now_ms();
        clock_gettime(CLOCK_REALTIME, &owner->stopped);
        if (!owner->capture.kill)
            capture_cancel(&owner->capture);
        recording_end(&owner->recording);
    }
    return true;
}

/* Brings the record in line with the VM. A record that cannot be written (the disk is full) is no
 * reason to end a VM: the control socket tells the truth. */
static void note_state(struct owner *owner)
{
    if (look_at_state(owner))
        write_record(owner, NULL);
}

/* The library would wait, and with it everyone who wants something of this process: also who wants
 * to cancel what it waits for. */
static int check_not_held(struct owner *owner, struct thaw_error *error)
{
    if (!capture_holds_vm(&owner->capture))
        return 0;
    return fail_set(error, -EBUSY,
        "VM '%s' stands still for a snapshot: wait until its memory is stored, or cancel that",
        owner->config.name);
}

int owner_set_state(struct owner *owner, enum thaw_vm_state state, struct thaw_error *error)
{
    int rc = state == THAW_VM_STOPPED ? 0 : check_not_held(owner, error);

    if (rc < 0)
        return rc;
    if (state == THAW_VM_STOPPED)
        capture_cancel(&owner->capture);
    if (state == THAW_VM_PAUSED)
        rc = thaw_vm_pause(owner->vm, error);
    else if (state == THAW_VM_RUNNING)
        rc = thaw_vm_resume(owner->vm, error);
    else
        rc = thaw_vm_stop(owner->vm, error);
    note_state(owner);
    return rc;
}

int owner_reset(struct owner *owner, enum thaw_clock clock, struct thaw_error *error)
{
    struct thaw_reset_options options = {.size = sizeof(options), .clock = clock};
    int rc;

    if (!owner->config.restore)
        return fail_set(error, THAW_ESTATE,
            "VM '%s' was not restored from a snapshot that it could be reset to",
            owner->config.name);
    if (owner->ended)
        return fail_set(error, THAW_ESTATE, "VM '%s' has ended", owner->config.name);
    if (capture_is_running(&owner->capture))
        return fail_set(
            error, -EBUSY, "a snapshot of VM '%s' is being taken just now", owner->config.name);
    rc = thaw_vm_reset(owner->vm, &options, error);
    note_state(owner);
    return rc;
}

int owner_input(struct owner *owner, const char *bytes, size_t count, struct thaw_error *error)
{
    return thaw_vm_console_input(owner->vm, bytes, count, error);
}

int owner_snapshot(struct owner *owner, const char *store,
    const struct thaw_snapshot_options *options, struct server_stream *ret,
    struct thaw_error *error)
{
    struct thaw_snapshot_options full = *options;

    if (!full.template_name)
        full.template_name = owner->config.template_name;
    return capture_begin(&owner->capture, store ? store : owner->config.store, &full, ret, error);
}

bool owner_cancel_snapshot(struct owner *owner)
{
    bool running = capture_is_running(&owner->capture);

    capture_cancel(&owner->capture);
    return running;
}

int owner_image_fd(struct owner *owner, const char *id, struct thaw_error *error)
{
    const char *own = owner->config.snapshot_id;
    int rc;

    if (!own || strcmp(own, id) != 0)
        return fail_set(error, THAW_ESTATE, "this VM was not restored from snapshot '%s'", id);
    rc = check_not_held(owner, error);
    return rc < 0 ? rc : thaw_vm_memory_fd(owner->vm, error);
}

static void vm_ready(void *data, uint32_t events)
{
    struct owner *owner = data;
    eventfd_t value;

    (void)events;
    eventfd_read(owner->vm_source.fd, &value);
    note_state(owner);
}

static void signal_ready(void *data, uint32_t events)
{
    struct owner *owner = data;

    (void)events;
    if (signals_take(owner->signal_source.fd))
        owner_set_state(owner, THAW_VM_STOPPED, NULL);
}

/* A guest that writes byte by byte would wake this thread for each of them. */
static void console_ready(void *data, uint32_t events)
{
    struct owner *owner = data;

    (void)events;
    loop_unwatch(&owner->loop, &owner->console_source);
    owner->console_ms = now_ms() + CONSOLE_PAUSE_MS;
}

static void capture_changed(void *data)
{
    struct owner *owner = data;

    server_advance_streams(owner->server);
}

static void recording_stored(void *data)
{
    write_record(data, NULL);
}

static void deliver_console(struct owner *owner)
{
    console_flush_log(owner->console);
    server_advance_streams(owner->server);
}

static int watch(struct owner *owner, struct loop_source *source, int fd, loop_ready_fn ready,
    struct thaw_error *error)
{
    int rc;

    *source = (struct loop_source){.fd = fd, .ready = ready, .data = owner};
    rc = fd < 0 ? fd : loop_watch(&owner->loop, source, EPOLLIN);
    return rc < 0 ? fail_errno(error, -rc, "cannot watch a descriptor") : 0;
}

static int watch_signals(struct owner *owner, struct thaw_error *error)
{
    int fd = signals_open(error);

    return fd < 0 ? fd : watch(owner, &owner->signal_source, fd, signal_ready, error);
}

static void log_line(void *data, enum thaw_log_level level, const char *message)
{
    (void)data;
    if (level <= THAW_LOG_WARNING)
        fprintf(stderr, "thaw: %s\n", message);
}

static int make_env(struct owner *owner, struct thaw_error *error)
{
    struct thaw_env_options options = {.size = sizeof(options), .log = log_line};

    return thaw_env_new(&options, &owner->env, error);
}

static int boot(struct owner *owner, struct thaw_error *error)
{
    const struct vm_config *config = &owner->config;
    struct thaw_disk_options disks[THAW_DISKS_MAX];
    struct thaw_vm_options options = {
        .size = sizeof(options),
        .name = config->name,
        .vcpu_count = config->cpus,
        .mem_bytes = config->mem_bytes,
        .kernel_path = config->kernel,
        .initrd_path = config->initrd,
        .cmdline = config->cmdline,
        .disks = disks,
        .disk_count = config->disk_count,
        .console = console_write,
        .console_data = owner->console,
    };

    for (size_t i = 0; i < config->disk_count; i++)
        disks[i] = (struct thaw_disk_options){
            .size = sizeof(disks[i]),
            .path = config->disks[i].path,
            .flags = config->disks[i].read_only ? THAW_DISK_READ_ONLY : 0,
        };
    return thaw_vm_new(owner->env, &options, &owner->vm, error);
}

/* The library knows the snapshot by its id only; people want to read what they wrote. */
static int check_ready(
    const struct thaw_snapshot_info *info, const char *ref, struct thaw_error *error)
{
    switch (info->state) {
    case THAW_SNAPSHOT_CREATING:
        return fail_set(error, -EBUSY, "snapshot '%s' is still being created", ref);
    case THAW_SNAPSHOT_FAILED:
        return fail_set(
            error, THAW_ESTATE, "snapshot '%s' was not completed: %s", ref, info->error);
    case THAW_SNAPSHOT_DELETING:
        return fail_set(error, -EBUSY, "snapshot '%s' is being deleted", ref);
    default:
        return 0;
    }
}

/* Finds the snapshot, and takes over what it says of the VM. */
static int find_snapshot(struct owner *owner, thaw_store *store, struct thaw_error *error)
{
    struct vm_config *config = &owner->config;
    const struct thaw_snapshot_info *info;
    int rc = thaw_store_find(store, config->restore->ref, &owner->snapshot, error);

    if (rc < 0)
        return rc;
    info = thaw_snapshot_list_get(owner->snapshot, 0);
    rc = check_ready(info, config->restore->ref, error);
    if (rc < 0)
        return rc;
    config->snapshot_id = info->id;
    config->snapshot_name = info->name;
    config->template_name = info->template_name;
    config->cpus = info->vcpu_count;
    config->mem_bytes = info->mem_bytes;
    config->disk_count = MIN(info->disk_count, (uint32_t)THAW_DISKS_MAX);
    for (size_t i = 0; i < config->restore->disk_count; i++) {
        uint32_t index = config->restore->disks[i].index;

        if (index >= config->disk_count)
            return fail_set(error, -EINVAL, "snapshot '%s' has no disk %u: it has %u",
                config->restore->ref, index, info->disk_count);
        config->disks[index].path = config->restore->disks[i].path;
    }
    return 0;
}

/* A recording has to begin before the guest runs. */
static bool runs_at_once(const struct vm_restore *from)
{
    return !from->paused && !(from->flags & THAW_RESTORE_RECORD);
}

static int restore_with(
    struct owner *owner, thaw_store *store, int memory_fd, struct thaw_error *error)
{
    const struct vm_restore *from = owner->config.restore;
    struct thaw_disk_override disks[THAW_DISKS_MAX];
    struct thaw_restore_options options = {
        .size = sizeof(options),
        .name = owner->config.name,
        .mode = from->mode,
        .clock = from->clock,
        .flags = from->flags | (runs_at_once(from) ? THAW_RESTORE_RESUME : 0),
        .disks = disks,
        .disk_count = from->disk_count,
        .console = console_write,
        .console_data = owner->console,
        .memory_fd = memory_fd,
    };

    for (size_t i = 0; i < from->disk_count; i++)
        disks[i] = (struct thaw_disk_override){
            .size = sizeof(disks[i]),
            .index = from->disks[i].index,
            .path = from->disks[i].path,
        };
    /* By its id: the name may be another snapshot's by now. */
    return thaw_restore(owner->env, store, owner->config.snapshot_id, &options, &owner->vm, error);
}

/* With the memory that another VM's process has in use, if there is one. */
static int restore(struct owner *owner, thaw_store *store, struct thaw_error *error)
{
    const struct vm_restore *from = owner->config.restore;
    bool may_share = (from->flags & ~THAW_RESTORE_FORCE) == 0;
    _cleanup_close_ int memory_fd =
        may_share ? offer_take(&owner->slot, owner->config.snapshot_id) : -1;
    int rc = restore_with(owner, store, memory_fd, error);

    return rc == -EINVAL && memory_fd >= 0 ? restore_with(owner, store, -1, error) : rc;
}

/* A VM without a name of its own gets the snapshot's, with a number where that is taken. */
static int claim_name(struct owner *owner, struct thaw_error *error)
{
    struct vm_config *config = &owner->config;
    char name[NAME_BYTES], suffix[16] = "";
    int rc;

    if (config->name)
        return runtime_claim(config->name, &owner->slot, error);
    for (unsigned i = 2;; i++) {
        snprintf(name, sizeof(name), "%.*s%s", (int)(NAME_BYTES - 1 - strlen(suffix)),
            *config->snapshot_name ? config->snapshot_name : "vm", suffix);
        rc = runtime_claim(name, &owner->slot, error);
        if (rc != -EBUSY || i > DEFAULT_NAMES_MAX)
            break;
        snprintf(suffix, sizeof(suffix), "-%u", i);
    }
    if (rc == 0)
        config->name = owner->slot.name;
    return rc;
}

static int attach(struct owner *owner, struct thaw_error *error)
{
    int rc = loop_open(&owner->loop, error);

    if (rc == 0)
        rc = watch_signals(owner, error);
    if (rc == 0)
        rc = console_open(owner->slot.dir_fd, &owner->console, error);
    if (rc == 0)
        rc = watch(
            owner, &owner->console_source, console_event_fd(owner->console), console_ready, error);
    return rc;
}

static int start(struct owner *owner, struct thaw_error *error)
{
    const struct vm_restore *from = owner->config.restore;
    bool records = from && from->flags & THAW_RESTORE_RECORD;
    int rc = watch(owner, &owner->vm_source, thaw_vm_event_fd(owner->vm), vm_ready, error);

    owner->capture = (struct capture){
        .loop = &owner->loop, .vm = owner->vm, .changed = capture_changed, .data = owner};
    owner->recording = (struct recording){
        .loop = &owner->loop,
        .stored = recording_stored,
        .data = owner,
        .vm = owner->vm,
        .console = owner->console,
        .until = records ? from->record_until : NULL,
        .seconds = records ? from->record_seconds : 0,
    };
    if (records)
        recording_begin(&owner->recording);
    if (rc == 0)
        rc = server_open(
            &owner->loop, owner->slot.socket_path, api_handle, owner, &owner->server, error);
    if (rc == 0 && !from)
        rc = thaw_vm_start(owner->vm, error);
    else if (rc == 0 && records && !from->paused)
        rc = thaw_vm_resume(owner->vm, error);
    return rc;
}

static int set_up(struct owner *owner, struct thaw_error *error)
{
    thaw_store *store = NULL;
    bool restored = owner->config.restore != NULL;
    int rc = make_env(owner, error); /* first: it asks KVM for what takes long, in the background */

    if (rc == 0 && restored)
        rc = storage_open_path(owner->config.store, false, &store, error);
    if (rc == 0 && restored)
        rc = find_snapshot(owner, store, error);
    if (rc == 0)
        rc = claim_name(owner, error);
    if (rc == 0)
        rc = attach(owner, error);
    if (rc == 0)
        rc = restored ? restore(owner, store, error) : boot(owner, error);
    if (rc == 0)
        rc = start(owner, error);
    thaw_store_close(store);
    return rc;
}

int owner_open(const struct vm_config *config, struct owner **ret, struct thaw_error *error)
{
    struct owner *owner = calloc(1, sizeof(*owner));
    int rc;

    if (!owner)
        return fail_errno(error, ENOMEM, "cannot make a VM");
    owner->config = *config;
    owner->slot = (struct runtime_slot){.root_fd = -1, .dir_fd = -1, .lock_fd = -1};
    owner->loop.epoll_fd = -1;
    owner->signal_source.fd = -1;
    owner->reason = THAW_REASON_REQUEST; /* until it runs, failing leaves no record */
    rc = set_up(owner, error);
    if (rc == 0) {
        owner->started_ms = now_ms();
        clock_gettime(CLOCK_REALTIME, &owner->started);
        look_at_state(owner);
    }
    if (rc < 0) {
        owner_close(owner);
        return rc;
    }
    *ret = owner;
    return 0;
}

void owner_close(struct owner *owner)
{
    if (!owner)
        return;
    if (owner->started_ms && !owner->ended)
        owner_set_state(owner, THAW_VM_STOPPED, NULL);
    if (owner->vm && owner->config.snapshot_id)
        offer_withdraw(&owner->slot, owner->config.snapshot_id);
    server_close(owner->server);
    capture_fini(&owner->capture);
    recording_fini(&owner->recording);
    thaw_vm_free(owner->vm);
    thaw_env_free(owner->env);
    thaw_snapshot_list_free(owner->snapshot);
    loop_unwatch(&owner->loop, &owner->console_source);
    console_close(owner->console);
    cleanup_close(&owner->signal_source.fd);
    loop_close(&owner->loop);
    runtime_release(&owner->slot, owner->reason == THAW_REASON_REQUEST);
    free(owner);
}

/* The smaller of two timeouts, of which -1 stands for none. */
static int sooner(int a, int b)
{
    return a < 0 ? b : b < 0 ? a : MIN(a, b);
}

/* Handles output that has been collected. Returns in how many milliseconds to look again. */
static int take_console(struct owner *owner)
{
    int64_t left;

    if (!owner->console_ms)
        return -1;
    deliver_console(owner);
    left = owner->console_ms - now_ms();
    if (left > 0)
        return (int)left;
    console_rearm(owner->console);
    deliver_console(owner);
    owner->console_ms = 0;
    loop_watch(&owner->loop, &owner->console_source, EPOLLIN);
    return -1;
}

/* Waits for a snapshot or a working set that is being stored, and gives readers a moment to take
 * what there is. */
static void finish(struct owner *owner, owner_turn_fn turn, void *data)
{
    int64_t deadline = now_ms() + FINISH_MS;

    loop_unwatch(&owner->loop, &owner->console_source);
    loop_unwatch(&owner->loop, &owner->vm_source);
    loop_unwatch(&owner->loop, &owner->signal_source);
    console_flush_log(owner->console);
    while (now_ms() < deadline) {
        int wait = turn ? turn(data, true) : 0;
        bool running =
            capture_is_running(&owner->capture) || !recording_is_stored(&owner->recording);

        if (running)
            deadline = now_ms() + FINISH_MS;
        if (server_finish(owner->server) && wait == 0 && !running)
            break;
        loop_turn(&owner->loop, 10);
    }
}

/* Waits a moment for what the guest prints first, and delivers it. */
static void deliver_first(struct owner *owner, owner_turn_fn turn, void *data)
{
    int64_t deadline = now_ms() + FIRST_MS;

    while (!owner->console_ms && now_ms() < deadline)
        loop_turn(&owner->loop, 1);
    turn(data, false); /* the log and who follows the console come next */
}

int owner_announce(struct owner *owner, owner_turn_fn turn, void *data, struct thaw_error *error)
{
    int rc;

    if (turn)
        deliver_first(owner, turn, data);
    rc = write_record(owner, error);
    if (rc < 0)
        owner->reason = THAW_REASON_REQUEST;
    else if (owner->config.restore)
        offer_make(&owner->slot, owner->config.snapshot_id);
    return rc;
}

void owner_run(struct owner *owner, owner_turn_fn turn, void *data)
{
    while (!owner->ended) {
        int timeout = take_console(owner);

        timeout =
            sooner(timeout, recording_turn(&owner->recording, owner->state == THAW_VM_RUNNING));
        timeout = sooner(timeout, server_expire(owner->server));
        if (turn)
            timeout = sooner(timeout, turn(data, false));
        loop_turn(&owner->loop, timeout);
    }
    finish(owner, turn, data);
}
